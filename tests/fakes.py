"""Simulators whose every value can be written down by hand, and simulators with one planted mistake.

Imports no torch, so worker processes may use them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from torchrl.envs.simulators import GymSimulator, Simulator
from torchrl.errors import DeadlineError, EnvError

LIMIT_S = 300.0  # a test's wait ends long before, however slow or busy the machine
FOREVER_S = 3600.0  # longer than any test

ENDINGS = {"terminated": (True, False), "truncated": (False, True), "both": (True, True)}


class CountingSimulator(Simulator):
    """Observation: index of the step in the episode. Reward: index of the episode. Nothing is random.

    Args:
        length: steps of every episode, or a cycle of lengths: episode k has ``length[k % len(length)]``.
        ending: ``"terminated"``, ``"truncated"`` or ``"both"``, or a cycle of them.
        observation_shape: every entry is the index.
        action_space: ``Discrete(2)`` if None; actions change nothing.

    Episodes are counted from 0; a reset with a seed starts the count over.
    """

    def __init__(
        self,
        length: int | Sequence[int] = 5,
        *,
        ending: str | Sequence[str] = "terminated",
        observation_shape: Sequence[int] = (1,),
        action_space: spaces.Space | None = None,
    ) -> None:
        self.lengths = [length] if isinstance(length, int) else list(length)
        self.endings = [ending] if isinstance(ending, str) else list(ending)
        self.observation_space = spaces.Box(0, np.inf, tuple(observation_shape), np.float32)
        self.action_space = action_space or spaces.Discrete(2)
        self.episode, self.num_steps, self.is_running, self.is_closed = -1, 0, False, False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.episode = 0 if seed is not None else self.episode + 1
        self.num_steps, self.is_running = 0, True
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        if not self.is_running:
            raise EnvError("CountingSimulator: a step without an episode")
        self.num_steps += 1
        terminated = truncated = False
        if self.num_steps == self.lengths[self.episode % len(self.lengths)]:
            terminated, truncated = ENDINGS[self.endings[self.episode % len(self.endings)]]
            self.is_running = False
        return self._observation(), float(self.episode), terminated, truncated, {}

    def close(self) -> None:
        self.is_closed = True

    def get_state(self) -> dict:
        return {"episode": self.episode, "num_steps": self.num_steps, "is_running": self.is_running}

    def set_state(self, state: dict) -> None:
        self.episode, self.num_steps, self.is_running = state["episode"], state["num_steps"], state["is_running"]

    def _observation(self) -> Any:
        return np.full(self.observation_space.shape, self.num_steps, np.float32)


class Folders(CountingSimulator):
    """A counting simulator that observes the index under ``("agent", "x")``, in episodes of two steps.

    Args:
        missing: after the first step the key is another one.
    """

    def __init__(self, missing: bool = False) -> None:
        super().__init__(2)
        self.observation_space = spaces.Dict({"agent": spaces.Dict({"x": self.observation_space})})
        self.missing = missing

    def _observation(self) -> Any:
        return {"agent": {"y" if self.missing and self.num_steps else "x": np.full((1,), self.num_steps, np.float32)}}


class SlowSimulator(CountingSimulator):
    """A counting simulator whose steps take time; its episodes are long.

    Args:
        seconds: of every step.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(1000)
        self.seconds = seconds

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        time.sleep(self.seconds)
        return super().step(action)


class Gated(gymnasium.Wrapper):
    """An environment whose steps wait while a file exists, so that a test decides what happens before a step ends.

    Args:
        env: any.
        gate: path of the file.
    """

    def __init__(self, env: gymnasium.Env, gate: Path) -> None:
        super().__init__(env)
        self.gate = gate

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        while self.gate.exists():
            time.sleep(0.005)
        return self.env.step(action)


class DeadlySimulator(CountingSimulator):
    """A counting simulator whose process ends, with status 9, in the third step of an episode."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        if self.num_steps == 2:
            os._exit(9)
        return super().step(action)


class CountingEnv(CountingSimulator, gymnasium.Env):
    """A counting simulator as a gymnasium environment, with several forms of observation.

    Args:
        length: see :class:`CountingSimulator`.
        ending: see there.
        form: ``"box"``; ``"dict"``, where the index lies under ``("deep", "index")`` beside the episode's number under
            ``"episode"``; or ``"tuple"`` of the two.
        start: the episode's number is a ``Discrete`` that starts here.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        length: int | Sequence[int] = 5,
        *,
        ending: str | Sequence[str] = "terminated",
        form: str = "box",
        start: int = 0,
    ) -> None:
        super().__init__(length, ending=ending)
        index, episode = spaces.Box(0, np.inf, (1,), np.float64), spaces.Discrete(100, start=start)
        self.form, self.start = form, start
        self.observation_space = {
            "box": index,
            "dict": spaces.Dict({"deep": spaces.Dict({"index": index}), "episode": episode}),
            "tuple": spaces.Tuple([index, episode]),
        }[form]
        self.action_space = spaces.Discrete(2)

    def render(self) -> np.ndarray:
        return np.full((2, 3, 3), self.num_steps, np.uint8)

    def _observation(self) -> Any:
        index, episode = np.full(1, self.num_steps, np.float64), self.episode + self.start
        if self.form == "dict":
            return {"deep": {"index": index}, "episode": episode}
        return (index, episode) if self.form == "tuple" else index


