"""A batch of CartPoles in numpy that writes in place and restarts rows by itself, as pufferlib's worlds do."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from torchrl.envs.simulators import BatchArrays, BatchSimulator


class CartPoles(BatchSimulator):
    """Gymnasium's CartPole-v1, all rows at once; an episode ends when the pole falls, or after 500 steps.

    Args:
        num_envs: how many rows.
        seed: of the starts.
    """

    autoreset = "same_step"
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, num_envs: int, seed: int = 0) -> None:
        self.num_envs = num_envs
        self.generator = np.random.default_rng(seed)
        self.age = np.zeros(num_envs, np.int64)

    def reset(self, rows: np.ndarray, *, seeds: list | None = None, options: dict | None = None) -> None:
        num = int(np.count_nonzero(rows))
        self.arrays.observations[rows] = self.generator.uniform(-0.05, 0.05, (num, 4))
        self.age[rows] = 0

    def step(self, actions: np.ndarray) -> None:
        seen = self.arrays.observations
        place, speed, angle, spin = seen.T
        sine, cosine = np.sin(angle), np.cos(angle)
        push = (20.0 * actions - 10.0 + 0.05 * spin * spin * sine).astype(np.float32) / np.float32(1.1)
        turn = (9.8 * sine - cosine * push) / (0.5 * (4.0 / 3.0 - 0.1 * cosine * cosine / 1.1))
        pull = push - 0.05 * turn * cosine / np.float32(1.1)
        place += 0.02 * speed
        angle += 0.02 * spin
        speed += 0.02 * pull
        spin += 0.02 * turn
        self.age += 1
        self.arrays.rewards.fill(1.0)
        np.logical_or(np.abs(place) > 2.4, np.abs(angle) > 0.2095, out=self.arrays.terminated)
        np.greater_equal(self.age, 500, out=self.arrays.truncated)
        ended = self.arrays.terminated | self.arrays.truncated
        if ended.any():
            self.arrays.last_observations[ended] = seen[ended]
            self.reset(ended)


class BareLoop:
    """Step a batch of CartPoles at random, and do nothing else.

    Args:
        num_envs: how many rows.
        num_steps: of one call.
    """

    def __init__(self, num_envs: int, num_steps: int) -> None:
        self.world, self.num_steps = CartPoles(num_envs), num_steps
        seen = [np.zeros((num_envs, 4), np.float32) for _ in range(2)]
        flags = [np.zeros(num_envs, bool) for _ in range(2)]
        self.world.bind(BatchArrays(seen[0], np.zeros(num_envs, np.float32), *flags, seen[1]))
        self.world.reset(np.ones(num_envs, bool))
        self.generator = np.random.default_rng(0)

    def collect(self) -> None:
        for _ in range(self.num_steps):
            self.world.step(self.generator.integers(0, 2, self.world.num_envs))
