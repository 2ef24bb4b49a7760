"""The world that a command names by ENV_ID and flags, as settings. Which worlds there are, ``envs`` lists."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import TypeVar, get_args, get_type_hints

from torchrl.data.specs import Bounded, Categorical, Composite
from torchrl.data.specs.base import LeafSpec
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.keys import key_name
from torchrl.recipes.envs import JAX, make_env
from torchrl.recipes.parts import Environment
from torchrl.recipes.settings import from_flags

LIBRARIES = get_args(get_type_hints(Environment)["env_library"])
BATCHES = ("native", *JAX)  # a world of these is a whole batch
ENV_ID = "a gymnasium id, or LIBRARY/NAME, as torchrl envs lists them: native/CartPole, dm_control/cheetah-run"
Settings = TypeVar("Settings")


def split_id(env_id: str) -> dict[str, str]:
    """Return the flags that an ENV_ID stands for.

    >>> split_id("dm_control/cheetah-run")
    {'env_library': 'dm_control', 'env_name': 'cheetah', 'env_task': 'run'}
    >>> split_id("ALE/Pong-v5")
    {'env_name': 'ALE/Pong-v5'}
    """
    library, slash, name = env_id.partition("/")
    if not slash or library not in LIBRARIES:
        return {"env_name": env_id}
    flags = {"env_library": library, "env_name": name}
    if library == "dm_control" and "-" in name:
        flags["env_name"], _, flags["env_task"] = name.partition("-")
    return flags


def settings_for(settings: type[Settings], args: Namespace) -> Settings:
    """Build a command's settings from flags, with the environment that ``args.env_id`` names.

    Raises:
        ConfigError: a flag contradicts the id.
    """
    flags = vars(args)
    for name, value in split_id(args.env_id).items():
        if flags[name] not in (value, getattr(Environment, name)):
            got = f"--{name}={flags[name]}"
            raise ConfigError(explain(f"ENV_ID {args.env_id}", expected=f"--{name}={value}, or none", got=got))
        flags = flags | {name: value}
    return from_flags(settings, flags)


def shown_id(library: str, name: str) -> str:
    """Return the ENV_ID of a world of a library.

    >>> shown_id("gym", "CartPole-v1"), shown_id("native", "CartPole"), shown_id("ale", "ALE/Pong-v5")
    ('CartPole-v1', 'native/CartPole', 'ALE/Pong-v5')
    """
    return name if library in ("gym", "ale") else f"{library}/{name}"


def world_of(env_id: str, num_envs: int) -> Env:
    """Build the env that an ENV_ID names, as it is without further flags."""
    return make_env(replace(Environment(), **split_id(env_id)), num_envs=num_envs, training=True, gamma=0.99)


def spaces_of(env: Env) -> list[str]:
    """Describe what an env shows and takes, a line for each entry; shapes are those of a row.

    >>> spaces_of(world_of("native/CartPole", 2))
    ['observation: from -inf to inf, float32 [4]', 'action: 0 to 1, int64 []']
    """
    lines = []
    for spec in (env.observation_spec, env.action_spec):
        leaves = spec.leaves() if isinstance(spec, Composite) else [("action", spec)]
        lines += [f"{key_name(key)}: {_described(leaf, len(env.batch_size))}" for key, leaf in leaves]
    return lines


def _described(spec: LeafSpec, batch_dims: int) -> str:
    shape, dtype = [*spec.shape[batch_dims:]], str(spec.dtype).removeprefix("torch.")
    if isinstance(spec, Categorical):
        return f"0 to {spec.n - 1}, {dtype} {shape}"
    if isinstance(spec, Bounded):
        return f"from {float(spec.low.min()):g} to {float(spec.high.max()):g}, {dtype} {shape}"
    return f"{type(spec).__name__} {dtype} {shape}"
