"""Remove named entries, such as text, from observation spaces and from their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gymnasium import Space, spaces

from torchrl.errors import ConfigError, explain, nearest
from torchrl.keys import key_name

Name = str | tuple[str, ...]


def without_entries(who: str, space: Space, names: Sequence[Name]) -> tuple[Space, Callable[[Any], Any]]:
    """Return an observation space without the named entries, and the function that drops them from its values.

    The function works on one value and on a batch alike. A tuple becomes a dict of the entries that stay, under
    ``"0"``, ``"1"``, …, their positions in the tuple.

    Args:
        who: for messages.
        space: an observation space.
        names: of the entries, ``"mission"``; of one inside another ``"goal/text"`` or ``("goal", "text")``. The name of
            a Dict or Tuple removes all its entries.

    Returns:
        The space that is left, and a function from values of ``space`` to values of that space.

    Raises:
        ConfigError: there is no such entry, or no entry would stay.
    """
    if isinstance(names, str):
        raise ConfigError(explain(who, expected="a list of names", got=repr(names), hint=f"Write [{names!r}]."))
    gone = {key_name(name) for name in names}
    known: set[str] = set()
    left = _without(space, gone, (), known)
    for name in sorted(gone - known):
        near = nearest(name, known)
        hint = f"Did you mean {near!r}?" if near else ""
        raise ConfigError(explain(who, expected=f"entries of {sorted(known)}", got=repr(name), hint=hint))
    if left is None:
        raise ConfigError(explain(who, expected="something that stays", got=f"all left out of {sorted(known)}"))
    return left


def _without(
    space: Space, gone: set[str], path: tuple[str, ...], known: set[str]
) -> tuple[Space, Callable[[Any], Any]] | None:
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return space, _same
    parts, moves = [], {}
    for key, part in space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces):
        name = "/".join((*path, str(key)))
        known.add(name)
        left = _without(part, gone, (*path, str(key)), known)
        if left is not None and name not in gone:
            parts.append((str(key), left[0]))
            moves[str(key)] = key, left[1]
    if not parts:
        return None
    if isinstance(space, spaces.Tuple) and len(parts) == len(space.spaces):  # whole: what it holds may have changed
        return spaces.Tuple([part for _, part in parts]), partial(_in_tuple, [move for _, move in moves.values()])
    return spaces.Dict(parts), partial(_in_dict, moves)  # pairs keep their order


def _same(value: Any) -> Any:
    return value


def _in_dict(moves: dict[str, tuple[str | int, Callable]], value: Any) -> dict:
    return {name: move(value[key]) for name, (key, move) in moves.items()}


def _in_tuple(moves: list[Callable], value: tuple) -> tuple:
    return tuple([move(part) for move, part in zip(moves, value, strict=True)])
