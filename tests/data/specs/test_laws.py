"""Laws of all specs: what an operation does to a spec, it does to the values the spec describes."""

import inspect

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from cases.specs import MASKABLE, SIZES, SPECS, as_groups, groups_of, masks, specs, specs_and_ops
from torchrl.data import specs as public
from torchrl.data.specs import Binary, Composite, MultiOneHot, TensorSpec
from torchrl.errors import SpecError

settings.register_profile("fixed", derandomize=True, deadline=None)
fixed = settings.get_profile("fixed")


def law(num_examples):
    return settings(fixed, max_examples=num_examples)


def test_every_public_spec_is_held_against_the_laws():
    kinds = {getattr(public, name) for name in public.__all__} - {TensorSpec}
    assert kinds == set(SPECS)
    assert not any(inspect.isabstract(kind) for kind in kinds)


def shape_of(value) -> torch.Size:
    return value.batch_size if isinstance(value, TensorDict) else value.shape


@law(600)
@given(specs_and_ops())
def test_every_shape_op_does_to_the_spec_what_it_does_to_its_values(drawn):
    spec, _, op = drawn
    value = spec.rand()
    spec.assert_contains(value)
    after = op(spec)
    after.assert_contains(op(value))
    assert after.shape == shape_of(op(value))
    after.assert_contains(after.rand())
    after.assert_contains(after.zero())


@pytest.mark.parametrize("kind", SPECS.values(), ids=[kind.__name__ for kind in SPECS])
def test_rand_and_zero_put_batch_dimensions_in_front(kind):
    @law(40)
    @given(specs({"": kind}), SIZES)
    def holds(spec, batch):
        wide = spec.expand(*batch, *spec.shape)
        wide.assert_contains(spec.rand(batch))
        wide.assert_contains(spec.zero(batch))

    holds()


@law(100)
@given(specs(), st.integers(0, 100))
def test_rand_depends_on_the_generator_alone(spec, seed):
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


@pytest.mark.parametrize("kind", SPECS.values(), ids=[kind.__name__ for kind in SPECS])
def test_project_gives_a_new_value_that_is_contained_and_keeps_one_that_was(kind):
    @law(40)
    @given(specs({"": kind}))
    def holds(spec):
        value = spec.rand()
        kept = spec.project(value)
        assert bool((kept == value).all())
        spec.assert_contains(spec.project(far_off(value)))
        if not isinstance(value, TensorDict):
            assert kept.data_ptr() != value.data_ptr()

    holds()


@law(200)
@given(specs())
def test_equality_survives_copies_and_round_trips(spec):
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


@law(200)
@given(specs())
def test_a_spec_is_described_by_what_it_was_made_of(spec):
    again = {
        "torch": torch,
        "inf": float("inf"),
        **vars(torch),
        **{name: getattr(public, name) for name in vars(public)},
    }
    assume(not isinstance(spec, Composite) and "[...]" not in repr(spec))
    assert eval(repr(spec), again) == spec  # noqa: S307 - the text is our own


@law(100)
@given(specs())
def test_the_batch_dimension_may_not_be_missing(spec):
    assert not spec.expand(2, *spec.shape).contains(spec.rand())
    assert not spec.contains(spec.rand([2]))


def assert_allowed(spec, value, mask):
    if isinstance(spec, Composite):
        for key, part in mask.items():
            assert_allowed(spec[key], value[key], part)
    else:
        assert not bool((as_groups(spec, value) & ~mask).any())


@law(300)
@given(st.data())
def test_rand_draws_only_what_a_mask_allows(data):
    kinds = {kind: make for kind, make in SPECS.items() if issubclass(kind, (*MASKABLE, Composite))}
    spec, batch = data.draw(specs(kinds)), data.draw(st.lists(st.integers(1, 2), max_size=1))
    mask = data.draw(masks(spec, batch))
    assume(mask is not None)
    drawn = spec.rand(batch, generator=torch.Generator().manual_seed(0), mask=mask)
    spec.expand(*batch, *spec.shape).assert_contains(drawn)
    assert_allowed(spec, drawn, mask)


@law(100)
@given(specs({kind: make for kind, make in SPECS.items() if not issubclass(kind, (*MASKABLE, Composite))}))
def test_what_is_no_choice_refuses_a_mask(spec):
    with pytest.raises(SpecError, match="expected no mask"):
        spec.rand(mask=torch.ones(spec.shape, dtype=torch.bool))


@law(100)
@given(specs({kind: make for kind, make in SPECS.items() if issubclass(kind, MASKABLE)}))
def test_a_mask_that_allows_nothing_somewhere_is_refused(spec):
    groups = groups_of(spec)
    assume(groups is not None)
    rows = spec.shape if type(spec) is public.Categorical else spec.shape[:-1]
    mask = torch.ones(*rows, sum(groups), dtype=torch.bool)
    mask[..., : groups[0]] = False
    with pytest.raises(SpecError, match="allows something"):
        spec.rand(mask=mask)
