"""The last values of an observation, by hand."""

import pytest
import torch

from cases.transform_steps import act, counting, counting_rows, specs
from cases.transform_worlds import camera, walker
from fakes import CountingSimulator
from torchrl.data.specs import Bounded, Categorical, OneHot
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import Compose, FrameStack, ObservationNorm, TimeMax, TransformedEnv
from torchrl.errors import ConfigError, KeyMissing, SpecError


def test_a_stack_by_hand():
    batch = TransformedEnv(counting(length=4), FrameStack(3)).rollout(6, act)
    assert batch["observation"].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 0], [0, 0, 1]]
    assert batch["next", "observation"].tolist() == [
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],  # the true last one, stacked from its own episode
        [0, 0, 1],
        [0, 1, 2],
    ]


def test_zeros_stand_before_the_first_value_if_asked_for():
    raw, env = walker(2), TransformedEnv(walker(2), FrameStack(3, ["position"], start="zeros"))
    for each in (raw, env):
        each.set_seed(0)
    one, other = raw.reset()["position"], env.reset()["position"]
    assert one.count_nonzero() and torch.equal(other, torch.cat([torch.zeros_like(one)] * 2 + [one], -1))
    assert FrameStack(3, start="zeros").begin(torch.tensor([7.0])).tolist() == [[0.0], [0.0], [7.0]]
    assert FrameStack(3).begin(torch.tensor([7.0])).tolist() == [[7.0], [7.0], [7.0]]


def test_another_start_and_bounds_without_zero_are_refused():
    with pytest.raises(ConfigError, match=r"start of \('repeat', 'zeros'\), got 'zero'"):
        FrameStack(2, start="zero")
    above = ObservationNorm(-7.0, 1.0)  # of values from 0 on
    with pytest.raises(SpecError, match="numbers or indices with a dimension -1 and bounds that hold 0"):
        TransformedEnv(counting_rows(2, 3), Compose(above, FrameStack(2, start="zeros")))


def test_stacks_of_rows_that_end_apart():
    batch = TransformedEnv(counting_rows(2, 3), FrameStack(2)).rollout(4, act)
    assert batch["observation"].tolist() == [[[0, 0], [0, 1], [0, 0], [0, 1]], [[0, 0], [0, 1], [1, 2], [0, 0]]]
    assert batch["next", "observation"].tolist() == [
        [[0, 1], [1, 2], [0, 1], [1, 2]],
        [[0, 1], [1, 2], [2, 3], [0, 1]],
    ]


def test_a_stack_of_several_features_joins_frames_not_features():
    env = TransformedEnv(
        counting(length=4, observation_shape=(2,)),
        Compose(ObservationNorm(torch.tensor([0.0, -10.0]), 1.0), FrameStack(2)),
    )
    assert env.rollout(2, act)["next", "observation"].tolist() == [[0, 10, 1, 11], [1, 11, 2, 12]]


def test_a_stack_along_another_dimension():
    env = TransformedEnv(counting(length=4, observation_shape=(1, 2)), FrameStack(2, dim=-2))
    assert env.rollout(2, act)["next", "observation"].tolist() == [[[0, 0], [1, 1]], [[1, 1], [2, 2]]]
    planes = TransformedEnv(camera(3), FrameStack(2, ["pixels"], dim=-3))
    assert planes.observation_spec["pixels"] == Bounded(0, 255, (3, 4, 3, 1), torch.uint8)


def test_each_observation_has_a_memory_of_its_own():
    keys = [("body", "left"), "position"]
    raw, env = walker(2), TransformedEnv(walker(2), FrameStack(2, keys))
    raw.set_seed(0)
    env.set_seed(0)
    expected, batch = raw.rollout(2)["next"], env.rollout(2)["next"]
    for key in keys:
        assert torch.equal(batch[key][:, 1], torch.cat([expected[key][:, 0], expected[key][:, 1]], -1))


