"""The bare loop over a world of gymnax: its own step, compiled for many rows, and nothing of ours."""

from __future__ import annotations

import gymnax
import jax
import numpy as np
import torch


class BareSteps:
    """Call gymnax's ``step``, which restarts rows by itself, with actions drawn beforehand.

    Args:
        name: of the world.
        num_rows: how many rows.
        num_calls: steps of a run.
    """

    def __init__(self, name: str, num_rows: int, num_calls: int) -> None:
        env, params = gymnax.make(name)
        draw = np.random.default_rng(0).integers
        self.actions = [draw(env.num_actions, size=num_rows, dtype=np.int32) for _ in range(num_calls)]
        self.key = jax.random.PRNGKey(0)
        reset = jax.vmap(env.reset, in_axes=(0, None))
        _, self.state = reset(jax.random.split(self.key, num_rows), params)

        def step(key: jax.Array, state: object, action: jax.Array) -> tuple:
            key, used = jax.random.split(key)
            keys = jax.random.split(used, num_rows)
            result = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, state, action, params)
            return key, *result[:4]

        self.step = jax.jit(step)

    def run(self) -> None:
        """Make all steps, and wait for the last."""
        for action in self.actions:
            self.key, observation, self.state, _, _ = self.step(self.key, self.state, action)
        jax.block_until_ready(observation)

    def torch_actions(self) -> list[torch.Tensor]:
        """Return the actions as an env takes them, int64."""
        return [torch.from_numpy(action).long() for action in self.actions]
