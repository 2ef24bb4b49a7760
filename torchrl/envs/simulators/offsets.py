"""Shift spaces whose choices start at another number than 0 to start at 0, and convert their values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Space, spaces

Move = Callable[[Any], Any]


def count_from_zero(space: Space) -> tuple[Space, Move | None, Move | None]:
    """Return a space shifted so that all its choices start at 0, and functions that convert values to and from the old.

    The two functions work on one value and on a batch alike, arrays with a leading dimension at each leaf.

    Returns:
        The shifted space, a function from its values to values of ``space``, and the inverse function; None for both
        functions if nothing changes.
    """
    if isinstance(space, spaces.Discrete) and space.start != 0:
        return spaces.Discrete(int(space.n)), *_shifts(space)
    if isinstance(space, spaces.MultiDiscrete) and np.any(space.start):
        return spaces.MultiDiscrete(space.nvec.astype(np.int64)), *_shifts(space)
    if isinstance(space, spaces.Dict):
        parts = {key: count_from_zero(part) for key, part in space.items()}
        presented = spaces.Dict([(key, part) for key, (part, _, _) in parts.items()])  # pairs keep their order
        inward, outward = ({key: part[at] for key, part in parts.items()} for at in (1, 2))
        translate = _in_dict
    elif isinstance(space, (spaces.Tuple, spaces.OneOf)):
        parts = [count_from_zero(part) for part in space.spaces]
        presented = type(space)([part for part, _, _ in parts])
        inward, outward = ([part[at] for part in parts] for at in (1, 2))
        translate = _in_tuple if isinstance(space, spaces.Tuple) else _in_choice
    else:
        return space, None, None
    moves = inward.values() if isinstance(inward, dict) else inward
    if all(move is None for move in moves):
        return space, None, None
    return presented, partial(translate, inward), partial(translate, outward)


def _shifts(space: spaces.Discrete | spaces.MultiDiscrete) -> tuple[Move, Move]:
    start = np.asarray(space.start, np.int64)

    def inward(value: Any) -> Any:
        return np.add(value, start, dtype=np.int64).astype(space.dtype)

    def outward(value: Any) -> Any:
        return np.subtract(value, start, dtype=np.int64)

    return inward, outward


def _in_dict(moves: dict[str, Move | None], value: dict) -> dict:
    return {key: part if moves.get(key) is None else moves[key](part) for key, part in value.items()}


def _in_tuple(moves: list[Move | None], value: tuple) -> tuple:
    return tuple([part if move is None else move(part) for move, part in zip(moves, value, strict=True)])


def _in_choice(moves: list[Move | None], value: tuple) -> tuple:
    choice, part = value
    move = moves[choice]
    return choice, part if move is None else move(part)
