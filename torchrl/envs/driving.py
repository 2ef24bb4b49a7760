"""Record which object (a collector or an evaluator) steps an environment, so that no two of them step the same."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

from torchrl.envs.simulators.base import SimulatorWrapper
from torchrl.errors import EnvError, explain

if TYPE_CHECKING:
    from torchrl.envs.base import Env

# By the id of what is driven: itself, who drives it, and that one's name. Not attributes of an environment, which may
# be copied and pickled.
_driven: dict[int, tuple[weakref.ref, weakref.ref, str]] = {}


def take_env(who: str, env: Env, driver: object) -> None:
    """Reserve an environment for one object that will step it, until that calls :func:`leave_env` or is deleted.

    An environment, envs around it and what it steps (its simulators, a vector environment) count as one.

    Args:
        who: the driver's name in messages, ``"Collector"``.
        env: the environment.
        driver: the object that will step it; referenced weakly.

    Raises:
        EnvError: another driver has reserved it, or ``env`` is no environment.
    """
    require_undriven(who, env, driver)
    for thing in env.driven_things():
        key = id(thing)
        try:
            itself = weakref.ref(thing, lambda _, key=key: _driven.pop(key, None))
        except TypeError:  # a class with slots, of which nothing can be noted
            continue
        _driven[key] = (itself, weakref.ref(driver), who)


def leave_env(env: Env, driver: object) -> None:
    """End a driver's reservation of an environment by :func:`take_env`; do nothing if it has none."""
    for thing in env.driven_things():
        found = _driven.get(id(thing))
        if found is not None and found[0]() is thing and found[1]() is driver:
            del _driven[id(thing)]


def require_undriven(who: str, env: Env, driver: object = None) -> None:
    """Raise an error if another driver has reserved the environment by :func:`take_env`.

    Raises:
        EnvError: naming both.
    """
    if not hasattr(env, "driven_things"):
        raise EnvError(explain(who, expected="an Env", got=repr(env)))
    name = _name_of_other(env, driver)
    if name is not None:
        gc.collect()  # a driver without references may not be gone yet
        name = _name_of_other(env, driver)
    if name is None:
        return
    expected = "an environment that nothing else steps"
    got = f"a {type(env).__name__} that {name} steps"
    hint = (
        f"Build an environment for each, or they tear each other's episodes apart. {name} lets go when it is closed, "
        "or deleted with all that refers to it."
    )
    raise EnvError(explain(who, expected=expected, got=got, hint=hint))


def _name_of_other(env: Env, driver: object) -> str | None:
    for thing in env.driven_things():
        itself, other, name = _driven.get(id(thing), (None, None, ""))
        if itself is not None and itself() is thing and other() not in (None, driver):
            return name
    return None


def innermost(simulator: object) -> object:
    """Return the object below all wrappers of a simulator; two simulators with the same one must not both be stepped.

    For an ``Env`` presented as a simulator, return that simulator, since nothing else can wrap the env.
    """
    while isinstance(simulator, SimulatorWrapper):
        simulator = simulator.simulator
    inner = getattr(simulator, "env", simulator)
    if hasattr(inner, "driven_things") or not hasattr(inner, "step"):
        return simulator
    return getattr(inner, "unwrapped", inner)