class FallingSimulator(Simulator):
    """A stone whose gravity is told at each reset: the speed changes by -gravity, then the height by the speed.

    Observation: height and speed. Reward: height. Options of a reset: ``gravity``, and ``push``, whose sum is the speed
    at the start; 0 each if not told.

    Args:
        length: episodes are truncated after this many steps.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 3) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        options = options or {}
        self.gravity, self.speed = options.get("gravity", 0.0), float(np.sum(options.get("push", 0.0)))
        self.height, self.num_steps = 0.0, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.speed -= self.gravity
        self.height += self.speed
        self.num_steps += 1
        return self._observation(), self.height, False, self.num_steps == self.length, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.height, self.speed], np.float32)


class ActionEchoSimulator(Simulator):
    """Observation: the last action, zeros at the start. Reward: its sum.

    Args:
        num_actions: length of the action.
        low: smallest action.
        high: largest action.
        length: episodes are truncated after this many steps; never if None.
    """

    def __init__(
        self, num_actions: int = 2, *, low: float = -1.0, high: float = 1.0, length: int | None = None
    ) -> None:
        self.action_space = spaces.Box(low, high, (num_actions,), np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, (num_actions,), np.float32)
        self.length, self.num_steps = length, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.num_steps = 0
        return np.zeros(self.action_space.shape, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.num_steps += 1
        return np.array(action), float(np.sum(action)), False, self.num_steps == self.length, {}


class EchoEnv(gymnasium.Env):
    """Observes its last action, which has parts of every kind; refuses one that is not in its action space."""

    action_space = spaces.Dict(
        {
            "turn": spaces.Discrete(3),
            "pedals": spaces.Tuple([spaces.Box(0, 1, (2,), np.float64), spaces.MultiBinary(2)]),
            "one": spaces.MultiDiscrete([2, 5]),
        }
    )
    observation_space = action_space

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        return action, 0.0, False, False, {}


class Together(gymnasium.vector.VectorEnv):
    """Rows that count, row ``i`` up to ``i + 2``; it restarts all of them or none.

    Args:
        mode: what its metadata say.
        final: whether the last observations come in ``info``.
        shape: of one observation, whatever the space says.
    """

    single_observation_space = spaces.Box(0, 9, (1,), np.float32)
    single_action_space = spaces.Discrete(2)

    def __init__(self, mode, *, final=True, shape=(1,)):
        self.num_envs, self.final, self.shape = 2, final, shape
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.counts, self.seeds = np.zeros(2), []

    def reset(self, *, seed=None, options=None):
        self.counts = np.zeros(2)
        self.seeds.append(seed)
        return self._observations(), {}

    def step(self, actions):
        self.counts = self.counts + 1
        terminated = self.counts == [2, 3]
        last = np.array([*self._observations(), None], dtype=object)[:2]
        if self.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP:
            self.counts = np.where(terminated, 0, self.counts)
        return (
            self._observations(),
            np.ones(2),
            terminated,
            np.zeros(2, bool),
            {"final_obs": last} if self.final else {},
        )

    def _observations(self):
        return np.stack([np.full(self.shape, count, np.float32) for count in self.counts])


class Sized(gymnasium.Env):
    """Observes its size, which is each step's reward."""

    observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, size=1, render_mode=None):
        self.size = size

    def reset(self, *, seed=None, options=None):
        return np.full(1, self.size, np.float32), {}

    def step(self, action):
        return np.full(1, self.size, np.float32), float(self.size), False, False, {}


def simulator_of(factory):
    """Build the simulator of a factory's gymnasium environment."""
    return GymSimulator(factory())


def sized_if_imported(module):
    """Build an environment of size 1 in a process that has imported a module, and of size 0 in any other."""
    return Sized(int(module in sys.modules))


class Fivefold(gymnasium.RewardWrapper):
    """Gives five times the reward."""

    def reward(self, reward):
        return 5 * reward


