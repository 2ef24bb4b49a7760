"""Allocate and copy numpy batches of actions, nested like their space, and split a batch into one value per row.

A batch holds an array ``[num_envs, ...]`` at each leaf of the dicts and tuples of its space.
Imports no torch: worker processes use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.simulators.base import Observation
from torchrl.envs.vector.buffers import Tree, border_dtype

Actions = np.ndarray | dict[str, "Actions"] | tuple["Actions", ...]


def action_dtype(space: Space) -> np.dtype:
    """Return the dtype for a leaf of an action batch: that of the spec if the space accepts it, else the space's."""
    dtype = border_dtype(space)
    return dtype if np.can_cast(dtype, space.dtype) else space.dtype


def allocate_actions(space: Space, num_envs: int, make: Callable = np.zeros) -> Any:
    """Allocate a batch of actions, nested like their space: an array ``[num_envs, ...]`` at each leaf."""
    if isinstance(space, spaces.Dict):
        return {key: allocate_actions(part, num_envs, make) for key, part in space.spaces.items()}
    if isinstance(space, (spaces.Tuple, spaces.OneOf)):
        parts = tuple([allocate_actions(part, num_envs, make) for part in space.spaces])
        return parts if isinstance(space, spaces.Tuple) else (make((num_envs,), np.int64), parts)
    return make((num_envs, *space.shape), action_dtype(space))


def copy_actions(target: Any, source: Any) -> None:
    """Copy a batch of actions into an allocated batch of the same nesting and shapes."""
    if isinstance(target, dict):
        for key, value in target.items():
            copy_actions(value, source[key])
    elif isinstance(target, tuple):
        for mine, value in zip(target, source, strict=True):
            copy_actions(mine, value)
    else:
        np.copyto(target, source, casting="safe")


def rows_of(form: Any, rows: slice) -> Any:
    """Return views of the given rows of all arrays in a tree of buffers, or in a batch of actions."""
    if isinstance(form, dict):
        return {key: rows_of(value, rows) for key, value in form.items()}
    if isinstance(form, tuple):
        return tuple([rows_of(value, rows) for value in form])
    return form[rows]


def observation_in(space: Space, tree: Tree | np.ndarray, index: int) -> Observation:
    """Return a copy of one row's observation in the buffers, nested like its simulator's space."""
    if isinstance(space, spaces.Dict):
        return {key: observation_in(part, tree[str(key)], index) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple([observation_in(part, tree[str(position)], index) for position, part in enumerate(space)])
    return tree[index].copy()


def splitter(space: Space) -> Callable[[Actions], Iterable]:
    """Return a function that splits a batch of a space's values into one value per row.

    A dict of arrays becomes a dict per row, a tuple of arrays a tuple; of a ``OneOf`` each row gets its chosen part.
    """
    if isinstance(space, spaces.Dict):
        return partial(_dicts, {key: splitter(part) for key, part in space.items()})
    if isinstance(space, spaces.Tuple):
        return partial(_tuples, [splitter(part) for part in space.spaces])
    if isinstance(space, spaces.OneOf):
        return partial(_choices, [splitter(part) for part in space.spaces])
    return _arrays if isinstance(space, spaces.Box) and not space.shape else iter


def _arrays(batch: np.ndarray) -> list[np.ndarray]:
    return [batch[index, ...] for index in range(len(batch))]  # without dimensions, but no numbers


def _dicts(parts: dict[str, Callable], batch: dict) -> list[dict]:
    columns = [split(batch[key]) for key, split in parts.items()]
    return [dict(zip(parts, row, strict=True)) for row in zip(*columns, strict=True)]


def _tuples(parts: list[Callable], batch: tuple) -> Iterable[tuple]:
    return zip(*[split(column) for split, column in zip(parts, batch, strict=True)], strict=True)


def _choices(parts: list[Callable], batch: tuple) -> list[tuple]:
    index, values = batch
    rows = _tuples(parts, values)
    return [(choice, row[choice]) for choice, row in zip(index, rows, strict=True)]