def test_a_partial_reset_by_hand():
    env = TransformedEnv(counting_rows(9, 9), FrameStack(3))
    root = env.reset()
    for _ in range(4):
        _, root = env.step_and_reset(act(root))
    assert env.reset(torch.tensor([True, False]))["observation"].tolist() == [[0, 0, 0], [2, 3, 4]]


def test_bounds_of_a_stack():
    leaf = Bounded(torch.tensor([0.0, -1.0]), torch.tensor([5.0, 1.0]), (3, 2))
    due = Bounded(torch.tensor([0.0, -1.0, 0.0, -1.0]), torch.tensor([5.0, 1.0, 5.0, 1.0]), (3, 4))
    assert FrameStack(2).transform_spec(leaf) == due
    leaf = Bounded(torch.tensor([[0.0], [-1.0]]), 7.0, (3, 2, 1))
    due = Bounded(torch.tensor([[0.0], [-1.0], [0.0], [-1.0]]), 7.0, (3, 4, 1))
    assert FrameStack(2, dim=-2).transform_spec(leaf) == due


def test_a_maximum_by_hand():
    falls = ObservationNorm(3.0, 1.0), TimeMax(2)  # the index less 3: -3, -2, -1, 0
    assert TransformedEnv(counting(length=4), Compose(*falls)).rollout(5, act)["next", "observation"].squeeze(
        -1
    ).tolist() == [
        -2,
        -1,
        0,
        1,
        -2,  # of its own episode: -3 and -2
    ]


class Descending(CountingSimulator):
    """Observation: 10 less the index of the step."""

    def _observation(self):
        return 10 - super()._observation()


def test_a_maximum_forgets_after_as_many_frames():
    env = TransformedEnv(SerialEnv(lambda: Descending(length=4)), TimeMax(3))
    batch = env.rollout(5, act)
    assert batch["observation"].squeeze(-1).tolist() == [10, 10, 10, 9, 10]
    assert batch["next", "observation"].squeeze(-1).tolist() == [10, 10, 9, 8, 10]
    assert env.observation_spec == env.env.observation_spec


def test_what_was_handed_out_does_not_change_later():
    for transform in (FrameStack(2), FrameStack(1), TimeMax(2), TimeMax(1)):
        env = TransformedEnv(counting_rows(2, 3), transform)
        root = env.reset()
        for _ in range(6):
            transition, after = env.step_and_reset(act(root))
            copy = transition["observation"].clone(), transition["next", "observation"].clone()
            _, root = env.step_and_reset(act(after))
            assert torch.equal(transition["observation"], copy[0])
            assert torch.equal(transition["next", "observation"], copy[1])


@pytest.mark.parametrize("make", [FrameStack, TimeMax])
def test_refusals(make):
    with pytest.raises(ConfigError, match=f"{make.__name__}: expected num_frames of at least 1, got 0"):
        make(0)
    with pytest.raises(KeyMissing, match="Did you mean 'position'"):
        TransformedEnv(walker(2), make(2, ["positon"]))
    one_hot = specs(2, observation=OneHot(3, (2, 3)))
    with pytest.raises(SpecError, match=f"{make.__name__}: expected numbers or indices.* in 'observation', got OneHot"):
        make(2).read_specs(one_hot)


@pytest.mark.parametrize("make", [FrameStack, TimeMax])
def test_the_mask_of_legal_actions_is_refused(make):
    named = specs(2, action=Categorical(3, (2,)), mask_key="mask", mask=Categorical(2, (2, 3), torch.bool))
    with pytest.raises(SpecError, match=f"{make.__name__}: expected the mask of legal actions to stay as it is"):
        make(2, ["mask"]).read_specs(named)


def test_a_dimension_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="FrameStack: expected a negative dim, got 0"):
        FrameStack(2, dim=0)
    with pytest.raises(SpecError, match=r"a dimension -1 in 'speed', got Bounded of shape \[\].*Unsqueeze"):
        TransformedEnv(walker(2), FrameStack(2, ["speed"]))
    with pytest.raises(SpecError, match=r"a dimension -2 in 'position', got Bounded of shape \[3\]"):
        TransformedEnv(walker(2), FrameStack(2, ["position"], dim=-2))
