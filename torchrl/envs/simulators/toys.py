"""Toy simulators for examples, tests and first trials: small, fast, with returns that can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium import spaces

from torchrl.envs.simulators.base import Simulator, State
from torchrl.envs.simulators.capture import capture_attributes, restore_attributes
from torchrl.errors import ConfigError, EnvError, explain


class Matching(Simulator):
    """A toy simulator that shows a target for each of several choices at every step, and rewards choosing the targets.

    The observation is the targets' one-hot encodings side by side; the reward is the fraction of choices that match.
    Targets are drawn anew at every step, so an episode of ``num_steps`` returns ``num_steps`` at best, and
    ``num_steps * mean(1 / nvec)`` on average when acting uniformly at random. Episodes are truncated, not terminated,
    after ``num_steps``, since the observation does not tell the time left.

    >>> matching = Matching([2, 2])
    >>> shown, _ = matching.reset(seed=0)
    >>> float(matching.step(shown.reshape(2, 2).argmax(-1))[1])  # both match
    1.0

    Args:
        nvec: number of choices of each entry.
        num_steps: length of every episode.

    Raises:
        ConfigError: ``nvec`` is empty or has a number below 1, or ``num_steps`` is below 1.
    """

    def __init__(self, nvec: Sequence[int] = (3, 4, 2), *, num_steps: int = 16) -> None:
        if len(nvec) == 0 or min(nvec) < 1:
            raise ConfigError(explain("Matching", expected="nvec with one number >= 1 per entry", got=list(nvec)))
        if num_steps < 1:
            raise ConfigError(explain("Matching", expected="num_steps >= 1", got=num_steps))
        self.nvec, self.num_steps = np.array(nvec, np.int64), num_steps
        self.action_space = spaces.MultiDiscrete(self.nvec)
        self.observation_space = spaces.Box(0, 1, (int(self.nvec.sum()),), np.float32)
        self._starts = np.concatenate([[0], self.nvec.cumsum()[:-1]])
        self._random = np.random.default_rng()
        self._targets = np.zeros(len(nvec), np.int64)
        self._step = num_steps  # no episode has begun

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; see :meth:`Simulator.reset`.

        Raises:
            EnvError: there are ``options``.
        """
        if options:
            raise EnvError(explain("Matching.reset", expected="no options", got=repr(options)))
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._step = 0
        return self._show(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Return new targets, and as reward the fraction of the action's entries that match the targets shown before.

        Raises:
            EnvError: the episode has ended or none was started.
        """
        if self._step >= self.num_steps:
            raise EnvError(explain("Matching.step", expected="reset() first", got="a step without an episode"))
        reward = np.count_nonzero(action == self._targets) / len(self.nvec)
        self._step += 1
        return self._show(), reward, False, self._step == self.num_steps, {}

    def step_limit(self) -> float:
        """Return the length of every episode; see :meth:`Simulator.step_limit`."""
        return self.num_steps

    def get_state(self) -> State:
        """Return the targets, the count of steps and the random generator; see :meth:`Simulator.get_state`."""
        going = capture_attributes(self, skip=vars(self).keys() - {"_random", "_targets", "_step"})
        return {"toy": "Matching", "nvec": self.nvec.copy(), "going": going}

    def set_state(self, state: State) -> None:
        """Continue from a state that :meth:`get_state` returned.

        Raises:
            EnvError: the state is of another simulator, or of another ``nvec``.
        """
        if state.get("toy") != "Matching" or list(state["nvec"]) != list(self.nvec):
            got = f"one of {state.get('toy', 'another simulator')} with nvec {state.get('nvec')}"
            raise EnvError(explain("Matching.set_state", expected=f"a state with nvec {list(self.nvec)}", got=got))
        restore_attributes(self, state["going"])

    def _show(self) -> np.ndarray:
        """Draw new targets and return their one-hot encodings."""
        self._targets = self._random.integers(self.nvec)
        shown = np.zeros(self.observation_space.shape, np.float32)
        shown[self._starts + self._targets] = 1
        return shown


TOYS = {"Matching": Matching}
