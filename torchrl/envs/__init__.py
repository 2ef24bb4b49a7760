"""Environments, each a batch of worlds that speaks TensorDict, and the transforms that wrap them.

Names load on first use, so that a worker process can import ``torchrl.envs.simulators`` without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what a type checker reads in place of the table below
    from torchrl.envs.base import Env as Env
    from torchrl.envs.checks import check_env as check_env
    from torchrl.envs.conversions import (
        dm_env_from_spec as dm_env_from_spec,
        space_from_spec as space_from_spec,
        spec_from_dm_env as spec_from_dm_env,
        spec_from_space as spec_from_space,
    )
    from torchrl.envs.installed import installed_worlds as installed_worlds
    from torchrl.envs.isaac import IsaacEnv as IsaacEnv
    from torchrl.envs.libraries import (
        AtariEnv as AtariEnv,
        DMControlEnv as DMControlEnv,
        GymEnv as GymEnv,
        ToyEnv as ToyEnv,
    )
    from torchrl.envs.native import (
        Acrobot as Acrobot,
        CartPole as CartPole,
        ChainMDP as ChainMDP,
        FourRooms as FourRooms,
        GridWorld as GridWorld,
        MountainCar as MountainCar,
        MountainCarContinuous as MountainCarContinuous,
        NarrowPath as NarrowPath,
        Pendulum as Pendulum,
        Plane as Plane,
        RepeatPrevious as RepeatPrevious,
        TabularEnv as TabularEnv,
        TMaze as TMaze,
        native_env as native_env,
    )
    from torchrl.envs.on_jax.env import JaxEnv as JaxEnv
    from torchrl.envs.on_jax.libraries import jax_world as jax_world
    from torchrl.envs.on_jax.world import JaxWorld as JaxWorld
    from torchrl.envs.row_random import RowRandom as RowRandom
    from torchrl.envs.torch_env import TorchEnv as TorchEnv
    from torchrl.envs.transforms import Compose as Compose, Transform as Transform, TransformedEnv as TransformedEnv
    from torchrl.envs.values import decode as decode, encode as encode
    from torchrl.envs.vector.ale import ALEEnv as ALEEnv
    from torchrl.envs.vector.batch_env import BatchEnv as BatchEnv
    from torchrl.envs.vector.envpool import EnvPoolEnv as EnvPoolEnv
    from torchrl.envs.vector.gym_vector import GymVectorEnv as GymVectorEnv
    from torchrl.envs.vector.parallel import ParallelEnv as ParallelEnv
    from torchrl.envs.vector.serial import SerialEnv as SerialEnv

_HOMES = {
    "Env": "base",
    "check_env": "checks",
    "SerialEnv": "vector.serial",
    "ParallelEnv": "vector.parallel",
    "BatchEnv": "vector.batch_env",
    "GymVectorEnv": "vector.gym_vector",
    "ALEEnv": "vector.ale",
    "EnvPoolEnv": "vector.envpool",
    "RowRandom": "row_random",
    "installed_worlds": "installed",
    "TorchEnv": "torch_env",
    "IsaacEnv": "isaac",
    "JaxEnv": "on_jax.env",
    "JaxWorld": "on_jax.world",
    "jax_world": "on_jax.libraries",
    "Acrobot": "native",
    "CartPole": "native",
    "ChainMDP": "native",
    "FourRooms": "native",
    "GridWorld": "native",
    "MountainCar": "native",
    "MountainCarContinuous": "native",
    "NarrowPath": "native",
    "Pendulum": "native",
    "Plane": "native",
    "RepeatPrevious": "native",
    "TMaze": "native",
    "TabularEnv": "native",
    "native_env": "native",
    "GymEnv": "libraries",
    "AtariEnv": "libraries",
    "DMControlEnv": "libraries",
    "ToyEnv": "libraries",
    "decode": "values",
    "dm_env_from_spec": "conversions",
    "encode": "values",
    "space_from_spec": "conversions",
    "spec_from_dm_env": "conversions",
    "spec_from_space": "conversions",
    "Compose": "transforms",
    "TransformedEnv": "transforms",
    "Transform": "transforms",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
