"""Simulator wrappers that change how steps are taken: frame skip, time limit, no-op starts, random truncation."""

from __future__ import annotations

import copy
import math
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Tuple

from torchrl.counts import is_count
from torchrl.envs.simulators.base import Observation, SimulatorWrapper, State
from torchrl.envs.simulators.capture import capture_attributes, restore_attributes
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.seeding import named_seeds

MAX_TRIALS = 10
POOLS = {"last": None, "max": np.maximum.reduce, "mean": lambda values: np.mean(values, axis=0, dtype=np.float64)}


class FrameSkip(SimulatorWrapper):
    """Repeat every action for ``num_frames`` simulator steps, fewer where the episode ends, and sum their rewards.

    What is observed is the last of them, or the maximum or mean of the last ``num_pooled``, number by number: Mnih et
    al., "Human-level control through deep reinforcement learning" (2015), methods, take the maximum of two, since games
    draw some objects in every second frame only.

    >>> from torchrl.envs.simulators import GymSimulator
    >>> fast = FrameSkip(GymSimulator("CartPole-v1"), 4)
    >>> _ = fast.reset(seed=0)
    >>> fast.step(0)[1], fast.step_limit()
    (4.0, 125)

    Args:
        simulator: what to wrap.
        num_frames: simulator steps per step.
        pool: ``"last"``, ``"max"`` or ``"mean"``, which is rounded where observations are whole numbers.
        num_pooled: how many observations a maximum or mean is of; fewer where the episode ends before.

    Raises:
        ConfigError: ``num_frames`` or ``num_pooled`` is below 1, ``pool`` another word, or observations to be pooled
            are no numbers (``Box``).
    """

    def __init__(
        self,
        simulator: gymnasium.Env,
        num_frames: int,
        *,
        pool: Literal["last", "max", "mean"] = "last",
        num_pooled: int = 2,
    ) -> None:
        super().__init__(simulator)
        self.num_frames = _at_least_one("FrameSkip", "num_frames", num_frames)
        self.num_pooled = _at_least_one("FrameSkip", "num_pooled", num_pooled)
        if pool not in POOLS:
            raise ConfigError(explain("FrameSkip", expected=f"pool to be one of {', '.join(POOLS)}", got=repr(pool)))
        self.pool = pool
        if pool != "last":
            _require_numbers(self.observation_space)

    def step(self, action: np.ndarray | int) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by up to ``num_frames`` simulator steps; ``info`` is that of the last."""
        total, seen = 0.0, deque(maxlen=self.num_pooled)
        for _ in range(self.num_frames):
            observation, reward, terminated, truncated, info = self.simulator.step(action)
            total += reward
            if self.pool != "last":
                seen.append(copy.deepcopy(observation))  # the simulator may write into it again
            if terminated or truncated:
                break
        if len(seen) > 1:
            observation = _pooled(self.observation_space, seen, POOLS[self.pool])
        return observation, total, terminated, truncated, info

    def step_limit(self) -> float:
        """Return the wrapped simulator's step limit, in steps of this wrapper; see :meth:`Simulator.step_limit`."""
        limit = super().step_limit()
        return limit if math.isinf(limit) else math.ceil(limit / self.num_frames)


