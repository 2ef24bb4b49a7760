"""Actions on their way down, by hand."""

import pytest
import torch

from cases.transform_steps import counting, echo, with_specs
from torchrl.data.specs import Bounded, Unbounded
from torchrl.envs.transforms import ActionClip, ActionScaling, Compose, TransformedEnv
from torchrl.errors import SpecError

RANGE = {"low": -2.0, "high": 6.0}


def received(env, action):
    """What the simulator was sent."""
    transition = env.step(env.reset().set("action", torch.tensor([action])))
    assert transition["action"].tolist() == [pytest.approx(action)]
    return transition["next", "observation"].item()


@pytest.mark.parametrize(("action", "due"), [(-1.0, -2.0), (-0.5, 0.0), (0.0, 2.0), (1.0, 6.0), (1.5, 8.0)])
def test_scaling_by_hand(action, due):
    assert received(TransformedEnv(echo(**RANGE), ActionScaling()), action) == due


def test_scaling_never_leaves_the_bounds_by_rounding():
    low, high = torch.rand(1000), torch.rand(1000) + 1
    scaling = with_specs(ActionScaling(), Bounded(low, high))
    for action in (-1.0, 1.0, 1 - 2**-24, 2**-24 - 1, 0.1):
        scaled = scaling(torch.full((1000,), action))
        assert bool((scaled >= low).all() and (scaled <= high).all())
    assert torch.equal(scaling(torch.ones(1000)), high) and torch.equal(scaling(-torch.ones(1000)), low)


@pytest.mark.parametrize(("action", "due"), [(-7.0, -2.0), (-2.0, -2.0), (0.3, 0.3), (6.5, 6.0)])
def test_clipping_by_hand(action, due):
    assert received(TransformedEnv(echo(**RANGE), ActionClip()), action) == pytest.approx(due)


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
    assert [received(env, action) for action in (-3.0, 0.0, 1.5)] == [-2, 2, 6]


def test_each_dimension_has_its_own_bounds():
    scaling = with_specs(ActionScaling(), Bounded(torch.tensor([0.0, -4.0]), torch.tensor([2.0, 4.0])))
    assert scaling(torch.tensor([0.5, 0.5])).tolist() == [1.5, 2]


def test_actions_without_bounds_are_refused():
    for transform in (ActionScaling(), ActionClip()):
        with pytest.raises(SpecError, match=f"{type(transform).__name__}: expected bounded, continuous actions"):
            TransformedEnv(counting(), transform)
    with pytest.raises(SpecError, match="finite bounds"):
        TransformedEnv(echo(high=float("inf")), ActionScaling())
    assert received(TransformedEnv(echo(high=float("inf")), ActionClip()), 99.0) == 99
