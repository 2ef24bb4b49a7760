"""Spaces of gymnasium and their values, across the border and back. dm_env has its own file."""

import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings, strategies as st
from tensordict import TensorDict

from cases.specs import LEAVES
from torchrl.data.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, OneHot, Unbounded
from torchrl.envs.conversions import dm_env_from_spec, space_from_spec, spec_from_dm_env, spec_from_space
from torchrl.envs.values import decode, encode
from torchrl.envs.vector.buffers import border_dtype
from torchrl.errors import MissingExtraError, SpecError

INF = np.inf
U32 = 2**32 - 1
DTYPES = (
    ["float16", "float32", "float64", "uint8", "uint16", "uint32"] + ["int8", "int16", "int32", "int64", "bool"]
)  # fmt: skip
I64 = np.iinfo(np.int64)
HUGE = spaces.Box(-1e300, 1e300, (2,), np.float64)  # samples are infinite in single precision

# Spaces whose spec becomes the same space again.
ROUND_TRIPS = [
    (spaces.Box(-1, 1, (3,), np.float32), Bounded(-1.0, 1.0, [3])),
    (spaces.Box(np.float32([-1, -INF]), np.float32([INF, 2])), Bounded([-1.0, -INF], [INF, 2.0])),
    (spaces.Box(-INF, INF, (2, 3), np.float32), Unbounded([2, 3])),
    (spaces.Box(-INF, INF, (), np.float16), Unbounded([], torch.float16)),
    (spaces.Box(0, 255, (4, 4, 3), np.uint8), Bounded(0, 255, [4, 4, 3], torch.uint8)),
    (spaces.Box(-5, 9, (2,), np.int64), Bounded(-5, 9, [2], torch.int64)),
    (spaces.Box(I64.min, I64.max, (2,), np.int64), Bounded(I64.min, I64.max, [2], torch.int64)),
    (spaces.Box(0, 1, (2,), np.bool_), Categorical(2, [2], torch.bool)),
    (spaces.Discrete(4), Categorical(4)),
    (spaces.MultiDiscrete([3, 2]), MultiCategorical([3, 2])),
    (spaces.MultiDiscrete([[3, 2], [1, 4]]), MultiCategorical([[3, 2], [1, 4]])),
    (spaces.MultiBinary(3), Binary([3])),
    (spaces.MultiBinary((2, 3)), Binary([2, 3])),
    (
        spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Dict({"c": spaces.Discrete(3)})}),
        Composite({"a": Bounded(0.0, 1.0, [2]), ("b", "c"): Categorical(3)}),
    ),
    (
        spaces.Tuple([spaces.Discrete(2), spaces.Tuple([spaces.MultiBinary(1)])]),
        Composite({"0": Categorical(2), ("1", "0"): Binary([1])}),
    ),
    (spaces.Tuple([spaces.Discrete(2)] * 11), Composite({str(at): Categorical(2) for at in range(11)})),
    (
        spaces.OneOf([spaces.Discrete(5), spaces.Box(0, 1, (2,))]),
        Composite({"index": Categorical(2), "0": Categorical(5), "1": Bounded(0.0, 1.0, [2])}),
    ),
    (spaces.Dict({"index": spaces.Discrete(3)}), Composite({"index": Categorical(3)})),
    (
        spaces.Dict({"index": spaces.Discrete(3), "0": spaces.Discrete(2)}),
        Composite({"index": Categorical(3), "0": Categorical(2)}),
    ),
]
# Spaces that the border changes: the spec, and the space it becomes again.
CHANGED = [
    (spaces.Box(-1, 1, (3,), np.float64), Bounded(-1.0, 1.0, [3]), spaces.Box(-1, 1, (3,), np.float32)),
    (HUGE, Unbounded([2]), spaces.Box(-INF, INF, (2,), np.float32)),
    (spaces.Box(0, 60000, (2,), np.uint16), Bounded(0, 60000, [2], torch.int32), spaces.Box(0, 60000, (2,), np.int32)),
    (spaces.Box(0, U32, (1,), np.uint32), Bounded(0, U32, [1], torch.int64), spaces.Box(0, U32, (1,), np.int64)),
    (spaces.Discrete(4, start=-2), Categorical(4), spaces.Discrete(4)),
    (spaces.Discrete(4, dtype=np.int32), Categorical(4), spaces.Discrete(4)),
    (spaces.MultiDiscrete([3, 2], start=[1, -1]), MultiCategorical([3, 2]), spaces.MultiDiscrete([3, 2])),
    (spaces.MultiDiscrete([3, 2], dtype=np.uint8), MultiCategorical([3, 2]), spaces.MultiDiscrete([3, 2])),
    (spaces.MultiBinary([3]), Binary([3]), spaces.MultiBinary(3)),
    (spaces.Dict({"0": spaces.Discrete(3)}), Composite({"0": Categorical(3)}), spaces.Tuple([spaces.Discrete(3)])),
]  # fmt: skip
ALL = [space for space, _ in ROUND_TRIPS] + [space for space, _, _ in CHANGED]


