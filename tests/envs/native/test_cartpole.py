"""The batched cart and pole against gymnasium's, step by step, over endings and restarts."""

import gymnasium
import numpy as np
import pytest
import torch

from torchrl.envs import CartPole, check_env
from torchrl.errors import ConfigError

devices = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
)


def act(env, root, *, right):
    """Push right on the rows where ``right`` is true."""
    return root.set("action", right.to(torch.int64).to(env.device))


def test_one_step_by_hand():
    env = CartPole(2)
    state = env.start(torch.Generator()).apply(torch.zeros_like)
    following, reward, terminated = env.dynamics(state, torch.tensor([1, 0]))
    # At rest and upright: push = 10 / 1.1; the pole turns by -push / (0.5 (4/3 - 0.1 / 1.1)) rad/s².
    spin_rate = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    velocity_rate = 10 / 1.1 - 0.05 * spin_rate / 1.1
    expected = torch.tensor([0, 0.02 * velocity_rate, 0, 0.02 * spin_rate])
    torch.testing.assert_close(following["observation"], torch.stack([expected, -expected]))
    assert reward.tolist() == [[1.0], [1.0]] and terminated.tolist() == [[False], [False]]


@devices
def test_random_trajectories_are_those_of_gymnasium(device):
    env, reference = CartPole(6, device=device), gymnasium.make("CartPole-v1").unwrapped
    reference.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    root, num_endings = env.reset(seed=1), 0
    for _ in range(150):
        before = root["observation"].cpu().double().numpy()
        right = torch.rand(6, generator=generator) < torch.linspace(0.3, 0.8, 6)
        transition, root = env.step_and_reset(act(env, root, right=right))
        outcome = transition["next"].cpu()
        for row in range(6):
            reference.state, reference.steps_beyond_terminated = before[row], None
            observation, reward, terminated, truncated, _ = reference.step(int(right[row]))
            np.testing.assert_allclose(outcome["observation"][row].numpy(), observation, atol=1e-5, rtol=0)
            assert outcome["reward"][row].item() == reward == 1.0  # on the last step, too
            assert outcome["terminated"][row].item() == terminated
            assert outcome["truncated"][row].item() == truncated
            num_endings += terminated
    assert num_endings > 20


@pytest.mark.parametrize(("entry", "limit"), [(0, 2.4), (2, 12 * 2 * np.pi / 360)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_an_episode_is_over_just_beyond_the_limits(entry, limit, sign):
    env = CartPole(2)
    state = env.start(torch.Generator()).apply(torch.zeros_like)
    state["observation"][:, entry] = sign * torch.tensor([limit - 1e-4, limit + 1e-4])  # speeds are zero
    _, reward, terminated = env.dynamics(state, torch.zeros(2, dtype=torch.int64))
    assert terminated.tolist() == [[False], [True]] and reward.tolist() == [[1.0], [1.0]]


def test_the_time_limit_is_that_of_gymnasium():
    assert CartPole(1).max_episode_steps == gymnasium.make("CartPole-v1").spec.max_episode_steps
    env, reference = CartPole(1, max_episode_steps=4), gymnasium.make("CartPole-v1", max_episode_steps=4)
    root = env.reset(seed=0)
    reference.reset(seed=0)
    for step in range(4):
        transition, root = env.step_and_reset(act(env, root, right=torch.tensor([step % 2 == 0])))
        *_, terminated, truncated, _ = reference.step(1 - step % 2)
        assert transition["next", "truncated"].item() == truncated == (step == 3)
        assert transition["next", "terminated"].item() == terminated == False  # noqa: E712
    assert root["is_init"].item() and root["episode_length"].item() == 0


@devices
def test_starts_are_spread_evenly(device):
    starts = CartPole(20_000, device=device).reset(seed=0)["observation"].cpu()
    assert starts.dtype is torch.float32 and starts.abs().max() <= 0.05 < starts.abs().max() + 1e-4
    deviation = 0.1 / 12**0.5
    assert (starts.mean(0).abs() < 4 * deviation / 20_000**0.5).all()
    torch.testing.assert_close(starts.std(0), torch.full((4,), deviation), rtol=0.02, atol=0)
    assert torch.corrcoef(starts.T).triu(1).abs().max() < 0.03  # four numbers of their own


@devices
@pytest.mark.parametrize("num_envs", [None, 1, 7, (2, 3)])
def test_the_contract_is_kept(num_envs, device):
    env = CartPole(num_envs, max_episode_steps=15, device=device)
    check_env(env, num_steps=40)
    assert env.device.type == device == env.reset()["observation"].device.type


def test_its_specs_are_those_of_gymnasium():
    reference, env = gymnasium.make("CartPole-v1"), CartPole(3)
    spec = env.observation_spec["observation"]
    np.testing.assert_allclose(spec.high[0].numpy(), reference.observation_space.high, rtol=1e-6)
    np.testing.assert_allclose(spec.low[0].numpy(), reference.observation_space.low, rtol=1e-6)
    assert env.action_spec.n == reference.action_space.n and env.batch_size == (3,)


def test_rows_are_worlds_of_their_own():
    env = CartPole(3)
    root = act(env, env.reset(seed=0), right=torch.ones(3, dtype=torch.bool))
    assert env.step(root)["next", "observation"].unique(dim=0).shape[0] == 3


@pytest.mark.parametrize("num_envs", [0, -1, 2.0, True, (2, 0), "3"])
def test_batch_sizes_that_are_none_are_refused(num_envs):
    with pytest.raises(ConfigError, match="num_envs: expected positive integers, or None"):
        CartPole(num_envs)
