"""Put wrappers around one simulator, from the inside out. Which ones, the builders of simulators say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import gymnasium
from gymnasium.vector import VectorWrapper

from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.gym import GymSimulator
from torchrl.envs.simulators.leaving_out import Name
from torchrl.envs.simulators.observing import LeaveOut
from torchrl.envs.simulators.wrappers import FrameSkip, NoopReset, TimeLimit
from torchrl.errors import ConfigError, EnvError, explain

Wrap = Callable[[gymnasium.Env], gymnasium.Env]


def leave_out_wrappers(names: Sequence[Name]) -> list[Wrap]:
    """Return what hides entries of the observations."""
    return [partial(LeaveOut, keys=names)] if names else []


def driving_wrappers(frame_skip: int, max_noops: int) -> list[Wrap]:
    """Return what repeats actions, and what begins episodes with no-ops."""
    wrappers: list[Wrap] = []
    if frame_skip != 1:
        wrappers.append(partial(FrameSkip, num_frames=frame_skip))
    if max_noops:
        wrappers.append(partial(NoopReset, max_noops=max_noops))
    return wrappers


def limit_wrappers(max_episode_steps: int | None) -> list[Wrap]:
    """Return what truncates episodes after ``max_episode_steps``."""
    return [] if max_episode_steps is None else [partial(TimeLimit, max_steps=max_episode_steps)]


def wrap_simulator(make: Callable[[], gymnasium.Env], own: Sequence[Wrap], given: Sequence[Wrap]) -> Simulator:
    """Build one simulator and wrap it from the inside out; close it if a wrapper fails."""
    if callable(given) or isinstance(given, gymnasium.Env):
        raise ConfigError(explain("wrappers", expected="a list", got=repr(given), hint="Write wrappers=[...]."))
    simulator = make()
    try:
        for wrap in own:
            simulator = wrap(simulator)
        for position, wrap in enumerate(given):
            simulator = _put_around(simulator, wrap, f"wrappers[{position}]")
    except BaseException:
        simulator.close()
        raise
    return simulator


def _put_around(simulator: gymnasium.Env, wrap: Wrap, name: str) -> Simulator:
    """Apply one wrapper to a simulator; wrap a resulting gymnasium environment as a simulator again."""
    kind = getattr(wrap, "func", wrap)  # of a partial
    hint = ""
    if not callable(wrap):
        hint = "Give what is called with the simulator: the class, or partial(Wrapper, argument=...)."
    elif isinstance(kind, type) and issubclass(kind, VectorWrapper):
        hint = f"That of one simulator is gymnasium.wrappers.{kind.__name__}."
    elif hasattr(kind, "inverse") and hasattr(kind, "read_specs"):
        hint = "It is a transform, which wraps the batch: TransformedEnv(GymEnv(...), transform)."
    if hint:
        raise ConfigError(explain(name, expected="a callable that wraps a simulator", got=repr(wrap), hint=hint))
    try:
        wrapped = wrap(simulator)
    except Exception as error:
        error.add_note(f"Raised by {name} around a {type(simulator).__name__}.")
        raise
    if not (hasattr(wrapped, "reset") and hasattr(wrapped, "step")):
        expected = "a wrapper that returns a simulator"
        raise EnvError(explain(name, expected=expected, got=f"{wrap!r}, which returned {wrapped!r}"))
    is_simulator = isinstance(wrapped, Simulator) or not isinstance(wrapped, gymnasium.Env)
    return wrapped if is_simulator else GymSimulator(wrapped)
