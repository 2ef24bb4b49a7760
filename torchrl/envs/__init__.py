"""Environments, each a batch of worlds that speaks TensorDict, and the transforms that wrap them.

Names load on first use, so that a worker process can import ``torchrl.envs.simulators`` without importing torch.
"""

from importlib import import_module

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
