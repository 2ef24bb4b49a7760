"""Build the simulators of a batch from factories, and check that their spaces agree. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from numbers import Integral
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from torchrl.envs.driving import innermost, require_undriven
from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.foreign import foreign_hint, is_pool
from torchrl.envs.vector.buffers import observation_leaves
from torchrl.envs.vector.worker import Options, own_method
from torchrl.errors import ConfigError, EnvError, explain

RESERVED = (
    ("action", "next", "collector", "is_init", "reward", "terminated", "truncated", "done")
    + ("episode_return", "episode_length", "env_info")
)  # fmt: skip

Factory = Callable[[], gymnasium.Env]


def factories_of(who: str, make_simulator: Factory | Sequence[Factory], num_envs: int | None) -> list[Factory]:
    """Return a list with one factory per row: one factory ``num_envs`` times, or the given sequence.

    Raises:
        ConfigError: ``num_envs`` does not fit the sequence, or an entry is no factory.
    """
    if _is_simulator(make_simulator) or isinstance(make_simulator, str) or _is_one(make_simulator):
        _require_factory(who, make_simulator, num_envs)
        if num_envs is not None and (not isinstance(num_envs, Integral) or num_envs < 1):
            raise ConfigError(explain(who, expected="a whole num_envs of at least 1", got=num_envs))
        return [make_simulator] * (num_envs or 1)
    factories = list(make_simulator)
    if not factories or num_envs not in (None, len(factories)):
        raise ConfigError(explain(who, expected=f"{num_envs or 'some'} factories", got=f"{len(factories)} of them"))
    for factory in factories:
        _require_factory(who, factory, num_envs)
    return factories


def _is_one(given: object) -> bool:
    return isinstance(given, type) or not hasattr(given, "__iter__")


def _is_simulator(given: object) -> bool:
    return not isinstance(given, type) and hasattr(given, "reset") and hasattr(given, "step")


def _require_factory(who: str, given: object, num_envs: int | None) -> None:
    """Refuse an id, or a simulator that is built already, in place of a factory; the message has the right form."""
    is_simulator = _is_simulator(given)
    if callable(given) and not is_simulator:
        return
    is_number = isinstance(num_envs, Integral)
    count, named = (f", {num_envs}", f", num_envs={num_envs}") if is_number else ("", "")
    is_own = is_simulator and getattr(given, "spec", None) is None  # gymnasium.make leaves a spec on what it builds
    maker = f"{type(given).__name__}(...)" if is_own else 'gymnasium.make("CartPole-v1")'
    hint = f"Write a function that builds a new one at each call: {who}(lambda: {maker}{count})."
    if isinstance(given, str):
        hint = f'Write GymEnv("{given}"{named}), or {who}(partial(gym_simulator, "{given}"){count}).'
    elif is_simulator and num_envs is None and who == "SerialEnv":
        hint = "GymEnv(env) takes a gymnasium environment that is there already."
    elif callable(num_envs):
        hint = f"The factory comes first: {who}(make_simulator, {given!r})."
    elif isinstance(given, EnvSpec):
        hint = f"{who}(spec.make{count}) builds each simulator of it."
    got = f"a {type(given).__name__} that is there already" if is_simulator else repr(given)
    got = "an EnvSpec" if isinstance(given, EnvSpec) else got
    raise ConfigError(explain(who, expected="callables that build a simulator", got=got, hint=hint))


def shares_of(num: int, num_workers: int) -> list[range]:
    """Split ``num`` rows into ``num_workers`` consecutive ranges whose sizes differ by at most one."""
    bounds = [-(-num * index // num_workers) for index in range(num_workers + 1)]
    return [range(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]


def build_simulators(who: str, factories: Sequence[Factory], first_index: int = 0) -> list[Simulator]:
    """Build one simulator with each factory, and check that their spaces agree; close all if one fails.

    Args:
        who: for messages, ``"SerialEnv"``.
        factories: one per row.
        first_index: index of the first row in the whole environment, for messages.

    Raises:
        EnvError: a factory does not return a new simulator, or spaces differ. Or the exception of a factory, with a
            note that names the row.
    """
    with ExitStack() as built:
        simulators: list[Simulator] = []
        for index, factory in enumerate(factories, first_index):
            simulators.append(_build(who, factory, index))
            built.callback(own_method("close", simulators[-1]))
        _require_alike(who, simulators, first_index)
        built.pop_all()
    return simulators


def require_free_names(who: str, observation_space: Space) -> None:
    """Refuse observations under names that the environment uses itself.

    Raises:
        EnvError: naming the first such observation.
    """
    taken = [leaf.path[0] for leaf in observation_leaves(observation_space) if leaf.path[0] in RESERVED]
    if taken:
        expected = "observations under names that the environment does not use itself"
        hint = "Rename the key in the simulator."
        raise EnvError(explain(who, expected=expected, got=f"{taken[0]!r}", hint=hint))


def _build(who: str, factory: Factory, index: int) -> Simulator:
    try:
        simulator = factory()
        if hasattr(simulator, "as_simulator"):  # an Env of batch size [], written in torch
            simulator = _present(who, simulator)
    except Exception as error:
        error.add_note(f"Raised while the simulator of row {index} was built.")
        raise
    if isinstance(simulator, VectorEnv) or is_pool(simulator):
        hint = foreign_hint(simulator)
        expected = "a simulator, one world in numpy"
        raise EnvError(explain(who, expected=expected, got=type(simulator).__name__, hint=hint))
    inner = innermost(simulator)
    if hasattr(inner, "agent_selection"):  # players in turn, as PettingZoo's; also where it has the two spaces
        got = f"{type(inner).__name__}, in which several agents act in turn"
        raise EnvError(explain(who, expected="a simulator of one agent", got=got, hint=foreign_hint(inner)))
    lacking = [name for name in ("observation_space", "action_space", "reset", "step") if not hasattr(simulator, name)]
    if lacking:
        got = f"{type(simulator).__name__} without {', '.join(lacking)}"
        raise EnvError(explain(who, expected="a simulator", got=got, hint=foreign_hint(simulator)))
    for name in ("observation_space", "action_space"):
        space = getattr(simulator, name)
        if not isinstance(space, Space):
            got = f"{type(simulator).__name__}, whose {name} is {_describe(space)}"
            expected = "a simulator with two spaces of gymnasium"
            raise EnvError(explain(who, expected=expected, got=got, hint=foreign_hint(simulator)))
    require_one_reward(who, simulator)
    return simulator


def _describe(space: object) -> str:
    return "a method" if callable(space) else f"of {type(space).__module__}.{type(space).__name__}"


def require_one_reward(who: str, simulator: Any) -> None:
    """Refuse a simulator whose ``reward_space`` says that its rewards are vectors.

    Raises:
        EnvError: naming the simulator.
    """
    inner = simulator
    while hasattr(inner, "simulator") or hasattr(inner, "env"):
        inner = getattr(inner, "simulator", None) or inner.env
    shape = getattr(getattr(inner, "reward_space", None), "shape", None)
    if shape and shape != (1,):
        expected, got = "one reward a step", f"{type(inner).__name__} with rewards of shape {list(shape)}"
        hint = "Weigh them in a wrapper, as mo_gymnasium.wrappers.LinearReward(env, weight=...) does."
        raise EnvError(explain(who, expected=expected, got=got, hint=hint))


def _present(who: str, env: Any) -> Simulator:
    require_undriven(who, env)  # before what closes an environment that cannot be presented
    try:
        return env.as_simulator()
    except Exception:
        env.close()
        raise


def _require_alike(who: str, simulators: Sequence[Simulator], first_index: int) -> None:
    """Refuse rows that share one simulator (also inside different wrappers), and rows whose spaces differ."""
    first, seen = simulators[0], {}
    innermost_ones = [innermost(simulator) for simulator in simulators]
    for index, (other, inner) in enumerate(zip(simulators, innermost_ones, strict=True), first_index):
        if seen.setdefault(id(inner), index) != index:
            hint = "The factory builds a new one at each call."
            got = f"the same one in the rows {seen[id(inner)]} and {index}"
            raise EnvError(explain(who, expected="a simulator of its own for every row", got=got, hint=hint))
        for name in ("observation_space", "action_space"):
            if getattr(other, name) != getattr(first, name):
                expected = f"the same {name} in every row: {getattr(first, name)}"
                raise EnvError(explain(who, expected=expected, got=f"{getattr(other, name)} in row {index}"))


def shared_options(who: str, options: Options) -> Mapping | None:
    """Return the one dict of reset options for all rows, for simulators that can only be restarted together.

    Raises:
        EnvError: the options differ from row to row.
    """
    if options is None or isinstance(options, Mapping):
        return options
    if not all(_is_same(one, options[0]) for one in options[1:]):
        hint = "Use GymEnv or SerialEnv, which restart their simulators one by one."
        raise EnvError(explain(who, expected="the same options in every row", got=repr(options), hint=hint))
    return options[0] if options else None


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    return np.array_equal(one, other)
