"""The batched pendulum against gymnasium's, step by step, over restarts."""

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from cases.devices import DEVICES
from torchrl.envs import Pendulum

devices = pytest.mark.parametrize("device", DEVICES)


def state(*rows):
    """States with these angles and speeds."""
    angle, speed = torch.tensor(rows, dtype=torch.float32).unbind(-1)
    return TensorDict({"observation": torch.stack([angle.cos(), angle.sin(), speed], -1)}, [len(rows)])


def test_one_step_by_hand():
    following, reward, over = Pendulum(2).dynamics(state((0, 1), (np.pi / 2, 0)), torch.tensor([[1.0], [-5.0]]))
    # dω = (15 sin θ + 3 u) 0.05, then θ moves by 0.05 ω; a torque of -5 counts as -2.
    speeds = [1 + 3 * 0.05, (15 - 6) * 0.05]
    expected = state((0.05 * speeds[0], speeds[0]), (np.pi / 2 + 0.05 * speeds[1], speeds[1]))
    torch.testing.assert_close(following["observation"], expected["observation"])
    torch.testing.assert_close(reward, -torch.tensor([[0.1 + 0.001], [np.pi**2 / 4 + 0.004]], dtype=torch.float32))
    assert not over.any()


@devices
def test_random_trajectories_are_those_of_gymnasium(device):
    env, reference = Pendulum(6, max_episode_steps=40, device=device), gymnasium.make("Pendulum-v1").unwrapped
    reference.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    root, num_endings, top_speed = env.reset(seed=1), 0, 0.0
    for _ in range(150):
        cosine, sine, speed = root["observation"].cpu().double().numpy().T
        push = 2 * torch.sign(torch.from_numpy(speed)) * torch.linspace(-1, 1, 6)  # some swing up to full speed
        action = (push + torch.randn(6, generator=generator)).float()[:, None]  # at times beyond the limits
        transition, root = env.step_and_reset(root.set("action", action.to(env.device)))
        outcome = transition["next"].cpu()
        for row in range(6):
            reference.state = np.array([np.arctan2(sine[row], cosine[row]), speed[row]])
            observation, reward, terminated, _, _ = reference.step(action[row].numpy())
            np.testing.assert_allclose(outcome["observation"][row].numpy(), observation, atol=1e-5, rtol=0)
            np.testing.assert_allclose(outcome["reward"][row].item(), reward, atol=1e-5, rtol=1e-6)
            assert outcome["terminated"][row].item() == terminated == False  # noqa: E712
            assert outcome["truncated"][row].item() == (outcome["episode_length"][row].item() == 40)
            top_speed = max(top_speed, abs(observation[2]))
        num_endings += int(outcome["truncated"].sum())
    assert num_endings == 18 and top_speed == 8


@devices
def test_starts_are_spread_evenly(device):
    cosine, sine, speed = Pendulum(20_000, device=device).reset(seed=0)["observation"].cpu().unbind(-1)
    angle = torch.atan2(sine, cosine)
    for value, most in ((angle, np.pi), (speed, 1.0)):
        deviation = most / 3**0.5
        assert most * 0.999 < value.abs().max() <= most * 1.000001
        assert value.mean().abs() < 4 * deviation / 20_000**0.5
        torch.testing.assert_close(value.std().item(), deviation, rtol=0.02, atol=0)
    assert torch.corrcoef(torch.stack([angle, speed]))[0, 1].abs() < 0.03


def test_the_worst_reward_lies_in_its_spec():
    env = Pendulum(2)
    _, reward, _ = env.dynamics(state((np.pi, 8), (-np.pi, -8)), torch.tensor([[2.0], [-2.0]]))
    torch.testing.assert_close(reward, torch.full((2, 1), -(np.pi**2 + 6.4 + 0.004)))
    assert env.reward_spec.contains(reward)


def test_its_torques_are_those_of_gymnasium():
    reference, env = gymnasium.make("Pendulum-v1"), Pendulum(3)
    np.testing.assert_array_equal(env.action_spec.high[0].numpy(), reference.action_space.high)
    np.testing.assert_array_equal(env.action_spec.low[0].numpy(), reference.action_space.low)
