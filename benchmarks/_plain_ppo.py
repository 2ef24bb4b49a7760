"""PPO on CartPole as one plain PyTorch script: what a careful user writes by hand, and what ours is timed against."""

from __future__ import annotations

import torch
from _plain import PlainCollector, tanh_mlp
from torch import nn


def plain_ppo(total_frames: int, *, num_envs: int = 8, num_steps: int = 128, seed: int = 0) -> None:
    """Train for ``total_frames``: 4 epochs of 4 minibatches, Adam, clip 0.2, GAE(0.99, 0.95), gradient norm 0.5."""
    torch.manual_seed(seed)
    collector = PlainCollector("CartPole-v1", num_envs, num_steps, seed=seed)
    critic = tanh_mlp(4, 1)
    parameters = [*collector.network.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=1e-5)
    frames = num_envs * num_steps
    for _ in range(total_frames // frames):
        collector.collect()
        advantage, target = advantages(collector, critic)
        data = [collector.observation, collector.action, collector.log_prob, advantage, target]
        observation, action, old_log_prob, advantage, target = (tensor.flatten(0, 1) for tensor in data)
        for _ in range(4):
            for rows in torch.randperm(frames).chunk(4):
                distribution = collector.distribution(observation[rows])
                ratio = (distribution.log_prob(action[rows]) - old_log_prob[rows]).exp()
                chosen = advantage[rows]
                chosen = (chosen - chosen.mean()) / (chosen.std() + 1e-8)
                gain = torch.min(ratio * chosen, ratio.clamp(0.8, 1.2) * chosen).mean()
                value_loss = (critic(observation[rows]).squeeze(-1) - target[rows]).square().mean()
                loss = -gain + 0.5 * value_loss - 0.01 * distribution.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()


@torch.no_grad()
def advantages(collector: PlainCollector, critic: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """GAE in a reverse loop, bootstrapping at time limits from the true last observation."""
    value = critic(collector.observation).squeeze(-1)
    next_value = critic(collector.next_observation).squeeze(-1)
    alive = (~collector.terminated).float()
    going = (~(collector.terminated | collector.truncated)).float()
    delta = collector.reward + 0.99 * alive * next_value - value
    advantage = torch.zeros_like(delta)
    running = torch.zeros(collector.num_envs)
    for t in reversed(range(collector.num_steps)):
        running = delta[t] + 0.99 * 0.95 * going[t] * running
        advantage[t] = running
    return advantage, advantage + value
