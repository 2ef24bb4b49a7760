"""Spaces of gymnasium for the specs of a dm_env, and values between the two. Imports neither dm_env nor torch.

What differs from ``conversions``, which converts specs alone: scalars become arrays of one entry, observed choices
arrays of choices, actions of floats single precision, and text is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from torchrl.envs.simulators.base import Action, Observation
from torchrl.errors import EnvError, explain

LONGEST = 2**16  # letters of a text, of which dm_env says nothing
MOST_CHOICES = 2**16  # a whole number with more values than that is a number, not a choice
NO_BOUND = 1e10  # MuJoCo's mjMAXVAL: dm_control writes it as the bound of an actuator that has none


def observation_space(spec: Any) -> spaces.Space:
    """Return the space of the observations that a nest of specs describes.

    Raises:
        EnvError: something in it is no spec of an array.
    """
    return _nest(spec, "observation", _observed)


def action_space(spec: Any) -> spaces.Space:
    """Return the space of the actions that a nest of specs describes; bounds of ±1e10 or beyond are none.

    A vector of integers from 0 to a bound is one of choices.

    Raises:
        EnvError: something in it is no spec of an array.
    """
    return _nest(spec, "action", _acted)


def as_observation(value: Any) -> Observation:
    """Copy every leaf of an observation, since tasks may return views of the physics; a scalar becomes ``[1]``.

    A tuple whose parts have names becomes a dict of these, as its spec is one.
    """
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: as_observation(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(as_observation(part) for part in value)
    return np.array(value, ndmin=1)


def as_specified(spec: Any, action: Action) -> Any:
    """Return an action with the nesting and the shapes of its specs."""
    if isinstance(spec, Mapping):
        return {key: as_specified(part, action[key]) for key, part in spec.items()}
    if isinstance(spec, (list, tuple)):
        return [as_specified(part, one) for part, one in zip(spec, action, strict=True)]
    array = np.reshape(action, spec.shape)
    return array if array.dtype.kind == "f" else array.astype(spec.dtype)


def _nest(spec: Any, path: str, leaf: Callable[[Any, str], spaces.Space]) -> spaces.Space:
    if isinstance(spec, Mapping):  # pairs keep the task's order, a dict would be sorted
        return spaces.Dict([(key, _nest(part, f"{path}.{key}", leaf)) for key, part in spec.items()])
    if isinstance(spec, (list, tuple)):
        return spaces.Tuple([_nest(part, f"{path}[{at}]", leaf) for at, part in enumerate(spec)])
    if not hasattr(spec, "dtype") or not hasattr(spec, "shape"):
        hint = "Describe it in a wrapper of the environment."
        expected = "specs of arrays, or dicts or lists of such"
        got = f"{spec!r} for {path}" if isinstance(spec, int) else f"a {type(spec).__name__} for {path}"
        raise EnvError(explain("DMControlSimulator", expected=expected, got=got, hint=hint))
    return leaf(spec, path)


def _observed(spec: Any, path: str) -> spaces.Space:
    if hasattr(spec, "num_values"):
        return spaces.MultiDiscrete([spec.num_values])
    dtype = np.dtype(spec.dtype)
    return spaces.Text(LONGEST) if dtype.kind in "OSU" else _box(spec, dtype, path)


def _acted(spec: Any, path: str) -> spaces.Space:
    if hasattr(spec, "num_values"):
        return spaces.Discrete(int(spec.num_values))
    dtype = np.dtype(spec.dtype)
    is_vector = dtype.kind in "iu" and spec.shape and hasattr(spec, "maximum")
    if is_vector and not np.any(spec.minimum) and np.all(spec.maximum < MOST_CHOICES):
        return spaces.MultiDiscrete(np.broadcast_to(spec.maximum, spec.shape).astype(np.int64) + 1)
    box = _box(spec, np.dtype(np.float32) if dtype.kind == "f" else dtype, path)  # in single precision
    if dtype.kind != "f":
        return box
    low, high = np.where(box.low > -NO_BOUND, box.low, -np.inf), np.where(box.high < NO_BOUND, box.high, np.inf)
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))


def _box(spec: Any, dtype: np.dtype, path: str) -> spaces.Box:
    if dtype.kind not in "biuf":
        raise EnvError(explain("DMControlSimulator", expected="numbers", got=f"dtype {dtype} for {path}"))
    if dtype.kind == "b":
        low, high, dtype = 0, 1, np.dtype(np.uint8)
    elif dtype.kind == "f":
        low, high = -np.inf, np.inf
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    shape = spec.shape or (1,)
    bounds = (getattr(spec, "minimum", low), getattr(spec, "maximum", high))
    return spaces.Box(*(np.broadcast_to(bound, shape).astype(dtype) for bound in bounds), dtype=dtype)
