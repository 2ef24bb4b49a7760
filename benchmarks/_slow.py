"""A world whose step takes 5 ms without computing anything, as one that waits for another machine does."""

from __future__ import annotations

import time

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

STEP_S = 0.005


class SlowCartPole(CartPoleEnv):
    """CartPole that sleeps in every step."""

    def step(self, action):
        time.sleep(STEP_S)
        return super().step(action)


gymnasium.register("SlowCartPole-v0", entry_point="_slow:SlowCartPole", max_episode_steps=500)
