"""The base class of worlds that are a batch already: all rows at once, in numpy or C, written in place. No torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space

from torchrl.envs.simulators.base import FRESH, Action, Observation, State
from torchrl.errors import EnvError, explain
from torchrl.misspelling import refuse_misspelt


@dataclass
class BatchArrays:
    """Hold the arrays in which a :class:`BatchSimulator` leaves the results of every reset and step, n rows each.

    Write into them, ``arrays.rewards[:] = 1`` or ``arrays.rewards += 1``: putting another array in the place of one is
    refused, since nobody would look at it.

    >>> arrays = BatchArrays(np.zeros((2, 3)), np.zeros(2), np.zeros(2, bool), np.zeros(2, bool))
    >>> arrays.rewards += 1
    >>> arrays.rewards = np.ones(2)
    Traceback (most recent call last):
    torchrl.errors.EnvError: arrays.rewards: expected values written into the array, got another array in its place. ...

    Attributes:
        observations: ``[n, ...]`` of the space's shape and dtype, what the next actions are for; nested like the space.
        rewards: ``[n]``, float32.
        terminated: ``[n]``, bool, whether the task is over.
        truncated: ``[n]``, bool, whether time is up.
        last_observations: like ``observations``: what ended rows showed last, where the simulator restarts them itself
            and keeps it; else None.
    """

    observations: Observation
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    last_observations: Observation | None = None

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse another object in the place of an array."""
        if vars(self).get(name, value) is not value:
            expected, got = "values written into the array", "another array in its place"
            hint = f"Write arrays.{name}[:] = ..."
            raise EnvError(explain(f"arrays.{name}", expected=expected, got=got, hint=hint))
        super().__setattr__(name, value)


class BatchSimulator(ABC):
    """Base class of many worlds that are stepped at once, in numpy or C, and write their results in place.

    Any object with the attributes ``num_envs``, the two spaces and ``autoreset`` and the methods :meth:`reset` and
    :meth:`step` can be used as one; what else it lacks it gets from here. ``BatchEnv(simulator)`` presents it as an env
    with the same transitions as every other. A reset or step leaves its results in :attr:`arrays`, and returns nothing.

    Who restarts rows is declared by ``autoreset``:

    - ``"disabled"``: the caller does, by :meth:`reset`, before the next step.
    - ``"same_step"``: the step that ends an episode restarts the row, and leaves the first observation of the next
      episode in ``observations``, and the true last one in ``last_observations``.

    >>> from gymnasium import spaces
    >>> class Clocks(BatchSimulator):
    ...     num_envs, observation_space, action_space = 3, spaces.Box(0, 9, (1,)), spaces.Discrete(2)
    ...     def reset(self, rows, *, seeds=None, options=None):
    ...         self.arrays.observations[rows] = 0
    ...     def step(self, actions):
    ...         self.arrays.observations += 1
    ...         self.arrays.rewards[:] = 1
    ...         self.arrays.truncated[:] = self.arrays.observations[:, 0] == 9
    >>> from torchrl.envs import BatchEnv
    >>> BatchEnv(Clocks()).rollout(12)["next", "observation"][0, 7:].squeeze(-1)
    tensor([8., 9., 1., 2., 3.])

    Attributes:
        num_envs: n, how many rows.
        observation_space: of one row.
        action_space: of one row. Choices of both spaces start at 0.
        autoreset: ``"disabled"`` or ``"same_step"``.
        keeps_last: whether a ``"same_step"`` simulator writes ``last_observations``; else they are lost.
        restarts_rows: whether :meth:`reset` can restart some rows alone; else it always restarts all.
        task: the id of the task; empty where it has none.
        arrays: where results are written, once :meth:`bind` was called.
    """

    num_envs: int
    observation_space: Space
    action_space: Space
    autoreset: str = "disabled"
    keeps_last: bool = True
    restarts_rows: bool = True
    task: str = ""
    arrays: BatchArrays

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a subclass with a misspelt method; see :func:`~torchrl.misspelling.refuse_misspelt`."""
        super().__init_subclass__(**options)
        refuse_misspelt(cls, synonyms={"seed": "reset, which is given the seeds"})

    def bind(self, arrays: BatchArrays) -> BatchArrays:
        """Take the arrays to write to from now on, and return those that will be written to: these, or its own.

        Called once, before the first reset. The given arrays are contiguous and stay where they are, so C code may keep
        their addresses. A simulator that has arrays of its own returns a :class:`BatchArrays` of them instead; they,
        too, must stay the same.
        """
        self.arrays = arrays
        return arrays

    @abstractmethod
    def reset(self, rows: np.ndarray, *, seeds: list[int | None] | None = None, options: dict | None = None) -> None:
        """Begin an episode in some rows, and write their first observations.

        Args:
            rows: bool ``[n]``, true where an episode begins; all true at the first call. Other rows must not change.
            seeds: one for each of the n rows, None where the row's generator stays as it is; None for all rows: no
                seeds. A simulator with one generator for all rows takes ``torchrl.seeding.join_seeds(seeds)``.
            options: further options, specific to the simulator.
        """

    @abstractmethod
    def step(self, actions: Action) -> None:
        """Advance all rows by one step, and write every row of the observations, rewards and flags.

        Args:
            actions: ``[n, ...]``, not to be written to: int64 for choices, float32 for numbers; a dict or tuple of
                arrays where the space is one.
        """

    def render(self) -> list[np.ndarray]:
        """Return a picture of each row, uint8 ``[H, W, 3]``.

        Raises:
            EnvError: this simulator draws no pictures.
        """
        raise EnvError(explain(type(self).__name__, expected="a simulator with render", got="one without it"))

    def close(self) -> None:  # noqa: B027 - most simulators hold nothing
        """Release what this simulator holds; may be called twice."""

    def step_limit(self) -> float:
        """Return after how many steps this simulator truncates every episode; infinity if it does not know."""
        return math.inf

    def require_ability(self, ability: str) -> None:  # noqa: B027 - most simulators can do both
        """Raise an error if :meth:`reset` takes no seeds, or no options; by default it takes both.

        Args:
            ability: ``"seeds"`` or ``"options"``.

        Raises:
            EnvError: it does not take this.
        """

    def get_state(self) -> State:
        """Return the whole state of this simulator: a nested dict of numbers, strings, None and numpy arrays.

        What lies in :attr:`arrays` is saved and restored by the env.

        Raises:
            EnvError: this simulator cannot save its state.
        """
        raise _stateless(self, "a state to save")

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`get_state` of a simulator built alike returned.

        Raises:
            EnvError: this simulator cannot load a state.
        """
        raise _stateless(self, "a state to load")


def _stateless(simulator: object, expected: str) -> EnvError:
    return EnvError(explain(type(simulator).__name__, expected=expected, got="a simulator without one", hint=FRESH))
