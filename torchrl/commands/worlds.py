"""The world that a command names by ENV_ID and flags, as settings. Which worlds there are, ``envs`` lists."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import TypeVar, get_args, get_type_hints

from torchrl.errors import ConfigError, explain
from torchrl.recipes.envs import JAX
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


def flags_of(environment: Environment) -> str:
    """Return the flags with which a script takes an environment's world.

    >>> flags_of(Environment(env_library="native", env_name="Plane"))
    '--env_library=native --env_name=Plane'
    """
    names = ("env_library", "env_name", "env_task")
    given = {name: getattr(environment, name) for name in names}
    return " ".join(f"--{name}={value}" for name, value in given.items() if value != getattr(Environment, name))


def one_row(environment: Environment) -> Environment:
    """Return the settings of a single row of an environment, without worker processes."""
    return replace(environment, num_envs=1, env_workers=0)
