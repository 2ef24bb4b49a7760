"""The batched cart and pole against gymnasium's, step by step, over endings and restarts."""

import gymnasium
import numpy as np
import pytest
import torch

from cases.devices import DEVICES
from torchrl.envs import CartPole, RowRandom

devices = pytest.mark.parametrize("device", DEVICES)


def act(env, root, *, right):
    """Push right on the rows where ``right`` is true."""
    return root.set("action", right.to(torch.int64).to(env.device))


def test_one_step_by_hand():
    env = CartPole(2)
    state = env.start(RowRandom([2], seed=0)).apply(torch.zeros_like)
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
    state = env.start(RowRandom([2], seed=0)).apply(torch.zeros_like)
    state["observation"][:, entry] = sign * torch.tensor([limit - 1e-4, limit + 1e-4])  # speeds are zero
    _, reward, terminated = env.dynamics(state, torch.zeros(2, dtype=torch.int64))
    assert terminated.tolist() == [[False], [True]] and reward.tolist() == [[1.0], [1.0]]


def test_the_time_limit_is_that_of_gymnasium():
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


def test_its_choices_are_those_of_gymnasium():
    assert CartPole(3).action_spec.n == gymnasium.make("CartPole-v1").action_space.n
