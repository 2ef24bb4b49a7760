"""What a world in jax is to this library: two pure functions of one row. It steps nothing and imports no jax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces


@dataclass(frozen=True, eq=False)  # an object is one world: what was compiled for it is found again by its identity
class JaxWorld:
    """Describe one world in jax by two pure functions of one row; :class:`JaxEnv` makes a batch of it.

    The state is any pytree, which only these two functions look into. They must be traceable by ``jax.jit`` and
    ``jax.vmap``, and must not restart a world by themselves: the observation of a step is the true successor, also at
    an ending.

    >>> import jax.numpy as jnp  # doctest: +SKIP
    >>> def reset(key):  # doctest: +SKIP
    ...     return jnp.zeros(()), jnp.zeros(1)
    >>> def step(key, count, action):  # doctest: +SKIP
    ...     return count + 1, jnp.full(1, count + 1), 1.0 * action, count >= 4, False
    >>> env = JaxEnv(JaxWorld(reset, step, spaces.Discrete(2), max_episode_steps=3), num_envs=64)  # doctest: +SKIP

    Attributes:
        reset: ``reset(key) -> (state, observation)``. An observation is one array, which gets the key ``observation``,
            or a dict of arrays or dicts, whose keys are kept.
        step: ``step(key, state, action) -> (state, observation, reward, terminated, truncated)``, the last three
            scalars. The state has the structure, shapes and dtypes that ``reset`` gave it.
        action_space: a gymnasium ``Box``, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary`` of one row; ``step`` gets
            a float32 or an int32, choices counted from where the space starts.
        action_mask_key: the observation that says which choices are legal, bool ``[n]``; None where all are.
        max_episode_steps: steps after which :class:`JaxEnv` truncates an episode, besides what ``step`` reports; None
            never does.
        task: a name for the task.
    """

    reset: Callable[[Any], tuple[Any, Any]]
    step: Callable[[Any, Any, Any], tuple[Any, Any, Any, Any, Any]]
    action_space: spaces.Space
    action_mask_key: str | None = None
    max_episode_steps: int | None = None
    task: str = ""
