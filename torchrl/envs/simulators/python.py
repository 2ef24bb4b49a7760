"""Build one simulator by a function of the user's own, named as text: a module or a file, and the function in it."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.dm_control import DMControlSimulator
from torchrl.envs.simulators.foreign import foreign_hint
from torchrl.envs.simulators.gym import GymSimulator
from torchrl.envs.simulators.leaving_out import Name
from torchrl.envs.simulators.observing import Pixels
from torchrl.envs.simulators.wrapping import Wrap, driving_wrappers, leave_out_wrappers, limit_wrappers, wrap_simulator
from torchrl.errors import EnvError, explain, nearest

WHO = "python_simulator"


def python_simulator(
    name: str,
    *,
    frame_skip: int = 1,
    max_episode_steps: int | None = None,
    max_noops: int = 0,
    env_kwargs: dict | None = None,
    leave_out: Sequence[Name] = (),
    from_pixels: bool = False,
    pixels_only: bool = True,
    pixels_key: str = "pixels",
    wrappers: Sequence[Wrap] = (),
) -> Simulator:
    """Call a function that builds one world, and return that world as a simulator, with wrappers around it.

    A world is a ``gymnasium.Env``, a ``dm_env.Environment`` or a :class:`Simulator`. A name is text, so that a config
    file and a saved run can hold it, and worker processes build worlds from it.

    >>> python_simulator("gymnasium:make", env_kwargs={"id": "CartPole-v1"}, max_episode_steps=9).step_limit()
    9

    Args:
        name: ``"module:function"``, or ``"folder/file.py:function"``, from the present folder.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated, at most the world's own limit.
        max_noops: do between 1 and this many no-op actions after each reset; 0 does none.
        env_kwargs: the function's keyword arguments.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.
        from_pixels: whether pictures are observed, uint8 ``[H, W, 3]``; a ``gymnasium.Env`` must have been made with
            ``render_mode="rgb_array"``.
        pixels_only: whether pictures replace the other observations.
        pixels_key: the pictures' name.
        wrappers: put around it last, the innermost first.

    Raises:
        EnvError: there is no such module, file or function, or it returned no world. What the function raises itself
            comes through.
        ConfigError: ``max_episode_steps`` above the world's own limit.
    """
    around = [*leave_out_wrappers(leave_out), *driving_wrappers(frame_skip, max_noops)]
    if from_pixels:
        around.append(partial(Pixels, key=pixels_key, pixels_only=pixels_only))
    make = partial(_call, name, find_function(name), env_kwargs or {})
    return wrap_simulator(make, [*around, *limit_wrappers(max_episode_steps)], wrappers)


def find_function(name: str) -> Callable:
    """Return the function that ``"module:function"`` or ``"file.py:function"`` names.

    Raises:
        EnvError: there is none.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        hint = "For example worlds.py:make, where worlds.py is in the present folder."
        raise EnvError(explain(WHO, expected="module:function or file.py:function", got=repr(name), hint=hint))
    module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
    function = getattr(module, attribute, None)
    if not callable(function):
        near = nearest(attribute, [key for key, value in vars(module).items() if callable(value)])
        hint = f"Did you mean {near!r}?" if near else ""
        raise EnvError(explain(WHO, expected=f"a function of {place}", got=repr(attribute), hint=hint))
    return function


def _import(name: str) -> ModuleType:
    try:
        return pkgutil.resolve_name(f"{name}:")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks one itself
        hint = f"A file of the present folder is {name.rpartition('.')[2]}.py:function."
        raise EnvError(explain(WHO, expected="an installed module", got=repr(name), hint=hint)) from None


def _load_file(path: Path) -> ModuleType:
    """Run a file as a module, once in a process; what it imports from its own folder is found."""
    path = path.resolve()
    if not path.is_file():
        raise EnvError(explain(WHO, expected="a file", got=str(path)))
    name = f"{path.stem}_at_{abs(hash(path)):x}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _call(name: str, function: Callable, arguments: dict[str, Any]) -> Simulator:
    """Call the function, and present what it returns as a simulator."""
    world = function(**arguments)
    if isinstance(world, gymnasium.Env) and not isinstance(world, Simulator):
        return GymSimulator(world)
    if hasattr(world, "observation_spec") and hasattr(world, "action_spec") and hasattr(world, "step"):
        return DMControlSimulator(world)
    if all(hasattr(world, member) for member in ("reset", "step", "observation_space", "action_space")):
        return world
    expected = "a gymnasium.Env, a dm_env.Environment or a Simulator"
    got = f"{type(world).__name__}, returned by {name}"
    raise EnvError(explain(WHO, expected=expected, got=got, hint=foreign_hint(world)))
