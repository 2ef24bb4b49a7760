"""The numpy memory of an env over simulators: one outcome and two roots, and the code that writes values into them.

Imports no torch, so that a worker process may use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from torchrl.errors import EnvError, SpecError, explain

SAME = "same_kind"  # casts between precisions, not between kinds
Tree = dict  # nested dict of numpy arrays, one per key, each of shape [num_envs, ...]


@dataclass
class StepBuffers:
    """Hold the arrays that a worker writes: one step's outcome, and two roots in turn, so that the last stays valid.

    Attributes:
        roots: two trees with the observation keys, ``is_init``, ``episode_return`` and ``episode_length``.
        next: the tree of the step's outcome: observation keys, ``reward``, the flags, and the same statistics.
    """

    roots: tuple[Tree, Tree]
    next: Tree


def allocate(observation_space: Space, num_envs: int, make: Callable = np.zeros) -> StepBuffers:
    """Allocate a worker's buffers for ``num_envs`` rows; ``make(shape, dtype)`` makes each array."""

    def statistics() -> Tree:
        return {
            "episode_return": make((num_envs, 1), np.float32),
            "episode_length": make((num_envs, 1), np.int64),
        }

    def root() -> Tree:
        is_init = {"is_init": make((num_envs, 1), np.bool_)}
        return {**allocate_observations(observation_space, num_envs, make), **is_init, **statistics()}

    flags = {name: make((num_envs, 1), np.bool_) for name in ("terminated", "truncated", "done")}
    observations = allocate_observations(observation_space, num_envs, make)
    outcome = {**observations, "reward": make((num_envs, 1), np.float32), **flags, **statistics()}
    return StepBuffers(roots=(root(), root()), next=outcome)


def allocate_observations(observation_space: Space, num_envs: int, make: Callable = np.zeros) -> Tree:
    """Make one array per observation key, ``[num_envs, ...]``."""
    tree: Tree = {}
    for path, _, space in observation_leaves(observation_space):
        *folders, name = path
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = make((num_envs, *space.shape), border_dtype(space))
    return tree


class ObservationLeaf(NamedTuple):
    """Describe one leaf of an observation: its key in a TensorDict, its path in a simulator's observation, its space.

    Attributes:
        path: its key in a TensorDict, ``("observation",)`` for a space that is neither a Dict nor a Tuple.
        keys: the path to it in the simulator's observation: names of dict entries, positions in tuples.
        space: of its values.
    """

    path: tuple[str, ...]
    keys: tuple[str | int, ...]
    space: Space


def observation_leaves(space: Space) -> list[ObservationLeaf]:
    """List the leaves of an observation space; the entries of a Tuple are called ``"0"``, ``"1"``, ….

    Raises:
        SpecError: a OneOf, whose values do not have one shape.
    """
    leaves = _leaves_below(space, (), ())
    return [leaf if leaf.path else leaf._replace(path=("observation",)) for leaf in leaves]


def _leaves_below(space: Space, path: tuple[str, ...], keys: tuple[str | int, ...]) -> list[ObservationLeaf]:
    if isinstance(space, spaces.OneOf):
        hint = "Wrap the simulator so that it always observes every part, in a Dict or a Tuple."
        raise SpecError(explain("observation", expected="a space whose values have one shape", got=space, hint=hint))
    if isinstance(space, spaces.Dict):
        children = list(space.items())
    elif isinstance(space, spaces.Tuple):
        children = list(enumerate(space))
    else:
        return [ObservationLeaf(path, keys, space)]
    return [leaf for key, child in children for leaf in _leaves_below(child, (*path, str(key)), (*keys, key))]


def border_dtype(space: Space) -> np.dtype:
    """Return the numpy dtype of the spec of a leaf space, such as float32 for float64; see ``conversions``."""
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return np.dtype(np.int64)
    return np.dtype({"float64": "float32", "uint16": "int32", "uint32": "int64"}.get(space.dtype.name, space.dtype))