@pytest.mark.parametrize(("space", "spec"), ROUND_TRIPS + [case[:2] for case in CHANGED])
def test_spaces_and_their_specs(space, spec):
    assert spec_from_space(space) == spec
    batched = spec_from_space(space, [8])
    assert batched == spec.expand(8, *spec.shape)
    assert batched.shape[0] == 8


@pytest.mark.parametrize(("space", "spec"), ROUND_TRIPS)
def test_a_spec_becomes_its_space_again(space, spec):
    assert space_from_spec(spec) == space
    assert spec_from_space(space_from_spec(spec)) == spec


@pytest.mark.parametrize(("space", "spec", "inside"), CHANGED)
def test_what_the_border_changes_stays_changed(space, spec, inside):
    assert space_from_spec(spec) == inside
    assert spec_from_space(inside) == spec


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (spaces.Discrete(4, start=7), OneHot(4)),
        (spaces.MultiDiscrete([[3, 2], [1, 4]]), MultiOneHot([3, 2, 1, 4])),
        (spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)]), Composite({"0": OneHot(2), "1": Binary([2])})),
    ],
)
def test_choices_are_one_hot_by_name(space, spec):
    assert spec_from_space(space, one_hot=True) == spec
    assert spec_from_space(space, [8], one_hot=True) == spec.expand(8, *spec.shape)
    assert spec_from_space(space_from_spec(spec), one_hot=True) == spec


def test_the_parts_of_a_dict_keep_their_order():
    pairs = [("b", spaces.Discrete(2)), ("a", spaces.Discrete(3))]
    spec = spec_from_space(spaces.Dict(pairs))
    assert list(spec.keys()) == list(space_from_spec(spec).keys()) == ["b", "a"]


@pytest.mark.parametrize(
    ("spec", "space"),
    [
        (Unbounded([2], torch.int8), spaces.Box(-128, 127, (2,), np.int8)),
        (Unbounded([2], torch.bool), spaces.Box(0, 1, (2,), np.bool_)),
        (Categorical(3, [2]), spaces.MultiDiscrete([3, 3])),
        (Categorical(3, dtype=torch.int8), spaces.Discrete(3)),
        (MultiCategorical(3), spaces.Discrete(3)),
        (Binary([2], torch.float32), spaces.MultiBinary(2)),
        (Binary(), spaces.MultiBinary(())),
    ],
)
def test_specs_that_no_space_gives_have_a_space_all_the_same(spec, space):
    assert space_from_spec(spec) == space


def test_what_has_no_space_is_refused():
    with pytest.raises(SpecError, match=r"one-hot vectors of one row, \[3\], got \[8, 3\].*spec\[0\]"):
        space_from_spec(OneHot(3, [8, 3]))
    with pytest.raises(SpecError, match="a dtype that numpy has, got torch.bfloat16"):
        space_from_spec(Unbounded([2], torch.bfloat16))
    with pytest.raises(SpecError, match="expected a spec, got Discrete"):
        space_from_spec(spaces.Discrete(2))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.one_of([make([]) for make in LEAVES.values()]))
def test_the_space_of_any_spec_takes_its_values(spec):
    spec = spec[(0,) * (spec.ndim - 1)] if isinstance(spec, MultiOneHot) else spec
    one_hot = isinstance(spec, MultiOneHot)
    space = space_from_spec(spec)
    inside = spec_from_space(space, one_hot=one_hot)
    value = spec.rand(generator=torch.Generator().manual_seed(0)).to(inside.dtype)
    inside.assert_contains(value)
    assert space.contains(decode(space, value, one_hot=one_hot))


# Refusals.


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(3), r"got Text\(1, 3.*token indices of fixed length"),
        (spaces.Graph(spaces.Box(0, 1), None), "got Graph.*fixed number"),
        (spaces.Sequence(spaces.Discrete(2)), "got Sequence.*fixed length.*a mask"),
        (spaces.Dict({"a": spaces.Tuple([spaces.Text(3)])}), "got Text"),
        (spaces.Box(0, 1, (2,), np.uint64), "a dtype of bool, float16.*uint64"),
        (3, "a Box, Discrete, .*got 3.*presents one of these"),
    ],
)
def test_others_are_refused_by_name(space, message):
    with pytest.raises(SpecError, match=message):
        spec_from_space(space)


