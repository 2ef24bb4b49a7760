"""Laws of all specs: what an operation does to a spec, it does to the values the spec describes.

Each law is held for each kind of spec, many times over, with what hypothesis draws: ``tests/cases/specs.py``.
"""

import inspect

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from tensordict import TensorDict

from cases.specs import DIMENSION_OPS, MASKABLE, OPS, SIZES, SPECS, as_groups, groups_of, masks
from torchrl.data import specs as public
from torchrl.data.specs import Binary, Composite, MultiOneHot, TensorSpec
from torchrl.errors import SpecError


def kinds_of(holds):
    """Parametrise a test by the kinds of spec that ``holds`` accepts."""
    found = [kind for kind in SPECS if holds(kind)]
    return pytest.mark.parametrize("kind", found, ids=[kind.__name__ for kind in found])


every_kind = kinds_of(lambda kind: True)
every_leaf = kinds_of(lambda kind: kind is not Composite)
every_choice = kinds_of(lambda kind: issubclass(kind, MASKABLE))


def law(num_examples):
    """Hold a test for this many draws, the same ones in every run."""

    def decorate(test):
        return settings(derandomize=True, deadline=None, max_examples=num_examples)(given(data=st.data())(test))

    return decorate


def drawn_spec(data, kind):
    return data.draw(SPECS[kind](data.draw(SIZES)))


def shape_of(value) -> torch.Size:
    return value.batch_size if isinstance(value, TensorDict) else value.shape


def test_every_public_spec_is_held_against_the_laws():
    kinds = {getattr(public, name) for name in public.__all__} - {TensorSpec}
    assert kinds == set(SPECS)
    assert not any(inspect.isabstract(kind) for kind in kinds)


def test_every_shape_operation_is_held_against_the_laws():
    methods = {"expand", "reshape", "unsqueeze", "squeeze", "permute", "unbind", "clone"}
    inherited = {name for name, member in vars(TensorSpec).items() if inspect.isfunction(member) and name[0] != "_"}
    values = {"rand", "zero", "project", "to", "contains", "mismatch", "assert_contains", "assert_form"}
    assert inherited - values == methods | {"apply"}  # which all of them go through
    assert methods <= {name.partition(" ")[0] for name in OPS}


@pytest.mark.parametrize("op", OPS)
@every_kind
@law(8)
def test_a_shape_operation_does_to_the_spec_what_it_does_to_its_values(kind, op, data):
    spec = drawn_spec(data, kind)
    assume(spec.ndim or op not in DIMENSION_OPS)
    apply = OPS[op](data.draw, spec.shape)
    value = spec.rand()
    spec.assert_contains(value)
    after = apply(spec)
    after.assert_contains(apply(value))
    assert after.shape == shape_of(apply(value))
    after.assert_contains(after.rand())
    after.assert_contains(after.zero())


@every_kind
@law(40)
def test_rand_and_zero_put_batch_dimensions_in_front(kind, data):
    spec, batch = drawn_spec(data, kind), data.draw(SIZES)
    wide = spec.expand(*batch, *spec.shape)
    wide.assert_contains(spec.rand(batch))
    wide.assert_contains(spec.zero(batch))


@every_kind
@law(20)
def test_rand_depends_on_the_generator_alone(kind, data):
    spec, seed = drawn_spec(data, kind), data.draw(st.integers(0, 100))
    one, other = (spec.rand(generator=torch.Generator().manual_seed(seed)) for _ in range(2))
    assert bool((one == other).all())


def far_off(value):
    """Other values of the same form, most of them outside any bounds."""
    if isinstance(value, TensorDict):
        return value.apply(far_off)
    if value.dtype == torch.bool:
        return ~value
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)) * 100
    return value * 37 + noise if value.dtype.is_floating_point else value.long() * 37 + noise.long()


@every_kind
@law(40)
def test_project_gives_a_new_value_that_is_contained_and_keeps_one_that_was(kind, data):
    spec = drawn_spec(data, kind)
    value = spec.rand()
    kept = spec.project(value)
    assert bool((kept == value).all())
    spec.assert_contains(spec.project(far_off(value)))
    if not isinstance(value, TensorDict):
        assert kept.data_ptr() != value.data_ptr()


@every_kind
@law(40)
def test_equality_survives_copies_and_round_trips(kind, data):
    spec = drawn_spec(data, kind)
    assert spec == spec.clone()
    assert spec == spec.to("cpu")
    assert spec == spec.unsqueeze(0).squeeze(0)
    assert spec != spec.unsqueeze(0)
    flat = spec.reshape(-1)
    if type(flat) is type(spec):
        assert spec == flat.reshape(spec.shape)
    else:
        assert isinstance(spec, MultiOneHot)
        assert flat == Binary(flat.shape, spec.dtype)


@every_leaf
@law(40)
def test_a_wider_dtype_takes_the_values_along(kind, data):
    spec = drawn_spec(data, kind)
    value = spec.rand()
    dtype = data.draw(st.sampled_from([torch.float64, torch.int64]))
    assume(torch.can_cast(spec.dtype, dtype))
    is_index = kind in (public.Categorical, public.MultiCategorical)
    if is_index and dtype.is_floating_point:
        with pytest.raises(SpecError, match="an integer dtype"):
            spec.to(dtype)
    else:
        spec.to(dtype).assert_contains(value.to(dtype))


@every_leaf
@law(40)
def test_the_repr_says_what_the_spec_was_made_of(kind, data):
    spec = drawn_spec(data, kind)
    assume("[...]" not in repr(spec))
    names = {**vars(torch), **vars(public), "inf": float("inf")}
    assert eval(repr(spec), names) == spec


@every_kind
@law(20)
def test_the_batch_dimension_may_not_be_missing(kind, data):
    spec = drawn_spec(data, kind)
    assert not spec.expand(2, *spec.shape).contains(spec.rand())
    assert not spec.contains(spec.rand([2]))


def assert_allowed(spec, value, mask):
    if isinstance(spec, Composite):
        for key, part in mask.items():
            assert_allowed(spec[key], value[key], part)
    else:
        assert not bool((as_groups(spec, value) & ~mask).any())


@kinds_of(lambda kind: issubclass(kind, (*MASKABLE, Composite)))
@law(60)
def test_rand_draws_only_what_a_mask_allows(kind, data):
    spec, batch = drawn_spec(data, kind), data.draw(st.lists(st.integers(1, 2), max_size=1))
    mask = data.draw(masks(spec, batch))
    assume(mask is not None)
    drawn = spec.rand(batch, generator=torch.Generator().manual_seed(0), mask=mask)
    spec.expand(*batch, *spec.shape).assert_contains(drawn)
    assert_allowed(spec, drawn, mask)


@every_choice
@law(40)
def test_a_mask_that_allows_nothing_somewhere_is_refused(kind, data):
    spec = drawn_spec(data, kind)
    groups = groups_of(spec)
    assume(groups is not None)
    rows = spec.shape if kind is public.Categorical else spec.shape[:-1]
    mask = torch.ones(*rows, sum(groups), dtype=torch.bool)
    mask[..., : groups[0]] = False
    with pytest.raises(SpecError, match="allows something"):
        spec.rand(mask=mask)


@kinds_of(lambda kind: not issubclass(kind, (*MASKABLE, Composite)))
@law(20)
def test_what_is_no_choice_refuses_a_mask(kind, data):
    spec = drawn_spec(data, kind)
    with pytest.raises(SpecError, match=rf"{kind.__name__}\.rand: expected no mask, got a Tensor.*Categorical"):
        spec.rand(mask=torch.ones(spec.shape, dtype=torch.bool))