class Painter(gymnasium.Env):
    """Shows a picture of its time and of its last action beside both; earns its time; episodes are ``length`` long."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1000}
    action_space = spaces.Box(-2, 2, (2,), np.float32)
    box = spaces.Box(-100, 100, (4,), np.float32)
    picture = spaces.Box(0, 255, (4, 4, 3), np.uint8)

    def __init__(self, length, form="box", render_mode=None):
        self.length, self.form, self.render_mode = length, form, render_mode
        self.observation_space = {
            "box": self.box,
            "picture": self.picture,
            "dict": spaces.Dict({"box": self.box, "picture": self.picture}),
        }[form]

    def reset(self, *, seed=None, options=None):
        self.time, self.last = 0, np.zeros(2)
        return self.seen(), {}

    def step(self, action):
        self.time, self.last = self.time + 1, np.array(action)
        return self.seen(), float(self.time), self.time >= self.length, False, {"time": self.time}

    def seen(self):
        box = np.array([self.time, self.length, *self.last], np.float32)
        picture = np.full((4, 4, 3), [self.time, self.length, 0], np.uint8)
        return {"box": box, "picture": picture, "dict": {"box": box, "picture": picture}}[self.form]

    def render(self):
        return np.full((4, 4, 3), self.time, np.uint8)


class PlantedError(Exception):
    """Raised by a simulator that was asked to fail."""


FAULTS = (
    "observation_shape",
    "observation_string",
    "observation_object",
    "observation_out_of_bounds",
    "observation_nan",
    "reward_nan",
    "reward_list",
    "ignores_seed",
    "raises_in_init",
    "raises_in_reset",
    "raises_in_step",
)


class FaultySimulator(CountingSimulator):
    """A counting simulator with one mistake.

    Args:
        fault: one of ``FAULTS``, or None for none.
        from_step: index of the first step in an episode with the mistake; 0 includes the reset. Not for
            ``"ignores_seed"``, whose observation counts the steps since the simulator was built.
        length: see :class:`CountingSimulator`.
    """

    def __init__(self, fault: str | None = None, *, from_step: int = 1, length: int | Sequence[int] = 5) -> None:
        if fault is not None and fault not in FAULTS:
            raise ValueError(f"expected one of {FAULTS}, got {fault!r}")
        if fault == "raises_in_init":
            raise PlantedError("planted in __init__")
        super().__init__(length)
        self.observation_space = spaces.Box(0, 1000, (1,), np.float32)
        self.fault, self.from_step, self.total_steps = fault, from_step, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        if self.fault == "raises_in_reset":
            raise PlantedError("planted in reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        self.total_steps += 1
        observation, reward, terminated, truncated, info = super().step(action)
        if self.num_steps >= self.from_step:
            if self.fault == "raises_in_step":
                raise PlantedError("planted in step")
            reward = {"reward_nan": float("nan"), "reward_list": [reward, reward]}.get(self.fault, reward)
        return observation, reward, terminated, truncated, info

    def _observation(self) -> Any:
        observation = super()._observation()
        if self.fault == "ignores_seed":
            return observation * 0 + self.total_steps
        if self.num_steps < self.from_step:
            return observation
        return {
            "observation_shape": np.zeros(2, np.float32),
            "observation_string": "left",
            "observation_object": np.array([object()]),
            "observation_out_of_bounds": observation * 0 - 1,
            "observation_nan": observation * np.nan,
        }.get(self.fault, observation)


def assert_continues(make: Any, *, steps: int = 50, warm_up: int = 30) -> None:
    """Save a simulator in mid-episode and compare its continuation with two restored ones, bit for bit.

    The first is new, the second was used before. The comparison runs over the ends of episodes and over a reset half
    way, so that the random generators are compared too.
    """
    original, used, new = make(), make(), make()
    action_space = original.action_space
    action_space.seed(0)
    original.reset(seed=1)
    used.reset(seed=2)
    for at in range(warm_up):
        for simulator in (original, used) if at % 3 == 0 else (original,):
            if any(simulator.step(action_space.sample())[2:4]):
                simulator.reset()
    state = original.get_state()
    used.set_state(state)
    new.set_state(state)
    simulators = (original, used, new)
    for at in range(steps):
        action = action_space.sample()
        results = [simulator.step(action) for simulator in simulators]
        _assert_equal(results, f"step {at}")
        if any(results[0][2:4]) or at == steps // 2:
            _assert_equal([simulator.reset() for simulator in simulators], f"reset after step {at}")


def _assert_equal(results: Sequence[Any], when: str) -> None:
    """Compare nested results exactly; infos are left out."""
    first, *others = results
    for other in others:
        if isinstance(first, dict):
            assert first.keys() == other.keys(), when
            for key in first:
                _assert_equal([first[key], other[key]], f"{when}, {key}")
        elif isinstance(first, tuple):
            assert len(first) == len(other), when
            for at, (one, two) in enumerate(zip(first[:-1], other[:-1], strict=True)):
                _assert_equal([one, two], f"{when}, entry {at}")
        else:
            np.testing.assert_array_equal(first, other, when)


def with_more_time(attempt: Callable[[float], None], seconds: float = 0.5) -> None:
    """Call ``attempt`` with a deadline in seconds; where it fails, call it with ten times as long, up to the limit.

    For deadlines that one part shall miss and others shall meet: on a busy machine the others take longer, too.
    """
    while True:
        try:
            return attempt(seconds)
        except (AssertionError, DeadlineError):
            if 10 * seconds > LIMIT_S:
                raise
            seconds *= 10


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail where it never does."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"{holds} was not true within {LIMIT_S:g} s"
        time.sleep(0.005)