def test_a_spec_is_not_taken_for_a_space():
    for convert in (lambda: encode(Categorical(3), 1), lambda: decode(Categorical(3), torch.tensor(1))):
        with pytest.raises(SpecError, match="the space of the simulator, got a Categorical. Where choices start"):
            convert()


# Values.


@pytest.mark.parametrize("space", ALL, ids=str)
@pytest.mark.parametrize("one_hot", [False, True])
def test_samples_go_in_and_come_out_unchanged(space, one_hot):
    space.seed(0)
    spec = spec_from_space(space, one_hot=one_hot)
    for _ in range(5):
        sample = space.sample()
        encoded = encode(space, sample, one_hot=one_hot)
        spec.assert_contains(encoded)
        back = decode(space, encoded, one_hot=one_hot)
        assert space.contains(back)
        if space != HUGE:
            assert_same(back, sample)


@pytest.mark.parametrize("space", ALL, ids=str)
@pytest.mark.parametrize("one_hot", [False, True])
def test_tensors_go_out_and_come_in_unchanged(space, one_hot):
    spec = spec_from_space(space, one_hot=one_hot)
    for seed in range(5):
        tensor = spec.rand(generator=torch.Generator().manual_seed(seed))
        value = decode(space, tensor, one_hot=one_hot)
        assert space.contains(value)
        again = encode(space, value, one_hot=one_hot)
        if isinstance(space, spaces.OneOf):  # the parts that were not chosen are not kept
            chosen = str(value[0])
            tensor, again = tensor[chosen], again[chosen]
        assert bool((again == tensor).all())


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple):
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        tolerance = 1e-6 if one.dtype == np.float64 else 0
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    else:
        assert one == other


def test_choices_are_counted_from_zero_inside():
    space = spaces.Discrete(4, start=-2)
    assert encode(space, 1).tolist() == 3
    assert decode(space, torch.tensor(0)) == -2
    assert encode(space, -2, one_hot=True).tolist() == [1, 0, 0, 0]
    assert decode(space, torch.tensor([0, 0, 1, 0]), one_hot=True) == 0
    several = spaces.MultiDiscrete([3, 2], start=[1, -1])
    assert encode(several, [3, -1]).tolist() == [2, 0]
    assert decode(several, torch.tensor([2, 1])).tolist() == [3, 0]
    assert encode(several, [3, -1], one_hot=True).tolist() == [0, 0, 1, 1, 0]
    assert decode(several, torch.tensor([0, 1, 0, 0, 1]), one_hot=True).tolist() == [2, 0]


def test_small_dtypes_do_not_wrap_around():
    space = spaces.MultiDiscrete([100, 100], dtype=np.int8, start=[-100, 20])
    assert encode(space, np.int8([-1, 119])).tolist() == [99, 99]
    assert decode(space, torch.tensor([0, 99])).tolist() == [-100, 119]
    assert encode(spaces.Box(0, 255, (2,), np.uint8), [0, 255]).tolist() == [0, 255]
    with pytest.raises(SpecError, match="256"):
        encode(spaces.Box(0, 255, (2,), np.uint8), [0, 256])


def test_one_of_keeps_the_chosen_part():
    space = spaces.OneOf([spaces.Discrete(5, start=1), spaces.Box(0, 1, (2,))])
    encoded = encode(space, (1, [0.5, 1.0]))
    assert {key: value.tolist() for key, value in encoded.items()} == {"index": 1, "0": 0, "1": [0.5, 1.0]}
    index, value = decode(space, encode(space, (0, 3)))
    assert (index, value) == (0, 3)


def test_nested_values_have_the_form_of_the_space():
    space = spaces.Dict(
        arm=spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float64)]), on=spaces.MultiBinary(2)
    )
    encoded = encode(space, {"arm": (2, [0.25, -1]), "on": [1, 0]})
    assert isinstance(encoded, TensorDict) and encoded.batch_size == ()
    assert encoded["arm", "0"].item() == 2
    assert encoded["arm", "1"].dtype == torch.float32
    value = decode(space, encoded)
    assert value["arm"][0] == 2
    assert value["arm"][1].tolist() == [0.25, -1.0] and value["arm"][1].dtype == np.float64
    assert value["on"].tolist() == [1, 0] and value["on"].dtype == np.int8


def test_single_precision_does_not_leave_double_precision_bounds():
    bound = 0.1  # above it in single precision
    space = spaces.Box(-bound, bound, (1,), np.float64)
    assert float(np.float32(bound)) > bound
    assert decode(space, encode(space, [bound])).tolist() == [bound]
    assert space.contains(decode(space, spec_from_space(space).project(torch.tensor([9.0]))))
    assert encode(spaces.Box(-0.7, 0.7, (1,), np.float32), [0.7]).tolist() == [np.float32(0.7)]


