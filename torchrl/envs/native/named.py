"""Build one of the native envs by its name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torchrl.envs.native.acrobot import Acrobot
from torchrl.envs.native.cartpole import CartPole
from torchrl.envs.native.four_rooms import FourRooms
from torchrl.envs.native.mountain_car import MountainCar, MountainCarContinuous
from torchrl.envs.native.pendulum import Pendulum
from torchrl.envs.native.plane import Plane
from torchrl.envs.native.repeat_previous import RepeatPrevious
from torchrl.envs.native.tables import ChainMDP, GridWorld, NarrowPath
from torchrl.envs.native.tmaze import TMaze
from torchrl.envs.torch_env import TorchEnv
from torchrl.errors import ConfigError, EnvError, explain, nearest

KINDS = (
    Acrobot,
    CartPole,
    ChainMDP,
    FourRooms,
    GridWorld,
    MountainCar,
    MountainCarContinuous,
    NarrowPath,
    Pendulum,
    Plane,
    RepeatPrevious,
    TMaze,
)
NATIVE = {kind.__name__: kind for kind in KINDS}


def native_env(name: str, num_envs: int | Sequence[int] | None = None, **options: Any) -> TorchEnv:
    """Build a native env (a batch that is stepped in torch) by the name of its class.

    >>> native_env("TMaze", 2, length=20).length
    20

    Args:
        name: of its class, such as ``"TMaze"``.
        num_envs: batch size ``[num_envs]``; several numbers give ``[*B]``, None gives one row with batch size ``[]``.
        options: the other arguments of its class.

    Raises:
        EnvError: there is no env of this name.
        ConfigError: the class has no such argument, or refuses its value.
    """
    if name not in NATIVE:
        near = nearest(str(name), NATIVE)
        hint = f'Did you mean "{near}"?' if near else ""
        raise EnvError(explain("native_env", expected=f"one of {', '.join(NATIVE)}", got=repr(name), hint=hint))
    known = [parameter for parameter in inspect.signature(NATIVE[name]).parameters if parameter != "num_envs"]
    for option in options:
        if option not in known:
            near = nearest(option, known)
            hint = f"Did you mean {near!r}?" if near else ""
            raise ConfigError(explain(name, expected=f"some of {', '.join(known)}", got=repr(option), hint=hint))
    return NATIVE[name](num_envs, **options)
