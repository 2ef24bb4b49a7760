"""Find the scripts of the algorithms and their configs, and load what a script defines. What they do is theirs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import get_type_hints

from torchrl.agents import Agent
from torchrl.errors import ConfigError, explain, nearest
from torchrl.recipes.parts import Command

PACKAGE = Path(__file__).parents[1]
HOMES = (PACKAGE / "examples", PACKAGE.parent / "examples")  # of an installed wheel, and of a clone


def find_scripts() -> dict[str, Path]:
    """Return the path of each algorithm's script, by the algorithm's name.

    >>> find_scripts()["ppo"].name
    'ppo.py'

    Raises:
        ConfigError: there are no scripts beside the package.
    """
    for home in HOMES:
        scripts = {path.stem: path for path in sorted(home.glob("*/*.py")) if path.stem == path.parent.name}
        if scripts:
            return scripts
    raise ConfigError(explain("torchrl", expected="the folder of examples", got=f"neither of {[*map(str, HOMES)]}"))


def script_of(algorithm: str) -> Path:
    """Return the path of an algorithm's script.

    Raises:
        ConfigError: there is no such algorithm.
    """
    scripts = find_scripts()
    if algorithm not in scripts:
        close = nearest(algorithm.lower(), scripts)
        hint = f"Did you mean {close}?" if close else ""
        raise ConfigError(explain("ALGORITHM", expected=f"one of {', '.join(scripts)}", got=algorithm, hint=hint))
    return scripts[algorithm]


def find_config(algorithm: str, name: str) -> Path:
    """Return the path of a config: the file of this path, else the one of the algorithm that has this name.

    >>> find_config("ppo", "cartpole").name
    'cartpole.txt'

    Args:
        algorithm: whose configs are looked at.
        name: a path, or the name of a config that comes with the package, without its suffix.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = {path.stem: path for path in sorted((script_of(algorithm).parent / "configs").glob("*.txt"))}
    if name.removesuffix(".txt") in shipped:
        return shipped[name.removesuffix(".txt")]
    siblings = [str(path.with_name(file.name)) for file in path.parent.glob("*.txt")] if path.parent.is_dir() else []
    close = nearest(name, [*shipped, *siblings])
    hint = f"Did you mean {close}?" if close else ""
    expected = f"a file that exists, or one of {algorithm}'s: {', '.join(shipped)}"
    raise ConfigError(explain("--config", expected=expected, got=name, hint=hint))


@cache
def load_script(algorithm: str) -> tuple[type[Command], Callable[[Command], Agent]]:
    """Import an algorithm's script, and return the class of its settings and its function that builds an agent.

    >>> settings, make_agent = load_script("ppo")
    >>> settings.__name__, make_agent.__name__
    ('PPO', 'make_agent')
    """
    spec = spec_from_file_location(f"torchrl_{algorithm}_example", script_of(algorithm))
    # Its dataclasses look their module up by its name.
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return get_type_hints(module.make_agent)["settings"], module.make_agent
