"""Spaces as specs."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from torchrl.data.specs import Bounded, Categorical, Composite, Unbounded
from torchrl.envs.conversions import spec_from_space
from torchrl.errors import SpecError

INF = np.inf


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (spaces.Box(-1, 1, (3,), np.float32), Bounded(-1.0, 1.0, [3])),
        (spaces.Box(-1, 1, (3,), np.float64), Bounded(-1.0, 1.0, [3])),
        (spaces.Box(np.float32([-1, -INF]), np.float32([INF, 2])), Bounded([-1.0, -INF], [INF, 2.0])),
        (spaces.Box(-INF, INF, (2, 3), np.float64), Unbounded([2, 3])),
        (spaces.Box(-1e300, 1e300, (2,), np.float64), Unbounded([2])),
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), Bounded(0, 255, [4, 4, 3], torch.uint8)),
        (spaces.Box(0, 9, (2,), np.int64), Bounded(0, 9, [2], torch.int64)),
        (spaces.Box(0, 60000, (2,), np.uint16), Bounded(0, 60000, [2], torch.int32)),
        (spaces.Box(0, 1, (2,), np.bool_), Categorical(2, [2], torch.bool)),
        (spaces.Discrete(4), Categorical(4)),
        (
            spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Dict({"c": spaces.Discrete(3)})}),
            Composite({"a": Bounded(0.0, 1.0, [2]), ("b", "c"): Categorical(3)}),
        ),
    ],
)
def test_spaces_and_their_specs(space, spec):
    assert spec_from_space(space) == spec
    batched = spec_from_space(space, [8])
    assert batched == spec.expand(8, *spec.shape)
    assert batched.shape[0] == 8


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8, np.int8, np.int16, np.int32, np.int64])
def test_samples_are_described(dtype):
    space = spaces.Box(0, 100, (2, 3), dtype)
    space.seed(0)
    spec_from_space(space).assert_contains(torch.from_numpy(space.sample()))


def test_double_precision_samples_are_described_in_single_precision():
    space = spaces.Box(np.array([0.1, -0.3]), np.array([0.7, -0.1]), (2,), np.float64)
    for bound in (space.low, space.high):
        spec_from_space(space).assert_contains(torch.from_numpy(bound).float())


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(3, start=1), "starts at 0.*GymSimulator"),
        (spaces.MultiDiscrete([2, 3]), r"got MultiDiscrete\(\[2 3\]\)"),
        (spaces.MultiBinary(3), "got MultiBinary"),
        (spaces.Tuple([spaces.Discrete(2)]), "got Tuple"),
        (spaces.Text(3), "got Text"),
        (spaces.Dict({"a": spaces.Text(3)}), "got Text"),
        (spaces.Box(0, 1, (2,), np.uint64), "a dtype of float16.*uint64"),
    ],
)
def test_others_are_refused_by_name(space, message):
    with pytest.raises(SpecError, match=message):
        spec_from_space(space)
