"""Rewards, by hand and against float64 references."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from cases.transform_steps import act, counting, counting_rows, with_specs
from torchrl.data.specs import Bounded, Categorical, Composite, Unbounded
from torchrl.envs.transforms import (
    BinarizeReward,
    Compose,
    RewardClipping,
    RewardNorm,
    RewardScaling,
    SignTransform,
    TransformedEnv,
)
from torchrl.envs.transforms.base import EnvSpecs
from torchrl.errors import ConfigError, KeyMissing, NonFiniteError, SpecError


def reference(rewards, dones, gamma, clip):
    """Normalise [T, N] rewards, from all returns up to each step, computed anew in float64 each time."""
    returns, seen, normalised = np.zeros(rewards.shape[1]), [], []
    for reward, done in zip(rewards, dones, strict=True):
        returns = returns * gamma + reward
        seen.append(returns)
        normalised.append(np.clip(reward / (np.std(seen) or 1.0), -clip, clip))
        returns = np.where(done, 0.0, returns)
    return np.stack(normalised)


def normalised(norm, rewards, dones):
    """Run [T, N] rewards through a norm as an environment would, restarting rows at endings."""
    out = []
    for reward, done in zip(torch.tensor(rewards, dtype=torch.float32), torch.tensor(dones), strict=True):
        next_ = TensorDict({"reward": reward.unsqueeze(-1)}, [reward.shape[0]])
        norm.step(next_, TensorDict())
        out.append(next_["reward"].squeeze(-1))
        if done.any():
            norm.reset(TensorDict(), done)
    return torch.stack(out)


def test_scaling_by_hand():
    batch = TransformedEnv(counting(length=2), RewardScaling(10.0, -1.0)).rollout(5, act)
    assert batch["next", "reward"].squeeze(-1).tolist() == [-1, -1, 9, 9, 19]  # the reward is the episode's index
    assert batch["next", "episode_return"].squeeze(-1).tolist() == [0, 0, 1, 2, 2]


def test_scaled_bounds():
    assert RewardScaling(-2.0, 1.0).reward_spec(Bounded(-1.0, 3.0, (2, 1))) == Bounded(-5.0, 3.0, (2, 1))
    assert RewardScaling(2.0).reward_spec(Unbounded((2, 1))) == Unbounded((2, 1))


@pytest.mark.parametrize(("scale", "loc"), [(0.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_scaling_refuses_numbers_that_lose_the_reward(scale, loc):
    with pytest.raises(ConfigError, match="RewardScaling"):
        RewardScaling(scale, loc)


def test_norm_by_hand():
    norm = with_specs(RewardNorm(0.5), None, 2)
    # returns (1, 3): std 1. Then (0.5 + 1, 1.5 - 1) = (1.5, 0.5): of 1, 3, 1.5, 0.5 the variance is 0.875.
    rewards = normalised(norm, [[1.0, 3.0], [1.0, -1.0]], [[False, False]] * 2)
    torch.testing.assert_close(rewards, torch.tensor([[1.0, 3.0], [1 / 0.875**0.5, -1 / 0.875**0.5]]))
    assert norm.std == pytest.approx(0.875**0.5)


def test_norm_starts_the_return_over_at_an_ending():
    norm = with_specs(RewardNorm(0.5), None, 2)
    normalised(norm, [[1.0, 3.0], [1.0, -1.0]], [[True, False]] * 2)
    assert norm.returns.tolist() == [[0.0], [0.5]]
    norm.reset(TensorDict(), None)
    assert norm.returns.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("num_envs", [1, 5])
def test_norm_equals_a_float64_reference(num_envs):
    random = np.random.default_rng(0)
    rewards = (random.normal(3.0, 2.0, (300, num_envs)) * random.choice([1, 40], (300, num_envs))).astype(np.float32)
    dones = random.random((300, num_envs)) < 0.05
    out = normalised(with_specs(RewardNorm(0.97, clip=1.0), None, num_envs), rewards, dones)
    due = reference(rewards.astype(np.float64), dones, 0.97, 1.0)
    torch.testing.assert_close(out, torch.tensor(due, dtype=torch.float32), rtol=1e-6, atol=0)
    assert (np.abs(due) == 1.0).sum() > 3


def test_norm_keeps_its_precision_far_from_zero():
    rewards = np.float32(1e6) + np.random.default_rng(0).integers(0, 9, (2000, 4)).astype(np.float32)
    norm = with_specs(RewardNorm(0.0), None, 4)
    normalised(norm, rewards, np.zeros((2000, 4), dtype=bool))
    assert norm.std == pytest.approx(np.std(rewards.astype(np.float64)), rel=1e-9)


def test_norm_in_an_env_whose_rows_end_apart_equals_the_reference():
    def make_env():
        return counting_rows(2, 3, 7)

    expected = make_env().rollout(60, act)["next"]
    batch = TransformedEnv(make_env(), RewardNorm(0.9, clip=1.0)).rollout(60, act)["next"]
    rewards, dones = (expected[key].squeeze(-1).T.numpy() for key in ("reward", "done"))
    due = torch.tensor(reference(rewards.astype(np.float64), dones, 0.9, 1.0), dtype=torch.float32)
    torch.testing.assert_close(batch["reward"].squeeze(-1).T, due, rtol=1e-5, atol=0)
    assert torch.equal(batch["episode_return"], expected["episode_return"])


def test_norm_does_not_centre():
    """A constant reward keeps its sign, however far its return has run."""
    out = normalised(with_specs(RewardNorm(0.9), None, 1), np.full((50, 1), -3.0), np.zeros((50, 1), dtype=bool))
    assert bool((out < 0).all())


def test_norm_scales_by_one_until_returns_differ():
    out = normalised(with_specs(RewardNorm(0.5), None, 2), np.full((2, 2), 4.0), np.zeros((2, 2), dtype=bool))
    assert out.tolist() == [[4.0, 4.0], [4.0, 4.0]]  # returns 4, 4, then 6, 6: std 1
    zeros = normalised(with_specs(RewardNorm(0.5), None, 2), np.zeros((3, 2)), np.zeros((3, 2), dtype=bool))
    assert zeros.tolist() == [[0.0, 0.0]] * 3


def test_norm_clips_at_ten_by_default():
    rewards = [[0.0, 0.0]] * 999 + [[1000.0, -1000.0]]
    assert normalised(with_specs(RewardNorm(0.9), None, 2), rewards, np.zeros((1000, 2), dtype=bool))[-1].tolist() == [
        10,
        -10,
    ]


def test_norm_is_frozen_in_eval_mode_and_follows_the_returns_still():
    norm = with_specs(RewardNorm(0.5), None, 2)
    normalised(norm, [[1.0, 3.0]], [[False, False]])
    norm.eval()
    before = norm.moments.clone()
    assert normalised(norm, [[2.0, -1.0]], [[False, False]]).tolist() == [[2.0, -1.0]]  # std 1, see above
    assert torch.equal(norm.moments, before)
    assert norm.returns.tolist() == [[2.5], [0.5]]


def test_norm_promises_its_clip():
    env = TransformedEnv(counting(2, 2), RewardNorm(0.9, clip=3.0))
    assert env.reward_spec == Bounded(-3.0, 3.0, (2, 1))


@pytest.mark.parametrize(("gamma", "clip"), [(1.1, 10.0), (-0.1, 10.0), (0.9, 0.0)])
def test_norm_refuses_numbers_that_make_no_sense(gamma, clip):
    with pytest.raises(ConfigError, match="RewardNorm"):
        RewardNorm(gamma, clip)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_norm_refuses_a_reward_that_would_spoil_its_statistics(bad):
    norm = with_specs(RewardNorm(0.5), None, 2)
    normalised(norm, [[1.0, 3.0]], [[False, False]])
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with pytest.raises(NonFiniteError, match="RewardNorm: expected finite rewards"):
        normalised(norm, [[1.0, bad]], [[False, False]])
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


REWARDS = torch.tensor([[-torch.inf], [-2.5], [-1e-30], [0.0], [0.5], [3.0], [torch.inf], [torch.nan]])
MAPS = {
    "clip": (RewardClipping(-1.0, 2.0), [-1, -1, -1e-30, 0, 0.5, 2, 2]),
    "clip above": (RewardClipping(-torch.inf, 0.25), [-torch.inf, -2.5, -1e-30, 0, 0.25, 0.25, 0.25]),
    "binarize": (BinarizeReward(), [0, 0, 0, 0, 1, 1, 1]),
    "binarize nonzero": (BinarizeReward(nonzero=True), [1, 1, 1, 0, 1, 1, 1]),
    "sign": (SignTransform(), [-1, -1, -1, 0, 1, 1, 1]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("transform", "due"), MAPS.values(), ids=MAPS.keys())
def test_maps_by_hand(transform, due, dtype):
    out = transform.forward(REWARDS.to(dtype))
    *numbers, last = out.squeeze(-1)
    assert out.dtype == dtype and out.shape == REWARDS.shape
    torch.testing.assert_close(torch.stack(numbers), torch.tensor(due, dtype=dtype), rtol=1e-6, atol=0)
    assert bool(last.isnan())  # never repaired into a number


@pytest.mark.parametrize(("transform", "due"), MAPS.values(), ids=MAPS.keys())
def test_maps_take_integers(transform, due):
    out = transform.forward(torch.tensor([[-2], [0], [3]]))
    assert out.tolist() == [[max(-2, due[1])], [0], [due[5]]]
    transform.transform_spec(Unbounded((3, 1), torch.int64)).assert_contains(out)


def test_maps_in_an_env():
    def rewards(transform):
        return TransformedEnv(counting(length=1), transform).rollout(4, act)["next", "reward"].squeeze(-1).tolist()

    assert rewards(RewardClipping(1.0, 2.0)) == [1, 1, 2, 2]  # the reward is the episode's index
    assert rewards(BinarizeReward()) == [0, 1, 1, 1]
    assert rewards(SignTransform()) == [0, 1, 1, 1]
    assert rewards(Compose(RewardScaling(-1.0, 2.0), SignTransform())) == [1, 1, 0, -1]


@pytest.mark.parametrize(
    ("transform", "below", "due"),
    [
        (RewardClipping(-1.0, 2.0), Unbounded((2, 1)), Bounded(-1.0, 2.0, (2, 1))),
        (RewardClipping(-1.0, 2.0), Bounded(0.0, 9.0, (2, 1)), Bounded(0.0, 2.0, (2, 1))),
        (RewardClipping(-1.0, 2.0), Bounded(3.0, 9.0, (2, 1)), Bounded(2.0, 2.0, (2, 1))),
        (BinarizeReward(), Unbounded((2, 1)), Bounded(0.0, 1.0, (2, 1))),
        (BinarizeReward(), Bounded(-3.0, 0.0, (2, 1)), Bounded(0.0, 0.0, (2, 1))),
        (BinarizeReward(nonzero=True), Bounded(-3.0, 0.0, (2, 1)), Bounded(0.0, 1.0, (2, 1))),
        (SignTransform(), Unbounded((2, 1)), Bounded(-1.0, 1.0, (2, 1))),
        (SignTransform(), Bounded(0.0, torch.inf, (2, 1)), Bounded(0.0, 1.0, (2, 1))),
        (SignTransform([]), Unbounded((2, 1)), Unbounded((2, 1))),
    ],
)
def test_bounds_follow_the_maps(transform, below, due):
    assert transform.reward_spec(below) == due


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_clipping_refuses_an_empty_interval(low, high):
    with pytest.raises(ConfigError, match="RewardClipping: expected low < high"):
        RewardClipping(low, high)


def test_the_sign_of_an_observation_by_hand():
    env = TransformedEnv(counting(2, 2), SignTransform(["observation"]))
    batch = env.rollout(2, act)
    assert batch["observation"].squeeze(-1).tolist() == [[0, 1]] * 2
    assert env.observation_spec["observation"] == Bounded(0.0, 1.0, (2, 1))
    assert env.reward_spec == Unbounded((2, 1)) and batch["next", "reward"].sum() == 0


def test_the_sign_refuses_what_is_no_number_and_what_is_not_there():
    leaves = Composite({"choice": Categorical(3, (2,))}, (2,))
    specs = EnvSpecs(torch.Size([2]), torch.device("cpu"), leaves, Unbounded((2,)), Unbounded((2, 1)))
    with pytest.raises(SpecError, match="SignTransform: expected numbers in 'choice'"):
        SignTransform(["choice"]).read_specs(specs)
    with pytest.raises(KeyMissing, match="SignTransform.*'rewards'"):
        SignTransform(["rewards"]).read_specs(specs)