class TimeLimit(SimulatorWrapper):
    """Truncate an episode after a number of steps of this wrapper.

    >>> from torchrl.envs.simulators import Matching
    >>> short = TimeLimit(Matching(), 1)
    >>> shown, _ = short.reset()
    >>> short.step(short.action_space.sample())[3]  # truncated
    True

    Args:
        simulator: what to wrap.
        max_steps: length of the longest episode, in steps of this wrapper: agent steps if it is the outermost.

    Raises:
        ConfigError: ``max_steps`` is not positive, or above the step limit of the wrapped simulator.

    If the wrapped simulator truncates earlier although its ``step_limit()`` is higher, the wrapper warns once.
    """

    def __init__(self, simulator: gymnasium.Env, max_steps: int) -> None:
        super().__init__(simulator)
        self.max_steps = _at_least_one("TimeLimit", "max_steps", max_steps)
        self._num_steps = 0
        self._may_warn = not _is_cut_at_random(simulator)
        limit = super().step_limit()
        if max_steps > limit:
            hint = "Raise the simulator's own limit where it is built, or ask for fewer steps."
            expected = f"max_steps of at most {limit}, after which the simulator below truncates by itself"
            raise ConfigError(explain("TimeLimit", expected=expected, got=max_steps, hint=hint))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode and count from zero."""
        self._num_steps = 0
        return self.simulator.reset(seed=seed, options=options)

    def step(self, action: np.ndarray | int) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step; truncate the episode at step ``max_steps``."""
        observation, reward, terminated, truncated, info = self.simulator.step(action)
        self._num_steps += 1
        if truncated and self._may_warn and self._num_steps < self.max_steps:
            self._warn()
        return observation, reward, terminated, truncated or self._num_steps >= self.max_steps, info

    def step_limit(self) -> float:
        """Return ``max_steps``; see :meth:`Simulator.step_limit`."""
        return self.max_steps

    def _warn(self) -> None:
        self._may_warn = False
        warnings.warn(
            f"TimeLimit: the simulator below truncated an episode after {self._num_steps} steps, not the "
            f"{self.max_steps} that were asked for: by a limit of its own, or for another reason.",
            stacklevel=4,
        )

    def _own_state(self) -> State:
        return {"num_steps": self._num_steps}

    def _set_own_state(self, state: State) -> None:
        self._num_steps = state["num_steps"]


class NoopReset(SimulatorWrapper):
    """Begin every episode with a random number of steps that do nothing, so that starts differ.

    Mnih et al., "Human-level control through deep reinforcement learning" (2015), extended data table 1.

    >>> from torchrl.envs.simulators import Matching
    >>> late = NoopReset(Matching(num_steps=16), max_noops=5, noop_action=np.zeros(3, np.int64))
    >>> late.step_limit()  # at the least
    11

    Args:
        simulator: what to wrap.
        max_noops: the number of steps is uniform in 1 to ``max_noops``.
        noop_action: the action that does nothing; a number stands for every entry of a ``Box``; ``"random"`` takes
            random actions instead, each drawn anew, for simulators where nothing does nothing.

    Raises:
        ConfigError: ``max_noops`` is below 1, or ``noop_action`` is no action of the simulator.
    """

    def __init__(self, simulator: gymnasium.Env, max_noops: int, noop_action: np.ndarray | int | str = 0) -> None:
        super().__init__(simulator)
        self.max_noops = _at_least_one("NoopReset", "max_noops", max_noops)
        space = self.action_space
        self.is_random = isinstance(noop_action, str) and noop_action == "random"
        if self.is_random:
            noop_action = space.sample()  # of the right kind; never taken
        elif isinstance(space, Box):
            noop_action = np.broadcast_to(np.asarray(noop_action, space.dtype), space.shape)
        if not space.contains(noop_action):
            raise ConfigError(explain("NoopReset", expected=f"a noop_action in {space}", got=repr(noop_action)))
        self.noop_action = noop_action
        self._random = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode and take 1 to ``max_noops`` no-op steps; start again if the episode ends in them.

        Raises:
            EnvError: ten episodes in a row ended during the no-op steps.
        """
        if seed is not None:
            self._random = np.random.default_rng(named_seeds(seed, "noops")["noops"])
        for _ in range(MAX_TRIALS):
            started = self._try_start(seed, options)
            if started is not None:
                return started
            seed = None  # once is enough: the same seed would end the same way
        hint = f"Lower max_noops, which is {self.max_noops}."
        expected = f"an episode that outlives its no-ops within {MAX_TRIALS} trials"
        raise EnvError(explain("NoopReset", expected=expected, got="none", hint=hint))

    def step_limit(self) -> float:
        """Return the wrapped simulator's step limit less ``max_noops``; see :meth:`Simulator.step_limit`."""
        return super().step_limit() - self.max_noops

    def _try_start(self, seed: int | None, options: dict | None) -> tuple[Observation, dict] | None:
        observation, info = self.simulator.reset(seed=seed, options=options)
        num_noops = self._random.integers(1, self.max_noops, endpoint=True)
        space = copy.deepcopy(self.action_space) if self.is_random else None
        if space is not None:
            space.seed(int(self._random.integers(2**31)))
        for _ in range(num_noops):
            action = self.noop_action if space is None else space.sample()
            observation, _, terminated, truncated, info = self.simulator.step(action)
            if terminated or truncated:
                return None
        return observation, info

    def _own_state(self) -> State:
        return capture_attributes(self, skip=vars(self).keys() - {"_random"})

    def _set_own_state(self, state: State) -> None:
        restore_attributes(self, state)


