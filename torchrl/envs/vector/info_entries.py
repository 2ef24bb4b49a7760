"""Entries of a vector environment's ``info`` that are observed, as batches. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.simulators.observing import as_bits, holds_bits
from torchrl.envs.simulators.offsets import count_from_zero
from torchrl.errors import ConfigError, EnvError, explain

WHO = "GymVectorEnv, info_keys"


class InfoEntries:
    """Put chosen entries of ``info`` beside the observations of a vector environment, for all rows at once.

    It does for a batch what :class:`~torchrl.envs.simulators.InfoKeys` does for one simulator. Beside the array of an
    entry ``name``, an ``info`` may hold under ``_name`` the mask of the rows that have it, as gymnasium's do; without a
    mask all rows have it.

    >>> from gymnasium import spaces
    >>> lives = InfoEntries(spaces.Box(0, 1, (2,)), {"lives": spaces.Discrete(6)})
    >>> lives.read({"lives": np.array([5, 3], np.int32)}, np.array([True, True]))["lives"]
    array([5, 3])

    Args:
        observation_space: of one row, without the entries.
        keys: the space of each entry, by its name; a ``Dict`` space for one that is a dict itself.
        defaults: what is observed where a row lacks an entry, by name; a value of its space.

    Attributes:
        space: of one row, with the entries.

    Raises:
        ConfigError: a name is taken by an observation, a default has no key or does not lie in its space.
    """

    def __init__(
        self, observation_space: Space, keys: Mapping[str, Space], *, defaults: Mapping[str, Any] | None = None
    ) -> None:
        is_dict = isinstance(observation_space, spaces.Dict)
        own = dict(observation_space.items()) if is_dict else {"observation": observation_space}
        if taken := sorted(own.keys() & keys.keys()):
            raise ConfigError(explain(WHO, expected=f"names other than {sorted(own)}", got=taken[0]))
        self._is_dict = is_dict
        self._defaults = dict(defaults or {})
        for key, value in self._defaults.items():
            if key not in keys:
                raise ConfigError(explain(WHO, expected=f"info_defaults for {sorted(keys)}", got=repr(key)))
            value = np.asarray(value, keys[key].dtype) if isinstance(keys[key], spaces.Box) else value
            if not keys[key].contains(value):
                got = repr(value)
                raise ConfigError(explain(f"{WHO}, default of {key!r}", expected=f"a value in {keys[key]}", got=got))
        self._keys = dict(keys)
        presented = {key: count_from_zero(space) for key, space in keys.items()}
        self._moves = {key: outward for key, (_, _, outward) in presented.items() if outward is not None}
        self.space = spaces.Dict([*own.items(), *((key, space) for key, (space, _, _) in presented.items())])

    def beside(self, observation: Any, entries: dict) -> dict:
        """Return one observation with the entries beside it, of one row or of a batch."""
        return {**observation, **entries} if self._is_dict else {"observation": observation, **entries}

    def read(self, info: Mapping, rows: np.ndarray) -> dict:
        """Return the entries of all rows, arrays ``[num_envs, ...]``; zeros in rows that lack them and need none.

        Args:
            info: of a step or reset of the vector environment.
            rows: bool ``[num_envs]``, the rows whose entries must be there, or have a default.

        Raises:
            EnvError: one of them is not.
        """
        entries = {
            key: self._column(key, space, info, rows, self._defaults.get(key)) for key, space in self._keys.items()
        }
        return {key: self._moves[key](entry) if key in self._moves else entry for key, entry in entries.items()}

    def row(self, entries: dict, index: int) -> dict:
        """Return one row of what :meth:`read` returned."""
        return {key: self.row(part, index) if isinstance(part, dict) else part[index] for key, part in entries.items()}

    def _column(self, key: str, space: Space, info: Mapping, rows: np.ndarray, default: Any) -> Any:
        values = info.get(key)
        if isinstance(space, spaces.Dict):
            inner = values if isinstance(values, Mapping) else {}
            return {
                part: self._column(part, below, inner, rows, None if default is None else default[part])
                for part, below in space.items()
            }
        has = np.zeros(len(rows), bool) if values is None else np.asarray(info.get(f"_{key}", np.ones(len(rows), bool)))
        lacking = rows & ~has
        if lacking.any() and default is None:
            hint = f"Say what is observed then: info_defaults={{{key!r}: ...}}."
            got = f"the keys {sorted(info)} in row {int(np.flatnonzero(lacking)[0])}"
            raise EnvError(explain(WHO, expected=f"an info with {key!r}", got=got, hint=hint))
        shape, there = space.shape or (), rows & has
        given = self._fitting(key, space, [values[index] for index in np.flatnonzero(there)]) if there.any() else None
        fits = given is None or np.can_cast(given.dtype, space.dtype)  # what does not is looked at number by number
        column = np.zeros((len(rows), *shape), space.dtype if fits else given.dtype)
        if given is not None:
            column[there] = given
        if lacking.any():
            column[lacking] = default
        return column

    def _fitting(self, key: str, space: Space, values: list) -> np.ndarray:
        """Return some rows' values as one array of the space's shape and a dtype that it takes."""
        try:
            array = np.asarray(values)
        except ValueError:  # of different shapes
            array = np.empty(0, object)
        array = as_bits(array, space.dtype) if holds_bits(space) else array
        shape = (len(values), *(space.shape or ()))
        if array.shape != shape or not np.can_cast(array.dtype, space.dtype, "same_kind"):
            expected = f"values of {space}"
            got = f"{key!r} of shape {list(array.shape[1:])} and dtype {array.dtype}"
            raise EnvError(explain(WHO, expected=expected, got=got))
        return array