def test_values_are_the_callers_own():
    array = np.zeros(2, np.float32)
    space = spaces.Box(-1, 1, (2,))
    tensor = encode(space, array)
    value = decode(space, tensor)
    array += 1
    value += 1
    assert tensor.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (spaces.Discrete(3, start=1), 0, r"value: expected a value of Discrete\(3, start=1\), got 0"),
        (spaces.Discrete(3), 1.0, "got 1.0"),
        (spaces.Discrete(3), [0, 1, 0], r"got \[0, 1, 0\]"),
        (spaces.MultiDiscrete([3, 2]), [0, 2], r"got \[0, 2\]"),
        (spaces.MultiDiscrete([3, 2]), [[0], [1, 1]], "got"),
        (spaces.MultiBinary(2), [0, 2], r"got \[0, 2\]"),
        (spaces.Box(0, 1, (2,)), [0.5], r"got \[0.5\]"),
        (spaces.Box(0, 1, (2,)), [0.5, np.nan], "nan"),
        (spaces.Box(0, 1, (2,)), "ab", "got 'ab'"),
        (spaces.Box(0, 9, (1,), np.int64), [0.5], r"got \[0.5\]"),
        (spaces.Box(0, 1, (9, 9)), np.full((9, 9), 2.0), r"got float64 \[9, 9\], not all of it in the space"),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": 0}, r"value: expected a value of Dict.*got \{'b': 0\}"),
        (spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2))), {"a": {"b": 2}}, r"value\.a\.b: .*Discrete\(2\), got 2"),
        (spaces.Tuple([spaces.Discrete(2)]), (0, 1), r"value: expected a value of Tuple.*got \(0, 1\)"),
        (spaces.Tuple([spaces.Discrete(2)]), (2,), r"value\.0: "),
        (spaces.OneOf([spaces.Discrete(2)]), (1, 0), r"value\.index: .*got 1"),
        (spaces.OneOf([spaces.Discrete(2)]), (0, 2), r"value\.0: .*got 2"),
        (spaces.OneOf([spaces.Discrete(2)]), 0, "expected a value of OneOf.*got 0"),
        (spaces.Text(3), "abc", "got Text"),
    ],
)
def test_a_value_that_is_not_in_the_space_is_refused(space, value, message):
    with pytest.raises(SpecError, match=message):
        encode(space, value)


@pytest.mark.parametrize(
    ("space", "tensor", "one_hot", "message"),
    [
        (spaces.Discrete(3), torch.tensor([0, 1, 0]), False, "looks one-hot"),
        (spaces.Discrete(3), torch.tensor(1), True, "looks like an index"),
        (spaces.Discrete(3, start=1), torch.tensor(3), False, "from 0 to 2, got 3"),
        (spaces.Box(0, 1, (2,)), torch.tensor([0.5, 2.0]), False, "from 0.0 to 1.0"),
        (spaces.Dict(a=spaces.Discrete(2)), TensorDict({"a": torch.tensor(2)}), False, r"value\.a: "),
        (spaces.Discrete(3), 1, False, "a tensor, got int"),
    ],
)
def test_a_tensor_that_the_spec_does_not_contain_is_refused(space, tensor, one_hot, message):
    with pytest.raises(SpecError, match=message):
        decode(space, tensor, one_hot=one_hot)


# The border of the workers.


@pytest.mark.parametrize("dtype", DTYPES)
def test_workers_write_what_the_spec_says(dtype):
    kinds = [spaces.Box(0, 1, (2,), dtype), spaces.MultiBinary(2)]
    if np.dtype(dtype).kind in "iu":
        kinds += [spaces.Discrete(3, dtype=dtype), spaces.MultiDiscrete([3, 2], dtype=dtype)]
    for space in kinds:
        written = torch.from_numpy(np.zeros(1, border_dtype(space)))
        assert spec_from_space(space).dtype == written.dtype


def test_double_precision_samples_are_described_in_single_precision():
    space = spaces.Box(np.array([0.1, -0.3]), np.array([0.7, -0.1]), (2,), np.float64)
    for bound in (space.low, space.high):
        spec_from_space(space).assert_contains(torch.from_numpy(bound).float())


def test_a_missing_dm_env_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_env.specs", None)
    for convert in (lambda: spec_from_dm_env(3), lambda: dm_env_from_spec(Unbounded()), lambda: encode(3, 3)):
        with pytest.raises(MissingExtraError, match=r"dm_env\.specs.*\[dm-control\]"):
            convert()