class RandomTruncation(SimulatorWrapper):
    """Truncate the first episode after a random number of steps, so that rows that start together do not end together.

    Where all episodes have one length, rows would otherwise end at the same time, and every batch would hold the same
    part of the task. The number is uniform in 1 to ``max_steps`` and drawn from the seed of the reset. After a reset
    with a seed the next episode counts as the first again, so a seed repeats a run. Later episodes are not changed.

    >>> from torchrl.envs.simulators import Matching
    >>> apart = RandomTruncation(Matching(num_steps=16), max_steps=16)
    >>> _ = apart.reset(seed=0)
    >>> lengths = [next(n for n in range(1, 17) if apart.step(apart.action_space.sample())[3])]
    >>> lengths[0] <= 16
    True

    Args:
        simulator: what to wrap.
        max_steps: upper limit of the first episode's length, in steps of this wrapper: the usual length of an episode.

    Raises:
        ConfigError: ``max_steps`` is below 1.
    """

    def __init__(self, simulator: gymnasium.Env, max_steps: int) -> None:
        super().__init__(simulator)
        self.max_steps = _at_least_one("RandomTruncation", "max_steps", max_steps)
        self._num_steps = 0
        self._stop_at: int | None = self._draw(None)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; with a seed, draw the step at which it will be truncated."""
        if seed is not None:
            self._stop_at = self._draw(named_seeds(seed, "truncation")["truncation"])
        elif self._num_steps > 0:
            self._stop_at = None
        self._num_steps = 0
        return self.simulator.reset(seed=seed, options=options)

    def step(self, action: np.ndarray | int) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step; truncate the first episode at the step that was drawn."""
        observation, reward, terminated, truncated, info = self.simulator.step(action)
        self._num_steps += 1
        return observation, reward, terminated, truncated or self._num_steps == self._stop_at, info

    def _draw(self, seed: int | None) -> int:
        return int(np.random.default_rng(seed).integers(1, self.max_steps, endpoint=True))

    def _own_state(self) -> State:
        return {"num_steps": self._num_steps, "stop_at": self._stop_at}

    def _set_own_state(self, state: State) -> None:
        self._num_steps, self._stop_at = state["num_steps"], state["stop_at"]


def _is_cut_at_random(simulator: gymnasium.Env) -> bool:
    while isinstance(simulator, SimulatorWrapper):
        if isinstance(simulator, RandomTruncation):
            return True
        simulator = simulator.simulator
    return False


def _at_least_one(who: str, name: str, value: int) -> int:
    if not is_count(value):
        raise ConfigError(explain(who, expected=f"{name} >= 1", got=value))
    return value


def _require_numbers(space: Space) -> None:
    """Refuse observations of which no maximum or mean can be taken."""
    for part in space.values() if isinstance(space, Dict) else space if isinstance(space, Tuple) else ():
        _require_numbers(part)
    if not isinstance(space, (Box, Dict, Tuple)) or (isinstance(space, Box) and space.dtype == bool):
        hint = "Leave them out, or take pool='last'."
        raise ConfigError(explain("FrameSkip", expected="observations in a Box to be pooled", got=space, hint=hint))


def _pooled(space: Space, seen: Sequence[Observation], pool: Callable) -> Observation:
    """Return one observation of several, part by part."""
    if isinstance(space, Dict):
        return {key: _pooled(part, [one[key] for one in seen], pool) for key, part in space.items()}
    if isinstance(space, Tuple):
        return tuple(_pooled(part, [one[at] for one in seen], pool) for at, part in enumerate(space))
    value = pool(np.stack(seen))
    whole = np.issubdtype(space.dtype, np.integer)
    return np.asarray(np.rint(value) if whole else value, space.dtype)
