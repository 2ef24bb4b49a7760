"""The worlds of the libraries that are installed, by name. None of them is built."""

from __future__ import annotations

import warnings

import gymnasium

from torchrl.envs.native.named import NATIVE
from torchrl.envs.on_jax.libraries import LIBRARIES as JAX, names_of
from torchrl.envs.simulators.toys import TOYS
from torchrl.errors import EnvError, explain
from torchrl.extras import require

LIBRARIES = ("gym", "ale", "dm_control", "native", *sorted(JAX), "toy")


def installed_worlds(library: str) -> list[str]:
    """List the worlds of a library by the names under which it builds them, sorted.

    A task of dm_control is ``domain-task``. Games of ale-py are those that it registers under ``ALE/``; other ids of
    gymnasium are those that are registered when this is called, so import the package that brings more of them first.

    >>> "CartPole-v1" in installed_worlds("gym"), installed_worlds("toy")
    (True, ['Matching'])

    Args:
        library: ``"gym"``, ``"ale"``, ``"dm_control"``, ``"native"``, ``"toy"``, or a library of :func:`jax_world`.

    Raises:
        EnvError: there is no such library.
        MissingExtraError: it is not installed.
    """
    if library in JAX:
        return sorted(names_of(library))
    if library == "native":
        return sorted(NATIVE)
    if library == "toy":
        return sorted(TOYS)
    if library == "dm_control":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*X11")  # there is no display: nothing is drawn here
            suite = require("dm_control.suite", extra="dm-control", purpose="The DeepMind control suite")
        return sorted(f"{domain}-{task}" for domain, task in suite.ALL_TASKS)
    if library == "ale":
        gymnasium.register_envs(require("ale_py", extra="atari", purpose="Atari"))
        return sorted(name for name in gymnasium.registry if name.startswith("ALE/"))
    if library == "gym":
        return sorted(
            name for name, spec in gymnasium.registry.items() if not str(spec.entry_point).startswith("ale_py")
        )
    raise EnvError(explain("installed_worlds", expected=f"one of {', '.join(LIBRARIES)}", got=repr(library)))
