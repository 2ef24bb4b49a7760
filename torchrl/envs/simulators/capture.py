"""Save the attributes of an object as plain data, and restore them: numbers, strings, None and arrays, never code.

An attribute falls into one of three kinds::

    constant   specs, classes, loggers, renderers, functions without    left out: an episode does not change them
               memory, spaces without a generator
    plain      numbers, text, arrays, random generators, and lists,     saved
               tuples, deques and dicts of these
    other      open files, locks, objects of any other class            refused by name: EnvError
"""

from __future__ import annotations

import collections
import logging
import types
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers.utils import RunningMeanStd

from torchrl.envs.simulators.base import FRESH, State
from torchrl.errors import EnvError, explain

# Descriptions, classes and loggers: nothing in them changes as a simulator goes on.
CONSTANT_TYPES = (EnvSpec, type, logging.Logger, np.dtype)
# Modules that are a stream of random numbers, which every simulator shares.
STREAMS = ("random", "numpy.random")
# Windows, surfaces, clocks and renderers show the state, they do not hold it; a pygame.Rect or Vector2 does.
RENDERING = ("pygame.surface", "pygame.time", "pygame.font", "gymnasium.envs.mujoco.mujoco_rendering")
BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
KIND = "__kind__"


def capture_attributes(target: Any, *, skip: Collection[str] = ()) -> State:
    """Return an object's attributes as plain data by name; skip constants, and refuse attributes of other kinds.

    Args:
        target: the object.
        skip: names of attributes that the caller saves otherwise.

    Raises:
        EnvError: naming the first attribute that is neither plain nor known to be constant.
    """
    who = type(target).__name__
    hidden = [name for kind in type(target).__mro__ for name in _slots_of(kind) if name not in skip]
    if hidden:
        got = f"{who} with slots {hidden}"
        raise EnvError(explain("get_state", expected="attributes in __dict__", got=got, hint=FRESH))
    names = [name for name, value in vars(target).items() if name not in skip and not _is_constant(value, target)]
    return {name: _encode(vars(target)[name], f"{who}.{name}") for name in names}


def restore_attributes(target: Any, state: State) -> None:
    """Set an object's attributes from what :func:`capture_attributes` returned for an object of its class."""
    for name, value in state.items():
        current = vars(target).get(name)
        decoded = _decode(value, current)
        if isinstance(current, np.ndarray) and not current.flags.owndata and current.shape == np.shape(decoded):
            current[...] = decoded  # a view into memory that others look at too
        elif decoded is not current:
            setattr(target, name, decoded)


def _is_constant(value: Any, target: Any) -> bool:
    if isinstance(value, types.FunctionType):
        return _keeps_nothing(value)
    if isinstance(value, types.MethodType):
        function = value.__func__
        return value.__self__ is target and isinstance(function, types.FunctionType) and _keeps_nothing(function)
    if isinstance(value, types.BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, types.ModuleType)  # else a method of something
    if isinstance(value, types.ModuleType):
        return value.__name__ not in STREAMS
    if isinstance(value, Space):
        return not _generators_of(value)
    return isinstance(value, CONSTANT_TYPES) or type(value).__module__.startswith(RENDERING)


def _keeps_nothing(function: types.FunctionType) -> bool:
    """Answer whether a function has no memory: no closure, no attributes, no default that may change."""
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    is_fixed = all(value is None or isinstance(value, (bool, int, float, str, bytes, type)) for value in defaults)
    return function.__closure__ is None and not vars(function) and is_fixed


