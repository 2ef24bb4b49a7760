"""Worlds that are a batch already: gymnasium environments gathered in one, and one of whole arrays."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from torchrl.envs.simulators import BatchArrays, BatchSimulator


class Gathered(BatchSimulator):
    """Several gymnasium environments, stepped as one batch that writes in place.

    Args:
        factories: one per row.
        autoreset: see :class:`BatchSimulator`, as the other arguments.
        keeps_last: see there.
        restarts_rows: see there.
    """

    def __init__(self, factories, autoreset="disabled", *, keeps_last=True, restarts_rows=True):
        self.envs = [factory() for factory in factories]
        self.num_envs, self.autoreset = len(factories), autoreset
        self.keeps_last, self.restarts_rows = keeps_last, restarts_rows
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space
        self.num_resets = 0

    def reset(self, rows, *, seeds=None, options=None):
        self.num_resets += 1
        for row in np.flatnonzero(rows):
            observation, _ = self.envs[row].reset(seed=None if seeds is None else seeds[row], options=options)
            write(self.arrays.observations, row, observation)

    def step(self, actions):
        arrays = self.arrays
        for row, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            observation, arrays.rewards[row], terminated, truncated, _ = env.step(action)
            arrays.terminated[row], arrays.truncated[row] = terminated, truncated
            if self.autoreset == "same_step" and (terminated or truncated):
                if self.keeps_last:
                    write(arrays.last_observations, row, observation)
                observation, _ = env.reset()
            write(arrays.observations, row, observation)

    def close(self):
        for env in self.envs:
            env.close()


def write(arrays, row, observation):
    """Write one row's observation into arrays that are nested alike."""
    if isinstance(arrays, dict):
        for key, part in arrays.items():
            write(part, row, observation[key])
    elif isinstance(arrays, tuple):
        for part, value in zip(arrays, observation, strict=True):
            write(part, row, value)
    else:
        arrays[row] = observation


class Walks(BatchSimulator):
    """Random walks, each of a row's own generator; at ±3 a walk is over. The action is drawn against.

    Args:
        num_envs: how many.
        autoreset: ``"disabled"`` or ``"same_step"``.
        length: of an episode that does not end before.
        own: whether it keeps arrays of its own, as a library in C does.
    """

    observation_space = spaces.Dict({"place": spaces.Box(-3, 3, (1,), np.float64), "time": spaces.Discrete(100)})
    action_space = spaces.Discrete(2)

    def __init__(self, num_envs=2, autoreset="disabled", *, length=6, own=False):
        self.num_envs, self.autoreset, self.length, self.own = num_envs, autoreset, length, own
        self.generators = [np.random.default_rng(row) for row in range(num_envs)]

    def bind(self, arrays):
        self.arrays = arrays
        if self.own:
            names = ("place", "time")
            copies = [{name: tree[name].copy() for name in names} if tree else None for tree in both(arrays)]
            flags = arrays.terminated.copy(), arrays.truncated.copy()
            self.arrays = BatchArrays(copies[0], arrays.rewards.astype(np.float64), *flags, copies[1])
        return self.arrays

    def step_limit(self):
        return self.length

    def reset(self, rows, *, seeds=None, options=None):
        for row in np.flatnonzero(rows):
            if seeds is not None and seeds[row] is not None:
                self.generators[row] = np.random.default_rng(seeds[row])
            self.arrays.observations["place"][row] = self.generators[row].uniform(-1, 1)
        self.arrays.observations["time"][rows] = 0

    def step(self, actions):
        seen = self.arrays.observations
        moves = np.array([generator.uniform(-1, 1) for generator in self.generators])
        np.clip(seen["place"][:, 0] + moves + actions, -3, 3, out=seen["place"][:, 0])
        seen["time"] += 1
        np.abs(seen["place"][:, 0], out=self.arrays.rewards, casting="same_kind")
        np.equal(self.arrays.rewards, 3, out=self.arrays.terminated)
        np.equal(seen["time"], self.length, out=self.arrays.truncated)
        ended = self.arrays.terminated | self.arrays.truncated
        if self.autoreset == "same_step" and ended.any():
            for name, last in self.arrays.last_observations.items():
                last[ended] = seen[name][ended]
            self.reset(ended)

    def get_state(self):
        return {"generators": [generator.bit_generator.state for generator in self.generators]}

    def set_state(self, state):
        for generator, own in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = own

    def render(self):
        return [np.zeros((4, 4, 3), np.uint8) for _ in self.generators]


def both(arrays):
    """The observations now, and the last ones."""
    return arrays.observations, arrays.last_observations
