"""The batched two-link pendulum against gymnasium's, step by step, over endings and restarts."""

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from cases.devices import DEVICES
from torchrl.envs import Acrobot


def angles(observation):
    """Return both angles and speeds, float64 ``[*B, 4]``."""
    seen = observation.cpu().double().numpy()
    turned = np.arctan2(seen[..., [1, 3]], seen[..., [0, 2]])
    return np.concatenate([turned, seen[..., 4:]], -1)


def pumped(root):
    """Push the lower link the way that it turns, which adds energy."""
    return 1 + torch.sign(root["observation"][..., 5].cpu()).long()


@pytest.mark.parametrize("device", DEVICES)
def test_trajectories_are_those_of_gymnasium(device):
    env, reference = Acrobot(4, max_episode_steps=120, device=device), gymnasium.make("Acrobot-v1").unwrapped
    reference.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    root, num_up, fastest = env.reset(seed=1), 0, 0.0
    for _ in range(240):
        before, action = angles(root["observation"]), pumped(root)
        action[0] = torch.randint(3, (), generator=generator)
        transition, root = env.step_and_reset(root.set("action", action.to(env.device)))
        outcome = transition["next"].cpu()
        for row in range(4):
            reference.state = before[row]
            observation, reward, terminated, _, _ = reference.step(int(action[row]))
            np.testing.assert_allclose(outcome["observation"][row].numpy(), observation, atol=2e-5, rtol=1e-5)
            assert outcome["reward"][row].item() == reward == terminated - 1.0
            assert outcome["terminated"][row].item() == terminated
            num_up += terminated
            fastest = max(fastest, abs(observation[5]))
    assert num_up >= 4 and fastest > 5


def test_speeds_are_limited():
    seen = torch.tensor([[1.0, 0, 1, 0, 12.5, 28.2], [1.0, 0, 1, 0, -12.5, -28.2]])
    reference = gymnasium.make("Acrobot-v1").unwrapped
    reference.reset(seed=0)
    after, _, _ = Acrobot(2).dynamics(TensorDict({"observation": seen}, [2]), torch.tensor([2, 0]))
    for row, action in enumerate((2, 0)):
        reference.state = angles(seen)[row]
        np.testing.assert_allclose(after["observation"][row].numpy(), reference.step(action)[0], atol=2e-4, rtol=0)
    assert after["observation"][0, 5].abs() <= 9 * np.pi and after["observation"][0, 4].abs() <= 4 * np.pi


def test_starts_hang_almost_at_rest():
    starts = angles(Acrobot(20_000).reset(seed=0)["observation"])
    assert np.abs(starts).max() <= 0.1001 and np.abs(starts.mean(0)).max() < 4 * 0.2 / 12**0.5 / 20_000**0.5
    np.testing.assert_allclose(starts.std(0), 0.2 / 12**0.5, rtol=0.02)
    assert np.abs(np.triu(np.corrcoef(starts.T), 1)).max() < 0.03