def _slots_of(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    return tuple(name for name in ([names] if isinstance(names, str) else names) if not name.startswith("__"))


def _spaces_in(space: Space, path: str = "") -> Iterator[tuple[str, Space]]:
    """Yield a space and all spaces inside it, each with its path."""
    yield path, space
    if isinstance(space, spaces.Dict):
        parts = [(str(key), part) for key, part in space.spaces.items()]
    elif isinstance(space, (spaces.Tuple, spaces.OneOf)):
        parts = [(str(at), part) for at, part in enumerate(space.spaces)]
    else:
        inner = [(name, getattr(space, name, None)) for name in ("feature_space", "node_space", "edge_space")]
        parts = [(name, part) for name, part in inner if isinstance(part, Space)]
    for name, part in parts:
        yield from _spaces_in(part, f"{path}/{name}")


def _generators_of(space: Space) -> dict[str, np.random.Generator]:
    """Return the random generators of a space and those inside it, by path; only generators that exist already."""
    found = {path: part._np_random for path, part in _spaces_in(space)}
    return {path: generator for path, generator in found.items() if generator is not None}


def _encode(value: Any, path: str) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return {KIND: "scalar", "value": _encode(np.asarray(value), path)}
    if type(value) is np.ndarray and value.dtype.kind in "biuf":
        return value.copy()
    if type(value) is np.ndarray and value.dtype.kind in "SU":
        letters = np.ascontiguousarray(value).reshape(-1).view(np.uint8).copy()
        return {KIND: "text", "dtype": value.dtype.str, "shape": np.array(value.shape, np.int64), "letters": letters}
    if type(value) in (list, tuple):
        return {KIND: type(value).__name__, "items": _encode_items(value, path)}
    if type(value) is collections.deque:
        return {KIND: "deque", "maxlen": value.maxlen, "items": _encode_items(value, path)}
    if type(value) in (dict, collections.OrderedDict):
        if all(type(key) is str for key in value) and KIND not in value:
            return {key: _encode(item, f'{path}["{key}"]') for key, item in value.items()}
        return {KIND: "dict", "keys": _encode_items(value, path), "items": _encode_items(value.values(), path)}
    if type(value) is np.random.Generator:
        return {KIND: "Generator", "state": _encode(value.bit_generator.state, path)}
    if type(value) is np.random.RandomState:
        return {KIND: "RandomState", "state": _encode(value.get_state(legacy=False), path)}
    if isinstance(value, Space):
        generators = {at: _encode(generator, f"{path}{at}") for at, generator in _generators_of(value).items()}
        return {KIND: "Space", "generators": generators}
    if type(value) is RunningMeanStd:
        return {KIND: "RunningMeanStd", "moments": _encode(vars(value), path)}
    expected = "attributes that are numbers, strings, arrays or random generators"
    raise EnvError(explain("get_state", expected=expected, got=f"{path} of type {type(value).__name__}", hint=FRESH))


def _encode_items(values: Collection, path: str) -> State:
    return {str(at): _encode(item, f"{path}[{at}]") for at, item in enumerate(values)}


def _decode(value: Any, current: Any = None) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if not isinstance(value, dict):
        return value
    kind = value.get(KIND)
    if kind is None:
        return {key: _decode(item) for key, item in value.items()}
    if kind == "scalar":
        return _decode(value["value"])[()]
    if kind == "text":
        return value["letters"].copy().view(value["dtype"]).reshape(value["shape"])
    if kind == "Space":
        return _restore_space(value["generators"], current)
    if kind == "RunningMeanStd":
        restored = current if type(current) is RunningMeanStd else RunningMeanStd()
        vars(restored).update(_decode(value["moments"]))
        return restored
    if kind in ("Generator", "RandomState"):
        return _restore_generator(kind, _decode(value["state"]), current)
    items = [_decode(item) for item in value["items"].values()]
    if kind == "dict":
        return dict(zip((_decode(key) for key in value["keys"].values()), items, strict=True))
    return collections.deque(items, value["maxlen"]) if kind == "deque" else {"list": list, "tuple": tuple}[kind](items)


def _restore_space(generators: State, current: Any) -> Space:
    """Set the states of the random generators of a space and those inside it; return the space, otherwise unchanged."""
    own = dict(_spaces_in(current)) if isinstance(current, Space) else {}
    lacking = [path for path in generators if path not in own]
    if lacking:
        expected = "a space like the one that was saved"
        raise EnvError(explain("set_state", expected=expected, got=f"{current} without {lacking}"))
    for path, state in generators.items():
        own[path]._np_random = _decode(state, own[path]._np_random)
    return current


def _restore_generator(kind: str, state: State, current: Any) -> Any:
    """Set a generator's state in place, since other objects may share it; make one if there is none of that kind."""
    name = state["bit_generator"]
    if name not in BIT_GENERATORS:
        raise EnvError(explain("set_state", expected=f"a bit generator of {BIT_GENERATORS}", got=repr(name)))
    if kind == "RandomState":
        generator = current if isinstance(current, np.random.RandomState) else np.random.RandomState()
        generator.set_state(state)
        return generator
    usable = isinstance(current, np.random.Generator) and type(current.bit_generator).__name__ == name
    generator = current if usable else np.random.Generator(getattr(np.random, name)())
    generator.bit_generator.state = state
    return generator
