"""Decide, by the spaces in Minari's ``metadata.json``, which entries to read and how to convert them. Reads no file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchrl.data.offline.minari_formats import Format
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.extras import require
from torchrl.keys import Key

Space = dict[str, Any]  # as metadata.json describes it
RESERVED = (
    ("action", "next", "collector", "is_init", "reward", "terminated", "truncated", "done", "replay")
    + ("episode_return", "episode_length", "env_info")
)  # fmt: skip
# As at the border of environments: double precision becomes single, integers that torch hardly supports become wider.
_DTYPES = {"float64": "float32", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
NUMBERS = ("bool", "float16", "float32", "float64", "uint8", "uint16", "uint32", "uint64")
NUMBERS += ("int8", "int16", "int32", "int64")
NESTS, CHOICES = ("Dict", "Tuple"), ("Discrete", "MultiDiscrete", "MultiBinary")


@dataclass(frozen=True)
class Choice:
    """Hold a user's choice of observations of a Minari dataset: which to read, and under which names.

    Attributes:
        leave_out: names of observations not to read, ``"arm/name"`` for one inside another.
        rename: new names of observations on the top level.
        info_keys: paths of infos that are read as observations.
    """

    leave_out: set[str]
    rename: dict[str, str]
    info_keys: list[tuple[str, ...]]

    def select(self, space: Space) -> Space:
        """Return the observation space without the entries left out; refuse names that are unknown or taken.

        Raises:
            ConfigError: nothing would be left, or a renamed observation is unknown.
            SpecError: a name is taken, by another entry or by batches themselves.
        """
        if space["type"] not in NESTS:
            left = _without({"type": "Dict", "subspaces": {"observation": space}}, self.leave_out)
            names = list(parts_of(left))
        else:
            space = _without(space, self.leave_out)
            names = list(parts_of(space))
        if not names:
            raise ConfigError(explain("read_minari", expected="an observation that is not left out", got="none"))
        unknown = sorted(self.rename.keys() - set(names))
        if unknown:
            expected = f"rename to name some of the observations {names}"
            raise ConfigError(explain("read_minari", expected=expected, got=unknown))
        new = [self.rename.get(name, name) for name in names] + sorted({path[0] for path in self.info_keys})
        taken = sorted({name for name in new if name in RESERVED or new.count(name) > 1})
        if taken:
            hint = f'read_minari(..., rename={{"{taken[0]}": "observed_{taken[0]}"}}) gives another name.'
            expected = "observations with names of their own"
            raise SpecError(explain("read_minari", expected=expected, got=taken, hint=hint))
        return space

    def rename_parts(self, space: Space) -> Space:
        """Return the space of observations under their new names."""
        if not self.rename:
            return space
        parts = parts_of(space) if space["type"] in NESTS else {"observation": space}
        return {"type": "Dict", "subspaces": {self.rename.get(name, name): part for name, part in parts.items()}}


def name_path(key: Key) -> tuple[str, ...]:
    """Turn a key that a user gave into a path, a tuple of names.

    Raises:
        ConfigError: the key is neither a name nor a tuple of names.
    """
    path = (key,) if isinstance(key, str) else key
    if not isinstance(path, tuple) or not path or not all(isinstance(name, str) for name in path):
        raise ConfigError(explain("read_minari", expected="names, or tuples of them", got=repr(key)))
    return path


def parse_space(described: str | Space) -> Space:
    """Return the description of a space as a dict; ``metadata.json`` holds it as JSON text."""
    return json.loads(described) if isinstance(described, str) else described


def space_of(source: Format, node: Any) -> Space:
    """Make the description of a space from the names of entries, where ``metadata.json`` has none."""
    names = source.names(node)
    if names is None:
        return {"type": None}
    return {"type": "Dict", "subspaces": {name: space_of(source, source.child(node, name)) for name in names}}


def parts_of(space: Space) -> dict[str, Space]:
    """Return the sub-spaces of a Dict or Tuple space by their names."""
    parts = space["subspaces"]
    return parts if space["type"] == "Dict" else {str(at): part for at, part in enumerate(parts)}


def _without(space: Space, gone: set[str]) -> Space:
    """Return a space without some of its entries, and without levels that become empty."""
    known: set[str] = set()
    left = _pruned(space, gone, (), known)
    unknown = sorted(gone - known)
    if unknown:
        expected = f"leave_out to name some of the observations {sorted(known)}"
        raise ConfigError(explain("read_minari", expected=expected, got=unknown))
    return left


def _pruned(space: Space, gone: set[str], path: tuple[str, ...], known: set[str]) -> Space:
    if space["type"] not in NESTS:
        return space
    parts, left = parts_of(space), {}
    for key, part in parts.items():
        name = "/".join((*path, key))
        known.add(name)
        part = _pruned(part, gone, (*path, key), known)
        if name not in gone and (part["type"] not in NESTS or parts_of(part)):
            left[key] = part
    if space["type"] == "Tuple" and len(left) == len(parts):
        return {"type": "Tuple", "subspaces": list(left.values())}
    return {"type": "Dict", "subspaces": left}


def as_gymnasium(space: Space) -> Any:
    """Return the gymnasium space that Minari makes of a description."""
    serialization = require("minari.serialization", extra="minari", purpose="the spaces of read_minari")
    return serialization.deserialize_space(space)


def fit_numbers(who: str, array: np.ndarray, space: Space) -> np.ndarray:
    """Convert an array to the shape and dtype of its space; refuse values that would change by more than rounding.

    Raises:
        SpecError: steps of another shape, choices outside the space, or numbers that the dtype cannot hold.
    """
    kind, dtype = space["type"], np.dtype(array.dtype.name)
    if kind is not None:
        shape = _shape_of(space)
        if array[0:1].size != np.prod(shape, dtype=int) * len(array[0:1]):
            got = list(array.shape[1:])
            raise SpecError(explain(who, expected=f"rows of shape {list(shape)}, as its space says", got=got))
        array = array.reshape(len(array), *shape)
        dtype = np.dtype({"Box": space.get("dtype"), "MultiBinary": "int8"}.get(kind, "int64"))
    if kind in CHOICES:
        array = _counted_from_0(who, array, space)
    dtype = np.dtype(_DTYPES.get(dtype.name, dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype, copy=False)
    # Floats round, and may be infinite or NaN; whatever else comes out different is lost.
    is_kept = np.isfinite(converted) | ~np.isfinite(array) if dtype.kind == "f" else converted == array
    if not is_kept.all():
        got = array[~is_kept][0]
        raise SpecError(explain(who, expected=f"numbers that {dtype} can hold", got=got))
    return converted


def _shape_of(space: Space) -> tuple[int, ...]:
    if space["type"] == "Box":
        return tuple(space["shape"])
    if space["type"] == "MultiDiscrete":
        return np.shape(space["nvec"])
    if space["type"] == "MultiBinary":
        return tuple(np.atleast_1d(space["n"]).tolist())
    return ()


def _counted_from_0(who: str, array: np.ndarray, space: Space) -> np.ndarray:
    start = np.asarray(space.get("start", 0), np.int64)
    num = np.asarray({"Discrete": space.get("n"), "MultiDiscrete": space.get("nvec")}.get(space["type"], 2), np.int64)
    is_choice = (array >= start) & (array < start + num) & (array == np.floor(array))
    if not is_choice.all():
        expected = f"choices of a {space['type']}, {num.tolist()} of them from {start.tolist()} on"
        raise SpecError(explain(who, expected=expected, got=array[~is_choice][0]))
    return array.astype(np.int64) - start
