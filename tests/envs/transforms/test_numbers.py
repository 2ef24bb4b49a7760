"""Choices, bits and integers as numbers that a network takes, by hand."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from cases.transform_steps import Scripted, act, specs
from torchrl.data.specs import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    Unbounded,
)
from torchrl.envs import GymEnv, SerialEnv
from torchrl.envs.transforms import (
    BitsToFloat,
    CatTensors,
    Compose,
    DoubleToFloat,
    Flatten,
    OneHotObservation,
    ScaleByBounds,
    TransformedEnv,
)
from torchrl.envs.transforms.base import EnvSpecs
from torchrl.errors import ConfigError, KeyMissing, SpecError


class Numbered(gymnasium.Env):
    """Shows 7 of 5, 6 and 7."""

    observation_space, action_space = spaces.Discrete(3, start=5), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 7, {}


def shown(space, first, second, *transforms):
    """What is seen of two values, in the root and under next, by a batch of two rows."""
    env = TransformedEnv(SerialEnv(lambda: Scripted(space, (first, second).__getitem__, 9), 2), Compose(*transforms))
    root = env.reset()
    transition, after = env.step_and_reset(act(root.clone()))
    assert torch.equal(transition["next", "observation"], after["observation"])
    assert root["observation"].dtype == torch.float32
    for value in (root, after):
        env.observation_spec["observation"].assert_contains(value["observation"])
    return root["observation"][1].tolist(), after["observation"][0].tolist(), env.observation_spec["observation"]


def test_a_choice_becomes_a_one_hot_vector():
    first, second, spec = shown(spaces.Discrete(4), 1, 3, OneHotObservation())
    assert first == [0, 1, 0, 0] and second == [0, 0, 0, 1]
    assert spec == OneHot(4, (2, 4), torch.float32)


def test_a_choice_that_does_not_start_at_0_is_counted_from_0():
    env = TransformedEnv(GymEnv(Numbered()), OneHotObservation())
    assert env.reset()["observation"].tolist() == [0, 0, 1]


def test_several_choices_become_their_vectors_in_a_row():
    space = spaces.MultiDiscrete([2, 3])
    first, second, spec = shown(space, np.array([1, 0]), np.array([0, 2]), OneHotObservation())
    assert first == [0, 1, 1, 0, 0] and second == [1, 0, 0, 0, 1]
    assert spec == MultiOneHot([2, 3], (2, 5), torch.float32)
    grid = spaces.MultiDiscrete([[2, 3], [1, 2]])
    first, _, spec = shown(grid, np.array([[1, 2], [0, 1]]), np.array([[0, 0], [0, 0]]), OneHotObservation())
    assert first == [0, 1, 0, 0, 1, 1, 0, 1] and spec.nvec == (2, 3, 1, 2)


def test_a_single_choice_of_many_has_a_vector_of_its_own():
    first, _, spec = shown(spaces.MultiDiscrete([3]), np.array([2]), np.array([0]), OneHotObservation())
    assert first == [0, 0, 1] and spec == OneHot(3, (2, 3), torch.float32)


def test_bits_become_floats():
    first, second, spec = shown(
        spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), np.zeros(3, np.int8), BitsToFloat()
    )
    assert first == [1, 0, 1] and second == [0, 0, 0] and spec == Binary((2, 3), torch.float32)
    flags = spaces.Box(0, 1, (2,), np.bool_)
    first, _, spec = shown(flags, np.array([False, True]), np.array([True, True]), BitsToFloat())
    assert first == [0, 1] and spec == Binary((2, 2), torch.float32)


def test_integers_are_scaled_by_their_bounds():
    space = spaces.Box(np.array([0, -5, 7]), np.array([10, 15, 7]), dtype=np.int32)
    first, second, spec = shown(space, np.array([5, 0, 7], np.int32), np.array([10, -5, 7], np.int32), ScaleByBounds())
    assert first == [0.5, 0.25, 0.0] and second == [1.0, 0.0, 0.0]
    assert spec == Bounded([[0, 0, 0]] * 2, [[1, 1, 0]] * 2)
    first, _, spec = shown(
        spaces.Box(0, 255, (2,), np.uint8), np.array([51, 255], np.uint8), np.zeros(2, np.uint8), ScaleByBounds()
    )
    assert first == pytest.approx([0.2, 1.0]) and spec == Bounded(0.0, 1.0, (2, 2))


def test_integers_without_bounds_stay_themselves():
    limits = np.iinfo(np.int64)
    space = spaces.Box(np.array([0, 0, limits.min]), np.array([limits.max, 10, limits.max]), dtype=np.int64)
    first, second, spec = shown(space, np.array([3, 5, -2]), np.array([0, 10, 7]), ScaleByBounds())
    assert first == [3.0, 0.5, -2.0] and second == [0.0, 1.0, 7.0]
    assert spec.low[0].tolist() == [0.0, 0.0, -(2.0**63)] and spec.high[0].tolist() == [2.0**63, 1.0, 2.0**63]


def test_the_width_from_which_on_there_are_no_bounds():
    for width, due in ((2**24, 0.25), (2**24 + 1, 2.0**22 + 2**30)):
        value = np.array([2**30 + 2**22])
        space = spaces.Box(2**30, 2**30 + width, (1,), np.int64)
        assert shown(space, value, value, ScaleByBounds())[0] == [due]


def test_bounds_far_from_0_lose_no_integer():
    space = spaces.Box(2**40, 2**40 + 4, (1,), np.int64)
    assert shown(space, np.array([2**40 + 1]), np.array([2**40 + 3]), ScaleByBounds())[:2] == ([0.25], [0.75])


def test_all_of_a_mixed_world_becomes_one_vector():
    board = spaces.Box(0, 10, (1, 2, 2), np.uint8)
    space = spaces.Dict([("place", spaces.Discrete(3)), ("map", board), ("lit", spaces.MultiBinary(2))])
    seen = {"place": 2, "map": np.array([[[0, 5], [10, 1]]], np.uint8), "lit": np.array([0, 1], np.int8)}
    chain = OneHotObservation(), BitsToFloat(), ScaleByBounds(), Flatten(in_keys=["map"]), CatTensors()
    first, _, _ = shown(space, seen, seen, *chain)
    assert first == pytest.approx([0, 0, 1, 0, 0.5, 1.0, 0.1, 0, 1])


def test_what_is_no_such_number_stays(make=(OneHotObservation, BitsToFloat, ScaleByBounds)):
    space = spaces.Box(0.0, 1.0, (2,), np.float32)
    value = np.array([0.25, 0.5], np.float32)
    assert shown(space, value, value, *(one() for one in make))[0] == [0.25, 0.5]


@pytest.mark.parametrize(
    ("leaf", "takes"),
    [
        (Categorical(3, (2,)), OneHotObservation),
        (Categorical(2, (2, 3)), OneHotObservation),
        (MultiCategorical([2, 2], (2, 2), torch.uint8), OneHotObservation),
        (Categorical(2, (2,), torch.bool), BitsToFloat),
        (MultiCategorical([2, 2], (2, 2), torch.bool), BitsToFloat),
        (Unbounded((2,), torch.bool), BitsToFloat),
        (Binary((2, 3)), BitsToFloat),
        (OneHot(3, (2, 3)), BitsToFloat),
        (Bounded(0, 1, (2,), torch.int8), ScaleByBounds),
        (Unbounded((2,), torch.int32), ScaleByBounds),
        (Binary((2, 3), torch.float32), None),
        (OneHot(3, (2, 3), torch.float32), None),
        (Bounded(0, 1, (2,)), None),
        (Unbounded((2,), torch.float64), None),
    ],
)
def test_each_kind_is_for_one_of_them_and_the_others_refuse_it_by_name(leaf, takes):
    for transform in (OneHotObservation, BitsToFloat, ScaleByBounds):
        if transform is takes:
            one = transform(["x"])
            one.read_specs(specs(2, x=leaf))
            spec = one.observation_spec(Composite({"x": leaf}, [2]))["x"]
            encoded = one._functions["x"](leaf.rand())
            spec.assert_contains(encoded)
            assert encoded.dtype == torch.float32
        else:
            with pytest.raises(
                SpecError, match=f"^{transform.__name__}: expected .* in 'x', got {type(leaf).__name__}"
            ):
                transform(["x"]).read_specs(specs(2, x=leaf))


def test_mistakes_are_refused():
    with pytest.raises(KeyMissing, match="OneHotObservation.*'place'"):
        OneHotObservation(["place"]).read_specs(specs(2, x=Categorical(3, (2,))))
    with pytest.raises(ConfigError, match=r"Write \['x'\]"):
        OneHotObservation("x")
    with pytest.raises(SpecError, match="the same choices in every row"):
        OneHotObservation().read_specs(specs(2, x=MultiCategorical([[2, 3], [3, 2]], (2, 2))))


def test_double_to_float_converts_what_is_double_or_half_and_nothing_else():
    leaves = {"x": Unbounded((2, 1), torch.float64), "y": Unbounded((2, 1)), "k": Unbounded((2, 1), torch.int64)}
    leaves["h"] = Bounded(-1.0, 1.0, (2, 1), torch.float16)
    convert = DoubleToFloat()
    convert.read_specs(specs(2, **leaves))
    assert convert.in_keys == ("x", "h")
    due = Composite({**leaves, "x": Unbounded((2, 1)), "h": Bounded(-1.0, 1.0, (2, 1))}, (2,))
    assert convert.observation_spec(Composite(leaves, (2,))) == due


def test_double_to_float_converts_the_parts_of_a_nested_action_that_are_double():
    parts = {"push": Bounded(-1.0, 1.0, (2, 1), torch.float64), "deep": {"gear": Categorical(3, (2,))}}
    below = Composite(parts, (2,))
    size, rewards = torch.Size([2]), Unbounded((2, 1))
    convert = DoubleToFloat()
    convert.read_specs(EnvSpecs(size, torch.device("cpu"), Composite(shape=(2,)), below, rewards))
    above = convert.action_spec(below)
    assert above == Composite({**parts, "push": Bounded(-1.0, 1.0, (2, 1))}, (2,))
    action = above.rand()
    sent = TensorDict({"action": action}, size)
    convert.inverse(inputs := sent.copy())
    below.assert_contains(inputs["action"])
    above.assert_contains(sent["action"])


def test_double_to_float_refuses_a_named_key_that_is_not_double():
    with pytest.raises(SpecError, match="float64 or float16 in 'x', got Bounded of shape .*float32"):
        DoubleToFloat(["x"]).read_specs(specs(2, x=Bounded(0.0, 9.0, (2,))))


def test_the_action_bounds_of_double_to_float_lie_inside_those_below():
    below = Bounded(torch.tensor([-0.1, 0.1, 0.5], dtype=torch.float64), 0.7, (3,), torch.float64)
    above = DoubleToFloat().action_spec(below)
    assert above.dtype == torch.float32
    assert bool((above.low.double() >= below.low).all() and (above.high.double() <= below.high).all())
    torch.testing.assert_close(above.low.double(), below.low, rtol=1e-6, atol=0)
    assert above.low[2] == 0.5
