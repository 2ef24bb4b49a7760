"""Laws of all specs: what an operation does to a spec, it does to the values the spec describes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Categorical, Composite, TensorSpec, Unbounded
from torchrl.errors import SpecError

SIZES = st.lists(st.integers(1, 3), max_size=3)
FLOATS = st.sampled_from([torch.float32, torch.float64, torch.float16])
INTEGERS = st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64])
KEYS = st.text("abc", min_size=1, max_size=2)


@st.composite
def bounds(draw, shape, number):
    """Two tensors, low <= high, of a shape that broadcasts to ``shape``."""
    own = [draw(st.sampled_from([1, size])) for size in shape][draw(st.integers(0, len(shape))) :]
    num = int(torch.Size(own).numel())
    pairs = draw(st.lists(st.tuples(number, number), min_size=num, max_size=num))
    low, high = ([pick(pair) for pair in pairs] for pick in (min, max))
    return torch.tensor(low).reshape(own), torch.tensor(high).reshape(own)


@st.composite
def leaves(draw, batch):
    shape = [*batch, *draw(st.lists(st.integers(1, 3), max_size=2))]
    kind = draw(st.sampled_from(["unbounded", "float", "integer", "categorical", "flag"]))
    if kind == "unbounded":
        return Unbounded(shape, draw(FLOATS | INTEGERS | st.just(torch.bool)))
    if kind == "categorical":
        return Categorical(draw(st.integers(1, 5)), shape, draw(INTEGERS))
    if kind == "flag":
        return Categorical(2, shape, torch.bool)
    if kind == "float":
        number = st.integers(-8, 8).map(lambda n: n / 2) | st.sampled_from([float("inf"), float("-inf")])
        low, high = draw(bounds(shape, number))
        return Bounded(low, high.nan_to_num(posinf=float("inf")), shape, draw(FLOATS))
    dtype = draw(INTEGERS)
    return Bounded(*draw(bounds(shape, st.integers(0, 250))), shape, dtype)


@st.composite
def composites(draw, batch, depth=2):
    spec = Composite(shape=batch)
    for key in draw(st.lists(KEYS, unique=True, min_size=1, max_size=3)):
        if depth and draw(st.booleans()):
            inner = [*batch, *draw(st.lists(st.integers(1, 2), max_size=1))]
            spec[key] = draw(composites(inner, depth - 1))
        else:
            spec[key] = draw(leaves(batch))
    return spec


@st.composite
def specs(draw) -> TensorSpec:
    batch = draw(SIZES)
    return draw(composites(batch) | leaves(batch))


@st.composite
def specs_and_ops(draw):
    """A spec, and one function for specs and values alike."""
    spec = draw(specs())
    shape, num = spec.shape, len(spec.shape)
    ops = [
        (lambda x: x.expand(2, *shape), f"expand(2, {shape})"),
        (lambda x: x.expand(torch.Size([3, 1, *shape])), "expand(Size)"),
        (lambda x: x.reshape(-1), "reshape(-1)"),
        (lambda x: x.reshape([1, *shape, 1]), "reshape with ones"),
        (lambda x: x.squeeze(), "squeeze()"),
        (lambda x: x[None], "[None]"),
        (lambda x: x[..., None], "[..., None]"),
        (lambda x: x[...], "[...]"),
        (lambda x: x.clone(), "clone()"),
    ]
    order = draw(st.permutations([at - num * draw(st.booleans()) for at in range(num)]))
    ops.append((lambda x: x.permute(order), f"permute({order})"))
    dim = draw(st.integers(-num - 1, num))
    ops.append((lambda x: x.unsqueeze(dim), f"unsqueeze({dim})"))
    if num:
        at = draw(st.integers(-num, num - 1))
        place = draw(st.integers(0, shape[at] - 1))
        front = draw(st.integers(0, shape[0] - 1))
        picked = torch.tensor(draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=3)))
        mask = torch.tensor(draw(st.lists(st.booleans(), min_size=shape[0], max_size=shape[0])))
        ops += [
            (lambda x: x.squeeze(at), f"squeeze({at})"),
            (lambda x: x.unbind(at)[place], f"unbind({at})[{place}]"),
            (lambda x: x[front], f"[{front}]"),
            (lambda x: x[front:], f"[{front}:]"),
            (lambda x: x[..., -1], "[..., -1]"),
            (lambda x: x[picked], f"[{picked}]"),
            (lambda x: x[picked, ..., None], f"[{picked}, ..., None]"),
            (lambda x: x[picked.tolist()], f"[list {picked.tolist()}]"),
            (lambda x: x[mask], f"[{mask}]"),
            (lambda x: x[(*[None] * 2, ..., slice(None, None, 2))], "[None, None, ..., ::2]"),
        ]
    op, name = draw(st.sampled_from(ops))
    return spec, op, name


def shape_of(value) -> torch.Size:
    return value.batch_size if isinstance(value, TensorDict) else value.shape


@given(specs_and_ops())
@settings(max_examples=400, deadline=None)
def test_every_shape_op_does_to_the_spec_what_it_does_to_its_values(drawn):
    spec, op, _ = drawn
    value = spec.rand()
    spec.assert_contains(value)
    after = op(spec)
    after.assert_contains(op(value))
    assert after.shape == shape_of(op(value))
    after.assert_contains(after.rand())


@given(specs(), SIZES)
@settings(max_examples=200, deadline=None)
def test_rand_and_zero_put_batch_dimensions_in_front(spec, batch):
    wide = spec.expand(*batch, *spec.shape)
    wide.assert_contains(spec.rand(batch))
    wide.assert_contains(spec.zero(batch))


@given(specs(), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_rand_depends_on_the_generator_alone(spec, seed):
    one, other = (spec.rand(generator=torch.Generator().manual_seed(seed)) for _ in range(2))
    assert bool((one == other).all())


def far_off(value):
    """Other values of the same form, most of them outside any bounds."""
    if isinstance(value, TensorDict):
        return value.apply(far_off)
    if value.dtype == torch.bool:
        return ~value
    return value * 37 - 113 if value.dtype.is_floating_point else value.to(torch.int64) * 37 - 113


@given(specs())
@settings(max_examples=200, deadline=None)
def test_project_gives_a_new_value_that_is_contained_and_keeps_one_that_was(spec):
    value = spec.rand()
    kept = spec.project(value)
    assert bool((kept == value).all())
    spec.assert_contains(spec.project(far_off(value)))
    if not isinstance(value, TensorDict):
        assert kept.data_ptr() != value.data_ptr()


@given(specs())
@settings(max_examples=100, deadline=None)
def test_equality_survives_copies_and_round_trips(spec):
    assert spec == spec.clone()
    assert spec == spec.to("cpu")
    assert spec == spec.unsqueeze(0).squeeze(0)
    assert spec == spec.reshape(-1).reshape(spec.shape)
    assert spec != spec.unsqueeze(0)


@given(specs())
@settings(max_examples=100, deadline=None)
def test_the_batch_dimension_may_not_be_missing(spec):
    assert not spec.expand(2, *spec.shape).contains(spec.rand())
    assert not spec.contains(spec.rand([2]))


@pytest.mark.parametrize("spec", [Unbounded([2, 3]), Composite({"a": Unbounded([2, 3, 4])}, [2, 3])])
@pytest.mark.parametrize(
    ("op", "name"),
    [
        (lambda spec: spec.reshape(5), "reshape"),
        (lambda spec: spec.expand(3, 3), "expand"),
        (lambda spec: spec[0, 0, 0], "index"),
        (lambda spec: spec[7], "index"),
        (lambda spec: spec.unsqueeze(3), "unsqueeze"),
        (lambda spec: spec.squeeze(-3), "squeeze"),
        (lambda spec: spec.unbind(2), "unbind"),
        (lambda spec: spec.permute(0), "permute"),
        (lambda spec: spec.permute(0, 0), "permute"),
    ],
)
def test_an_operation_that_does_not_fit_names_itself_and_the_shape(spec, op, name):
    with pytest.raises(SpecError, match=rf"{type(spec).__name__}\.{name}.*\[2, 3\]"):
        op(spec)


def test_squeeze_leaves_a_dimension_that_is_not_one():
    assert Unbounded([1, 2, 1]).squeeze(1).shape == (1, 2, 1)
    assert Unbounded([1, 2, 1]).squeeze(-1).shape == (1, 2)


def test_bounds_that_are_the_same_everywhere_take_no_memory():
    spec = Bounded(torch.zeros(84, 84), torch.full((84, 84), 255), dtype=torch.uint8).expand(64, 4, 84, 84)
    assert all(bound.numel() == 1 for bound in spec._bounds.values())
    assert spec.low.shape == spec.shape


def test_a_leaf_is_not_silently_iterated():
    with pytest.raises(TypeError, match="unbind"):
        list(Unbounded([2]))


@pytest.mark.parametrize(
    ("value", "expected", "got", "hint"),
    [
        (torch.zeros(8, 1, dtype=torch.float64), "float32", "float64", "to(torch.float32)"),
        (torch.zeros(8), "[8, 1]", "shape [8]", "unsqueeze(-1)"),
        (torch.zeros(8, 1, 1), "[8, 1]", "[8, 1, 1]", "squeeze(-1)"),
        (torch.zeros(1), "[8, 1]", "shape [1]", "batch dimensions [8] are missing"),
        (torch.zeros(5, 8, 1), "[8, 1]", "[5, 8, 1]", "extra batch dimensions [5]"),
        (torch.zeros(8, 1, device="meta"), "device cpu", "device meta", '.to("cpu")'),
        ([0.0], "a tensor", "list", "torch.as_tensor"),
        (TensorDict({}, [8]), "a tensor", "TensorDict", "key"),
    ],
)
def test_a_mismatch_names_the_key_what_was_expected_what_came_and_what_to_do(value, expected, got, hint):
    spec = Unbounded([8, 1])
    with pytest.raises(SpecError) as caught:
        spec.assert_contains(value, "reward")
    message = str(caught.value)
    assert message.startswith("reward: ")
    assert all(part in message for part in (expected, got, hint))
    assert not spec.contains(value)


def test_project_refuses_another_shape_and_another_kind():
    with pytest.raises(SpecError, match=r"expected shape \[8, 1\], got shape \[8\].*unsqueeze"):
        Unbounded([8, 1]).project(torch.zeros(8))
    with pytest.raises(SpecError, match="expected dtype int64, got float32"):
        Categorical(3, [8]).project(torch.zeros(8))


def test_to_another_device():
    spec = Composite({"a": Bounded([0.0, 1.0], [2.0, 3.0]), "b": {"c": Categorical(3)}})
    moved = spec.to("meta")
    assert moved.device == torch.device("meta")
    assert all(leaf.device.type == "meta" for _, leaf in moved.leaves())
    assert spec.device == torch.device("cpu")
    assert spec["a"] != spec["a"].to(torch.float64)