class Leaf:
    """Write simulators' values of one observation leaf into its array of the buffers, after checking shape and dtype.

    Args:
        tree: the buffers, see :func:`allocate`.
        leaf: which leaf.
        row_name: names a row in messages.
    """

    def __init__(self, tree: Tree, leaf: ObservationLeaf, row_name: Callable[[int], str]) -> None:
        self.path = leaf.path
        self.array = at(tree, leaf.path)
        self._keys = leaf.keys
        self._row_name = row_name
        rows = self.array.shape
        self._joined = self.array.reshape(rows[0] * rows[1], *rows[2:]) if self.array.ndim > 1 else None
        is_narrow = self.array.dtype.kind in "iu" and self.array.itemsize < 8
        self._casting = "safe" if is_narrow else SAME  # what does not fit is looked at number by number
        self._may_overflow = None if self.array.dtype.kind == "f" else False  # as the first step shows

    def write(self, observations: Sequence) -> None:
        """Write every row's value, given one observation per row; refuse wrong shapes and dtypes."""
        values = observations
        try:
            for key in self._keys:
                values = tuple([value[key] for value in values])
            if self._may_overflow is None:
                self._may_overflow = any(np.asarray(value).itemsize > self.array.itemsize for value in values)
            if self._joined is None:
                np.copyto(self.array, values, casting=self._casting)
            else:
                np.concatenate(values, out=self._joined, casting=self._casting)
            is_written = not self._may_overflow or math.isfinite(np.add.reduce(self.array, None))
        except (ValueError, TypeError, LookupError, RuntimeWarning):  # the last: an overflow, where warnings raise
            is_written = False
        if not is_written:  # look at each
            for index, observation in enumerate(observations):
                self.write_one(index, observation)

    def write_one(self, index: int, observation: object) -> None:
        """Write one row's value, given its observation; refuse a wrong shape or dtype."""
        value = self._value_in(observation, index)
        self._require_fit(value, index)
        self.array[index] = value

    def write_batch(self, observations: Any) -> None:
        """Write all rows' values, given a batch of observations: an array ``[num_envs, ...]`` at each leaf."""
        np.copyto(self.array, self._batch_in(observations), casting=SAME)

    def write_rows(self, rows: np.ndarray, observations: Any) -> bool:
        """Write some rows' values, ``rows`` bool ``[num_envs]``, given a batch of all rows.

        Returns:
            Whether the batch's other rows equal what the buffers hold.
        """
        values = self._batch_in(observations)
        self.array[rows] = values[rows]
        return np.array_equal(self.array, values.astype(self.array.dtype, copy=False))

    def write_part(self, indices: np.ndarray, observations: Any) -> None:
        """Write some rows' values, ``indices`` ``[n]``, given a batch of only these rows, ``[n, ...]``."""
        self.array[indices] = self._batch_in(observations, len(indices))

    def source_in(self, observations: Any) -> np.ndarray:
        """Return this leaf's array in a batch of all rows, after checking its shape and dtype."""
        return self._batch_in(observations)

    def copy_rows(self, indices: np.ndarray, observations: Any) -> None:
        """Write the rows ``indices``, ``[n]``, given a batch of all rows."""
        self.array[indices] = self._batch_in(observations)[indices]

    def differs(self, observations: Any) -> np.ndarray:
        """Tell for each row whether a batch of all rows has other values than the buffers, bool ``[num_envs]``."""
        values = self._batch_in(observations).astype(self.array.dtype, copy=False)
        unequal = (values != self.array) & ((values == values) | (self.array == self.array))  # NaN is like NaN
        return unequal.reshape(len(unequal), -1).any(axis=1)

    def _batch_in(self, observations: Any, num_rows: int | None = None) -> np.ndarray:
        """Return this leaf's array in a batch; refuse one that an assignment would broadcast or truncate."""
        try:
            for key in self._keys:
                observations = observations[key]
            came = (observations.shape, observations.dtype)
        except (LookupError, AttributeError, TypeError) as error:
            expected = f"an array at the key {'/'.join(self.path)!r}"
            got = f"{type(error).__name__}: {error}"
            raise SpecError(explain("a batch of observations", expected=expected, got=got)) from error
        shape = self.array.shape if num_rows is None else (num_rows, *self.array.shape[1:])
        if not isinstance(came[1], np.dtype):
            expected, got = f"an array of numpy at the key {'/'.join(self.path)!r}", f"a {type(observations).__name__}"
            hint = "Worlds in torch derive from TorchEnv: their tensors stay where they are."
            is_tensor = type(observations).__module__.split(".")[0] == "torch"
            raise SpecError(explain("a batch of observations", expected=expected, got=got, hint=hint * is_tensor))
        if came[0] != shape or not np.can_cast(came[1], self.array.dtype, SAME):
            raise SpecError(
                explain(
                    f"a batch of observations, {'/'.join(self.path)!r}",
                    expected=f"shape {list(shape)} and dtype {self.array.dtype} (single_observation_space)",
                    got=f"shape {list(came[0])} and dtype {came[1]}",
                )
            )
        self._require_range(observations, "a batch of observations")
        return observations

    def _require_range(self, value: np.ndarray, who: str) -> None:
        """Refuse numbers that the buffer's dtype cannot hold: integers would wrap around, floats become infinite."""
        if np.can_cast(value.dtype, self.array.dtype, "safe"):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            cast = value.astype(self.array.dtype)
        lost = np.isinf(cast) & ~np.isinf(value) if cast.dtype.kind == "f" else cast != value
        if lost.any():
            expected = f"numbers that {self.array.dtype} holds (the observation_space)"
            hint = "Give the space a wider dtype, or keep the numbers in its bounds."
            got = value[lost].flat[0]
            raise SpecError(explain(f"{who}, {'/'.join(self.path)!r}", expected=expected, got=got, hint=hint))

    def _value_in(self, observation: object, index: int) -> object:
        """Return this leaf's value in one row's observation, or raise an error if it is missing."""
        for key in self._keys:
            kind = (tuple, list) if isinstance(key, int) else Mapping
            found = isinstance(observation, kind) and (
                key < len(observation) if kind != Mapping else key in observation
            )
            if not found:
                expected, got = f"the key {'/'.join(self.path)!r}", _form(observation)
                raise EnvError(explain(f"observation of {self._row_name(index)}", expected=expected, got=got))
            observation = observation[key]
        return observation

    def _require_fit(self, value: object, index: int) -> None:
        value = np.asarray(value)
        expected = self.array.shape[1:]
        if value.shape != expected or not np.can_cast(value.dtype, self.array.dtype, SAME):
            raise SpecError(
                explain(
                    f"observation {'/'.join(self.path)!r} of {self._row_name(index)}",
                    expected=f"shape {list(expected)} and dtype {self.array.dtype} (the simulator's observation_space)",
                    got=f"shape {list(value.shape)} and dtype {value.dtype}",
                    hint="Make the simulator's observation_space say what reset and step return.",
                )
            )
        self._require_range(value, f"observation of {self._row_name(index)}")


def _form(observation: object) -> object:
    if isinstance(observation, Mapping):
        return sorted(observation)
    name = type(observation).__name__
    return f"{name} of {len(observation)}" if isinstance(observation, (tuple, list)) else name


def at(tree: Tree, path: Sequence[str]) -> np.ndarray:
    """Return the array of a tree at a path of keys."""
    for key in path:
        tree = tree[key]
    return tree


def copy_tree(tree: Tree) -> Tree:
    """Return a copy of a tree and its arrays."""
    return {key: copy_tree(value) if isinstance(value, dict) else value.copy() for key, value in tree.items()}


def copy_into(target: Tree, source: Tree) -> None:
    """Copy all arrays of one tree into those of another with the same keys and shapes."""
    for key, value in target.items():
        if isinstance(value, dict):
            copy_into(value, source[key])
        else:
            np.copyto(value, source[key])
