"""The batched cars in the valley against gymnasium's, step by step, over walls, endings and restarts."""

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from cases.devices import DEVICES
from torchrl.envs import MountainCar, MountainCarContinuous

CHOICES = (MountainCar, "MountainCar-v0", lambda push: (push > -0.3).long() + (push > 0.3))
FORCES = (MountainCarContinuous, "MountainCarContinuous-v0", lambda push: push.unsqueeze(-1))


def play(kind, name, to_action, device):
    """Swing up, at random and too hard, and hold every step against gymnasium's; return what was met."""
    env, reference = kind(4, max_episode_steps=150, device=device), gymnasium.make(name).unwrapped
    reference.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    root, met = env.reset(seed=1), {"goal": 0, "wall": 0}
    for _ in range(300):
        before = root["observation"].cpu().double().numpy()
        noise = torch.randn(4, generator=generator)
        push = torch.sign(root["observation"][:, 1].cpu()) * torch.tensor([1.0, 1.0, 2.0, 0.0]) + 0.3 * noise
        action = to_action(push)
        transition, root = env.step_and_reset(root.set("action", action.to(env.device)))
        outcome = transition["next"].cpu()
        for row in range(4):
            reference.state = before[row]
            chosen = int(action[row]) if action.ndim == 1 else action[row].numpy()
            observation, reward, terminated, _, _ = reference.step(chosen)
            np.testing.assert_allclose(outcome["observation"][row].numpy(), observation, atol=1e-6, rtol=0)
            np.testing.assert_allclose(outcome["reward"][row].item(), reward, atol=1e-6, rtol=1e-6)
            assert outcome["terminated"][row].item() == terminated
            met["goal"] += terminated
            met["wall"] += observation[0] == np.float32(-1.2) and observation[1] == 0
    return met


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "name", "to_action"), [CHOICES, FORCES], ids=["choices", "forces"])
def test_trajectories_are_those_of_gymnasium(kind, name, to_action, device):
    assert play(kind, name, to_action, device)["goal"] >= 3


@pytest.mark.parametrize(("kind", "name", "to_action"), [CHOICES, FORCES], ids=["choices", "forces"])
def test_walls_limits_and_the_goal_are_those_of_gymnasium(kind, name, to_action):
    reference = gymnasium.make(name).unwrapped
    reference.reset(seed=0)
    seen = [[-1.19, -0.07], [-1.2, 0.0], [-1.2, 0.001], [0.59, 0.07], [0.46, -0.02], [0.449, 0.0], [0.499, 0.002]]
    seen += [[-0.5, 0.0695], [0.0, -0.0699]]
    seen, num = torch.tensor(seen), len(seen)
    for push in (-1.5, 0.0, 1.0):
        action = to_action(torch.full((num,), push))
        after, reward, over = kind(num).dynamics(TensorDict({"observation": seen}, [num]), action)
        for row in range(num):
            reference.state = seen[row].double().numpy()
            chosen = int(action[row]) if action.ndim == 1 else action[row].numpy()
            observation, expected, terminated, _, _ = reference.step(chosen)
            np.testing.assert_allclose(after["observation"][row].numpy(), observation, atol=1e-6, rtol=0)
            assert reward[row].item() == pytest.approx(expected, abs=1e-5) and over[row].item() == terminated


def test_a_step_by_hand():
    state = TensorDict({"observation": torch.tensor([[-0.5, 0.01]])}, [1])
    after, reward, over = MountainCar(1).dynamics(state, torch.tensor([2]))
    speed = 0.01 + 0.001 - 0.0025 * 0.0707372  # cos(-1.5)
    torch.testing.assert_close(after["observation"], torch.tensor([[-0.5 + speed, speed]]))
    assert reward.item() == -1 and not over.item()
    after, reward, _ = MountainCarContinuous(1).dynamics(state, torch.tensor([[3.0]]))
    speed = 0.01 + 0.0015 - 0.0025 * 0.0707372  # no more than 1, but paid for in full
    torch.testing.assert_close(after["observation"], torch.tensor([[-0.5 + speed, speed]]))
    assert reward.item() == pytest.approx(-0.9)


@pytest.mark.parametrize("kind", [MountainCar, MountainCarContinuous])
def test_starts_rest_on_the_floor(kind):
    position, speed = kind(20_000).reset(seed=0)["observation"].unbind(-1)
    assert (speed == 0).all() and -0.6 <= position.min() < -0.5999 and -0.4001 < position.max() <= -0.4
    assert abs(position.mean() + 0.5) < 4 * 0.2 / 12**0.5 / 20_000**0.5
