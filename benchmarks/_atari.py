"""What figures of Atari games are held against: gymnasium's processes, ale-py's threads, torch alone."""

from __future__ import annotations

import ale_py
import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from torch import nn

GAME = "ALE/Pong-v5"
NUM_FRAMES, SIZE = 4, 84


class Tiny(nn.Module):
    """A linear layer on every eighth pixel of a stack, ``[B, 4, 84, 84]``: next to nothing beside the games."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.layer = nn.Linear(NUM_FRAMES * len(range(0, SIZE, 8)) ** 2, num_actions)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.layer(pictures[..., ::8, ::8].flatten(-3).float() / 255)


def one_game() -> gymnasium.Env:
    """Return one game with gymnasium's preprocessing and stack; it runs in a process of ``AsyncVectorEnv``."""
    gymnasium.register_envs(ale_py)
    return FrameStackObservation(AtariPreprocessing(gymnasium.make(GAME, frameskip=1)), NUM_FRAMES)


def processes(num_envs: int) -> VectorEnv:
    """Return gymnasium's vector environment with one process for each game."""
    return AsyncVectorEnv([one_game] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


class PlainLoop:
    """Collect ``num_steps`` steps with a tiny policy into tensors that are there already.

    Records observation, next observation, action, log-prob, reward, terminated, truncated.
    """

    def __init__(self, envs: VectorEnv, num_steps: int) -> None:
        self.envs, self.num_steps = envs, num_steps
        shape = (envs.num_envs, num_steps)
        pictures = (*shape, NUM_FRAMES, SIZE, SIZE)
        self.observation, self.following = (torch.zeros(pictures, dtype=torch.uint8) for _ in range(2))
        self.action, self.reward, self.log_prob = torch.zeros(shape, dtype=torch.int64), *torch.zeros(2, *shape)
        self.terminated, self.truncated = torch.zeros(2, *shape, dtype=torch.bool)
        self.policy = Tiny(int(envs.single_action_space.n))
        self.seen, _ = envs.reset(seed=0)

    @torch.no_grad()
    def collect(self) -> None:
        """Collect one batch."""
        for step in range(self.num_steps):
            seen = torch.from_numpy(self.seen)
            distribution = torch.distributions.Categorical(logits=self.policy(seen))
            action = distribution.sample()
            self.observation[:, step] = seen
            self.action[:, step], self.log_prob[:, step] = action, distribution.log_prob(action)
            self.seen, reward, terminated, truncated, info = self.envs.step(action.numpy())
            following = torch.from_numpy(self.seen)
            self.following[:, step] = following
            for row in np.flatnonzero(terminated | truncated):
                self.following[row, step] = torch.from_numpy(np.asarray(info["final_obs"][row]))
            self.reward[:, step] = torch.from_numpy(reward)
            self.terminated[:, step] = torch.from_numpy(terminated)
            self.truncated[:, step] = torch.from_numpy(truncated)


class BareLoop:
    """Step ale-py's vector environment with actions drawn before, and do nothing else."""

    def __init__(self, envs: VectorEnv, num_steps: int) -> None:
        self.envs = envs
        envs.reset(seed=0)
        self.actions = np.random.default_rng(0).integers(envs.single_action_space.n, size=(num_steps, envs.num_envs))

    def collect(self) -> None:
        """Step ``num_steps`` times."""
        for actions in self.actions:
            self.envs.step(actions)
