"""Worlds in jax whose every number is known, built once, so that a process compiles each of them once a size."""

from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace

import pytest
from gymnasium import spaces

LENGTH, LIMIT = 3, 4


@cache
def counter():
    """Count steps; pays the action, -1 or 0; ends as terminated from LENGTH steps on if the action is 0, by LIMIT.

    Starts and steps draw numbers from their keys, and the state keeps a typed key.
    """
    pytest.importorskip("jax")
    import jax
    import jax.numpy as jnp

    from torchrl.envs import JaxWorld

    def reset(key):
        state = {"count": 0, "own": jax.random.wrap_key_data(key)}
        return state, {"count": jnp.zeros(1), "inner": {"drawn": jax.random.uniform(key, (2,))}}

    def step(key, state, action):
        count = state["count"] + 1
        observation = {"count": jnp.array([count], float), "inner": {"drawn": jax.random.uniform(key, (2,))}}
        return {**state, "count": count}, observation, action, (count >= LENGTH) & (action == 0), False

    return JaxWorld(reset, step, spaces.Discrete(2, start=-1), max_episode_steps=LIMIT, task="Counter")


@cache
def cart_pole(max_episode_steps):
    """Build gymnasium's CartPole-v1 in jax."""
    pytest.importorskip("jax")
    import jax
    import jax.numpy as jnp

    from torchrl.envs import JaxWorld

    def reset(key):
        start = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return start, start

    def step(key, state, action):
        position, velocity, angle, spin = state
        push = (20.0 * action - 10.0 + 0.05 * spin**2 * jnp.sin(angle)) / 1.1
        turn = 9.8 * jnp.sin(angle) - jnp.cos(angle) * push
        turn = turn / (0.5 * (4.0 / 3.0 - 0.1 * jnp.cos(angle) ** 2 / 1.1))
        pull = push - 0.05 * turn * jnp.cos(angle) / 1.1
        state = jnp.array([position + 0.02 * velocity, velocity + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn])
        fell = (jnp.abs(state[0]) > 2.4) | (jnp.abs(state[2]) > 12 * jnp.pi / 180)
        return state, state, 1.0, fell, False

    return JaxWorld(reset, step, spaces.Discrete(2), max_episode_steps=max_episode_steps, task="CartPole-v1")


@cache
def by_turns(num_choices=3):
    """Build a world with a mask: the choice of the step's number is illegal, and ends the episode at -1."""
    pytest.importorskip("jax")
    import jax.numpy as jnp

    from torchrl.envs import JaxWorld

    def seen(count):
        return {"mask": jnp.arange(num_choices) != count % num_choices, "observation": jnp.full(1, 1.0) * count}

    def step(key, count, action):
        illegal = action == count % num_choices
        return count + 1, seen(count + 1), jnp.where(illegal, -1.0, 1.0), illegal, count >= 5

    space = spaces.Discrete(num_choices)
    return JaxWorld(lambda key: (0, seen(0)), step, space, action_mask_key="mask", task="ByTurns")


@dataclass(frozen=True)
class Params:
    max_steps_in_episode: int = 3
    goal: int = 5

    replace = replace


class Walk:
    """Walks along a line, and calls the limit an ending like the goal, as gymnax 0.0.9 does."""

    def __init__(self, start=0):
        self.start = start

    def reset_env(self, key, params):
        jnp = pytest.importorskip("jax.numpy")
        return jnp.full(1, self.start, float), (jnp.asarray(self.start), jnp.asarray(0))

    def step_env(self, key, state, action, params):
        jnp = pytest.importorskip("jax.numpy")
        place, time = state[0] + action, state[1] + 1
        done = (place >= params.goal) | (time >= params.max_steps_in_episode)
        return jnp.full(1, place, float), (place, time), jnp.asarray(1.0), done, {}

    def action_space(self, params):
        return SimpleNamespace(n=3)


def like_gymnax():
    """Return what stands for the module gymnax, with one world."""
    return SimpleNamespace(registered_envs=["Walk-v0"], make=lambda name, **options: (Walk(**options), Params()))
