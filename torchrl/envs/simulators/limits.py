"""Find a simulator's own limit on the length of episodes, so that a request for longer ones can be refused."""

from __future__ import annotations

import math
from typing import Any

import gymnasium

ALE_FRAMES = "max_num_frames_per_episode"  # where Atari games keep their own limit, in frames of the console


def step_limit_of(simulator: Any) -> float:
    """Return after how many steps a simulator truncates every episode; infinity if it does not know.

    Of a ``gymnasium.Env`` that is used as a simulator, the limit is that of its wrappers.
    """
    told = getattr(simulator, "step_limit", None)
    if callable(told):
        return told()
    return gym_step_limit(simulator) if isinstance(simulator, gymnasium.Env) else math.inf


def gym_step_limit(env: gymnasium.Env) -> float:
    """Return a gymnasium env's step limit: the least of ``TimeLimit`` wrappers, a :class:`Simulator`, an Atari game."""
    limit = math.inf
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            limit = min(limit, env._max_episode_steps)
        env = env.env
    told = getattr(env, "step_limit", None)  # a simulator of ours, below; what wraps a simulator knows its limit
    below = told() if callable(told) else math.inf
    if math.isfinite(below):
        return min(limit, below)
    made_with = {} if env.spec is None else env.spec.kwargs
    if made_with.get(ALE_FRAMES):
        limit = min(limit, made_with[ALE_FRAMES] // frames_per_step(env))
    return limit


def frames_per_step(env: gymnasium.Env) -> int:
    """Return how many frames an Atari game repeats each action by itself, at most; 1 for other simulators."""
    spec = env.unwrapped.spec
    skip = 1 if spec is None else spec.kwargs.get("frameskip", 1)
    return skip if isinstance(skip, int) else skip[-1] - 1
