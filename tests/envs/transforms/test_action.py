"""Actions on their way down, by hand."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from cases.devices import DEVICES
from cases.transform_steps import counting, echo, with_specs
from fakes import CountingSimulator
from torchrl.data.specs import Bounded, Categorical, MultiCategorical, MultiOneHot, OneHot, Unbounded
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import ActionClip, ActionDiscretizer, ActionScaling, Compose, OneHotAction, TransformedEnv
from torchrl.errors import ConfigError, SpecError

RANGE = {"low": -2.0, "high": 6.0}


@pytest.mark.parametrize(("action", "due"), [(-1.0, -2.0), (-0.5, 0.0), (0.0, 2.0), (1.0, 6.0), (1.5, 8.0)])
def test_scaling_by_hand(action, due):
    assert received(TransformedEnv(echo(**RANGE), ActionScaling()), [action]).item() == due


def test_scaling_never_leaves_the_bounds_by_rounding():
    low, high = torch.rand(1000), torch.rand(1000) + 1
    scaling = with_specs(ActionScaling(), Bounded(low, high))
    for action in (-1.0, 1.0, 1 - 2**-24, 2**-24 - 1, 0.1):
        scaled = scaling(torch.full((1000,), action))
        assert bool((scaled >= low).all() and (scaled <= high).all())
    assert torch.equal(scaling(torch.ones(1000)), high) and torch.equal(scaling(-torch.ones(1000)), low)


@pytest.mark.parametrize(("action", "due"), [(-7.0, -2.0), (-2.0, -2.0), (0.3, 0.3), (6.5, 6.0)])
def test_clipping_by_hand(action, due):
    assert received(TransformedEnv(echo(**RANGE), ActionClip()), [action]).item() == pytest.approx(due)


def test_a_nan_is_not_clipped_into_a_number():
    env = TransformedEnv(echo(**RANGE), ActionClip())
    transition = env.step(env.reset().set("action", torch.tensor([torch.nan])))
    assert bool(transition["next", "observation"].isnan().all())


@pytest.mark.parametrize("make", [ActionScaling, ActionClip])
def test_an_action_of_another_form_is_refused_and_not_broadcast(make):
    transform = with_specs(make(), Bounded(-torch.ones(3, 2), torch.ones(3, 2)))
    with pytest.raises(SpecError, match=r"action: expected shape \[3, 2\], got shape \[3, 1\]"):
        transform(torch.zeros(3, 1))
    with pytest.raises(SpecError, match="action: expected dtype float32, got dtype float64"):
        transform(torch.zeros(3, 2, dtype=torch.float64))


def test_specs():
    assert TransformedEnv(echo(**RANGE, num_envs=2), ActionScaling()).action_spec == Bounded(-1.0, 1.0, (2, 1))
    assert TransformedEnv(echo(**RANGE, num_envs=2), ActionClip()).action_spec == Unbounded((2, 1))


def test_clipping_behind_scaling_clips_to_one():
    env = TransformedEnv(echo(**RANGE), Compose(ActionScaling(), ActionClip()))
    assert env.action_spec == Unbounded((1,))
    assert [received(env, [action]).item() for action in (-3.0, 0.0, 1.5)] == [-2, 2, 6]


def test_each_dimension_has_its_own_bounds():
    scaling = with_specs(ActionScaling(), Bounded(torch.tensor([0.0, -4.0]), torch.tensor([2.0, 4.0])))
    assert scaling(torch.tensor([0.5, 0.5])).tolist() == [1.5, 2]


def test_actions_without_bounds_are_refused():
    for transform in (ActionScaling(), ActionClip()):
        with pytest.raises(SpecError, match=f"{type(transform).__name__}: expected bounded, continuous actions"):
            TransformedEnv(counting(), transform)
    with pytest.raises(SpecError, match="finite bounds"):
        TransformedEnv(echo(high=float("inf")), ActionScaling())
    assert received(TransformedEnv(echo(high=float("inf")), ActionClip()), [99.0]).item() == 99


class Echo(CountingSimulator):
    """The observation is the last choice."""

    def __init__(self, num_choices=4):
        super().__init__(100, action_space=spaces.Discrete(num_choices))
        self.last = 0

    def step(self, action):
        self.last = int(action)
        return super().step(action)

    def _observation(self):
        return np.array([self.last], np.float32)


def received(env, action):
    """What the simulators were sent; the transition keeps what the policy sent."""
    transition = env.step(env.reset().set("action", torch.tensor(action)))
    assert torch.equal(transition["action"], torch.tensor(action))
    return transition["next", "observation"]


AT = {
    "low": [-1, -0.5, 0, 0.5],
    "centre": [-0.75, -0.25, 0.25, 0.75],
    "high": [-0.5, 0, 0.5, 1],
    "ends": [-1, -1 / 3, 1 / 3, 1],
}


@pytest.mark.parametrize(("at", "due"), AT.items())
def test_intervals_by_hand(at, due):
    env = TransformedEnv(echo(num_envs=4), ActionDiscretizer(4, at=at))
    assert env.action_spec == Categorical(4, (4,))
    torch.testing.assert_close(received(env, [0, 1, 2, 3]), torch.tensor(due).unsqueeze(-1).float())


def test_the_centre_is_the_default_and_one_interval_is_enough_for_it():
    assert ActionDiscretizer(3).at == "centre"
    assert received(TransformedEnv(echo(low=2.0, high=6.0), ActionDiscretizer(1)), 0).tolist() == [4]


def test_one_world_with_one_dimension_takes_a_single_index():
    env = TransformedEnv(echo(low=0.0, high=3.0), ActionDiscretizer(3))
    assert env.action_spec == Categorical(3)
    assert [received(env, choice).tolist() for choice in range(3)] == [[0.5], [1.5], [2.5]]


def test_several_dimensions_take_one_index_each():
    env = TransformedEnv(echo(2, low=0.0, high=4.0, num_envs=2), ActionDiscretizer(2))
    assert env.action_spec == MultiCategorical([2, 2], (2, 2))
    assert received(env, [[0, 1], [1, 1]]).tolist() == [[1, 3], [3, 3]]


def test_each_dimension_has_its_own_number_and_bounds():
    below = Bounded(torch.tensor([0.0, -2.0]), torch.tensor([1.0, 2.0]), (3, 2))
    discretizer = with_specs(ActionDiscretizer([2, 4], at="low"), below, 3)
    assert discretizer.action_spec(below) == MultiCategorical([2, 4], (3, 2))
    action = torch.tensor([[0, 0], [1, 1], [1, 3]])
    assert discretizer(action).tolist() == [[0, -2], [0.5, -1], [0.5, 1]]


def test_an_action_of_several_dimensions_in_a_square():
    below = Bounded(0.0, 2.0, (2, 2))
    discretizer = with_specs(ActionDiscretizer(torch.tensor([[1, 2], [2, 1]])), below)
    assert discretizer.action_spec(below) == MultiCategorical([[1, 2], [2, 1]])
    assert discretizer(torch.tensor([[0, 1], [0, 0]])).tolist() == [[1, 1.5], [0.5, 1]]


def test_a_scalar_action_stays_a_scalar():
    discretizer = with_specs(ActionDiscretizer(2), Bounded(0.0, 2.0, (3,)), 3)
    assert discretizer(torch.tensor([0, 1, 1])).tolist() == [0.5, 1.5, 1.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("at", AT)
def test_no_choice_leaves_the_bounds_by_rounding(at, dtype):
    low = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    below = Bounded(low, low * 3 + 0.1, dtype=dtype)
    for num in (2, 3, 7, 49):
        discretizer = with_specs(ActionDiscretizer(num, at=at), below)
        for choice in range(num):
            below.assert_contains(discretizer(torch.full((1000,), choice)))
    if at == "ends":
        assert torch.equal(discretizer(torch.full((1000,), 48)), below.high)


def test_it_chains_with_what_is_below():
    env = TransformedEnv(echo(low=0.0, high=8.0), Compose(ActionScaling(), ActionDiscretizer(2)))
    assert [received(env, choice).item() for choice in (0, 1)] == [2, 6]


@pytest.mark.parametrize(
    ("action", "match"),
    [
        ([0, 3], "an index from 0 to 2, got 3 at [1]"),
        ([-1, 0], "an index from 0 to 2, got -1 at [0]"),
        ([[0], [1]], "expected shape [2], got shape [2, 1]"),
        ([0.0, 1.0], "expected dtype int64, got dtype float32"),
    ],
)
def test_what_is_no_choice_is_refused(action, match):
    env = TransformedEnv(echo(num_envs=2), ActionDiscretizer(3))
    with pytest.raises(SpecError) as info:
        env.step(env.reset().set("action", torch.tensor(action)))
    assert str(info.value).startswith("action: expected") and match in str(info.value)


def test_a_choice_of_another_dimension_is_refused():
    discretizer = with_specs(ActionDiscretizer([2, 4]), Bounded(0.0, 1.0, (1, 2)), 1)
    discretizer(torch.tensor([[1, 3]]))
    with pytest.raises(SpecError, match=r"an index from 0 to 1, got 2 at \[0, 0\]"):
        discretizer(torch.tensor([[2, 2]]))


@pytest.mark.parametrize(
    ("num", "at", "match"),
    [
        (0, "low", "at least 1"),
        (1, "ends", "at least 2"),
        ([3, 0], "centre", "at least 1"),
        (2.5, "centre", "whole numbers"),
        (3, "middle", "at in .*'centre'.*got 'middle'"),
    ],
)
def test_numbers_and_places_that_make_no_sense_are_refused(num, at, match):
    with pytest.raises(ConfigError, match=f"ActionDiscretizer: expected .*{match}"):
        ActionDiscretizer(num, at=at)


def test_actions_that_cannot_be_cut_are_refused():
    for env, transform in (
        (counting(), ActionDiscretizer(3)),
        (echo(high=float("inf")), ActionDiscretizer(3)),
        (echo(), Compose(ActionClip(), ActionDiscretizer(3))),
    ):
        with pytest.raises(SpecError, match="finite bounds below"):
            TransformedEnv(env, transform)
    with pytest.raises(SpecError, match=r"one number per dimension, got \[2, 3\] intervals for actions of shape \[3\]"):
        TransformedEnv(echo(3), ActionDiscretizer([2, 3]))


def test_a_one_hot_vector_becomes_its_index():
    env = TransformedEnv(SerialEnv(Echo, 3), OneHotAction())
    assert env.action_spec == OneHot(4, (3, 4))
    assert received(env, [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]]).tolist() == [[3], [0], [2]]


def test_one_world_takes_one_vector():
    env = TransformedEnv(SerialEnv(Echo), OneHotAction())
    assert env.action_spec == OneHot(4)
    assert received(env, [0, 1, 0, 0]).tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int8, torch.float64])
def test_the_policy_may_write_another_dtype(dtype):
    env = TransformedEnv(SerialEnv(Echo, 2), OneHotAction(dtype=dtype))
    assert env.action_spec == OneHot(4, (2, 4), dtype)
    action = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1]], dtype=dtype)
    assert env.step(env.reset().set("action", action))["next", "observation"].tolist() == [[1], [3]]


def test_several_choices_lie_side_by_side():
    below = MultiCategorical([3, 2], (2, 2))
    transform = with_specs(OneHotAction(), below, 2)
    assert transform.action_spec(below) == MultiOneHot([3, 2], (2, 5))
    assert transform(torch.tensor([[0, 1, 0, 0, 1], [0, 0, 1, 1, 0]])).tolist() == [[1, 1], [2, 0]]


def test_several_choices_of_a_square_are_in_row_major_order():
    below = MultiCategorical([[2, 3], [1, 2]])
    transform = with_specs(OneHotAction(), below)
    assert transform.action_spec(below) == MultiOneHot([2, 3, 1, 2])
    assert transform(torch.tensor([0, 1, 0, 0, 1, 1, 1, 0])).tolist() == [[1, 2], [0, 0]]


def test_a_vector_of_indices_becomes_a_row_of_vectors():
    below = Categorical(3, (2, 2))
    transform = with_specs(OneHotAction(), below, 2)
    assert transform.action_spec(below) == OneHot(3, (2, 2, 3))
    assert transform(torch.eye(3, dtype=torch.int64)[torch.tensor([[0, 2], [1, 1]])]).tolist() == [[0, 2], [1, 1]]


@pytest.mark.parametrize(
    ("action", "match"),
    [
        ([1, 2], "expected shape [2, 4], got shape [2]. This looks like an index"),
        ([[0, 0, 0, 0], [0, 1, 0, 0]], "a single 1 among 4 choices, got 0 ones in row [0]"),
        ([[0, 0, 0, 1], [0, 1, 1, 0]], "a single 1 among 4 choices, got 2 ones in row [1]"),
        ([[0, 0, 0, 0], [0, 1, 1, 0]], "a single 1 among 4 choices, got 0 ones in row [0]"),
        ([[0, 0, 0, 2], [0, 1, 0, 0]], "0 or 1, got 2 at [0, 3]"),
        ([[0, 0, -1, 1], [0, 1, 0, 0]], "0 or 1, got -1 at [0, 2]"),
        ([[0.0, 0.0, 0.0, 1.0]] * 2, "expected dtype int64, got dtype float32"),
    ],
)
def test_what_is_not_one_hot_is_refused(action, match):
    env = TransformedEnv(SerialEnv(Echo, 2), OneHotAction())
    with pytest.raises(SpecError) as info:
        env.step(env.reset().set("action", torch.tensor(action)))
    assert str(info.value).startswith("action: expected") and match in str(info.value)


def test_probabilities_are_not_one_hot():
    transform = with_specs(OneHotAction(dtype=torch.float32), Categorical(2, (1,)), 1)
    for action in ([[0.4, 0.6]], [[torch.nan, 1.0]], [[0.0, torch.inf]]):
        with pytest.raises(SpecError, match="action: expected"):
            transform(torch.tensor(action))


def test_actions_that_are_no_indices_are_refused():
    with pytest.raises(SpecError, match="OneHotAction: expected actions below that are indices"):
        TransformedEnv(echo(), OneHotAction())
    with pytest.raises(SpecError, match="the same choices in every row"):
        with_specs(OneHotAction(), MultiCategorical([[2, 3], [3, 2]]), 2)


@pytest.mark.parametrize("device", DEVICES)
def test_everything_lives_where_the_env_does(device):
    cut = with_specs(ActionDiscretizer([2, 4], at="low"), Bounded(0.0, 4.0, (1, 2), device=device), 1)
    out = cut(torch.tensor([[1, 3]], device=device))
    assert out.tolist() == [[2, 3]] and out.device.type == cut.transform_spec(None).device.type == device
    below = MultiCategorical([2, 3], (1, 2), device=device)
    one_hot = with_specs(OneHotAction(), below, 1)
    out = one_hot(torch.tensor([[0, 1, 0, 0, 1]], device=device))
    assert out.tolist() == [[1, 2]] and out.device.type == one_hot.action_spec(below).device.type == device
