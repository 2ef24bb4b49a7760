"""Datasets of Minari, read episode by episode, whatever their format. Writes none, and never downloads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.data.offline.minari_formats import FILE, JPEG_START, TABLES, Format, decode_pictures, open_format
from torchrl.data.offline.minari_spaces import (
    CHOICES,
    NESTS,
    NUMBERS,
    Choice,
    Space,
    as_gymnasium,
    fit_numbers,
    name_path,
    parse_space,
    parts_of,
    space_of,
)
from torchrl.errors import ConfigError, SpecError, StorageError, explain
from torchrl.extras import require
from torchrl.functional.endings import is_done
from torchrl.keys import Key, key_name

NAMES = ("observations", "actions", "rewards", "terminations", "truncations")


class MinariEpisodes(Iterator[TensorDict]):
    """Iterate over the episodes of a Minari dataset; hold their spaces and metadata. Made by :func:`read_minari`.

    >>> import h5py
    >>> with h5py.File(getfixture("tmp_path") / "main_data.hdf5", "w") as file:  # as Minari writes it
    ...     flags = {"terminations": [False, True], "truncations": [False, False]}
    ...     steps = {"observations": [[0.0], [1.0], [2.0]], "actions": [1, 0], "rewards": [0.5, 1.5], **flags}
    ...     _ = [file.create_dataset(f"episode_0/{name}", data=value) for name, value in steps.items()]
    >>> episodes = read_minari(getfixture("tmp_path"))
    >>> episodes.numbers, episodes.metadata, [len(episode) for episode in episodes]
    ([0], {}, [2])

    Attributes:
        metadata: the content of the dataset's ``metadata.json``; empty for a file without one.
        numbers: the numbers of the episodes, in the order of reading.
    """

    def __init__(
        self, source: Format, metadata: dict[str, Any], numbers: list[int], choice: Choice, dataset: Any = None
    ) -> None:
        self.metadata = metadata
        self.numbers = numbers
        self._source = source
        self._choice = choice
        self._dataset = dataset
        observations, actions = (metadata.get(name) for name in ("observation_space", "action_space"))
        # Compared at once, so that wrong names are found at once.
        self._observations = None if observations is None else choice.select(parse_space(observations))
        self._actions = None if actions is None else parse_space(actions)
        self._episodes = self._read()

    def __next__(self) -> TensorDict:
        """Return the next episode, ``[T]``."""
        return next(self._episodes)

    @property
    def num_episodes(self) -> int:
        """Number of episodes that the whole iteration reads."""
        return len(self.numbers)

    @property
    def observation_space(self) -> Any:
        """The gymnasium space of the observations that are read: without those left out, under the new names.

        ``torchrl.envs.spec_from_space`` makes a spec of it. Entries of infos are in no space.

        Raises:
            StorageError: the dataset does not describe its spaces.
            MissingExtraError: Minari is not installed.
        """
        return as_gymnasium(self._choice.rename_parts(self._require("observation_space", self._observations)))

    @property
    def action_space(self) -> Any:
        """The gymnasium space of the actions; the action tensors count choices from 0, whatever the space's start.

        Raises:
            StorageError: the dataset does not describe its spaces.
            MissingExtraError: Minari is not installed.
        """
        return as_gymnasium(self._require("action_space", self._actions))

    def make_env(self, **kwargs: Any) -> Any:
        """Return a new gymnasium environment of the kind that the episodes come from, made by Minari.

        ``GymEnv(episodes.make_env())`` or ``SerialEnv(episodes.make_env, num_envs=8)`` make an :class:`Env` of it.

        Args:
            **kwargs: of ``MinariDataset.recover_environment``, for example ``eval_env=True``.

        Raises:
            StorageError: no ``metadata.json``.
            ValueError: it names no environment.
            MissingExtraError: no Minari.
        """
        if self._dataset is None:
            self._require("an environment", self.metadata or None)
            folder = self._source.path.parent if self._source.path.is_file() else self._source.path
            self._dataset = require("minari", extra="minari", purpose="make_env").MinariDataset(folder)
        return self._dataset.recover_environment(**kwargs)

    def episode_metadata(self, number: int) -> dict[str, Any]:
        """Return the metadata of an episode as plain Python values: ``seed`` and ``options`` of its reset, and more.

        Args:
            number: one of :attr:`numbers`.

        Raises:
            ConfigError: none of the episodes has this number.
        """
        if number not in self.numbers:
            raise ConfigError(explain("episode_metadata", expected="the number of an episode", got=number))
        return self._source.about(number)

    def __repr__(self) -> str:
        return f"MinariEpisodes({self.num_episodes} episodes of {self._source.path})"

    def _require(self, what: str, described: Any) -> Any:
        if described is None:
            expected = f"a metadata.json with {what} beside the steps"
            raise StorageError(explain(f"read_minari, {self._source.path}", expected=expected, got="none"))
        return described

    def _read(self) -> Iterator[TensorDict]:
        source, choice = self._source, self._choice
        for number, episode in source.episodes(self.numbers):
            who = f"read_minari, {source.path}, episode {number}"
            missing = [name for name in NAMES if name not in source.names(episode)]
            if missing:
                raise StorageError(explain(who, expected=", ".join(NAMES), got=f"no {', '.join(missing)}"))
            nodes = {name: source.child(episode, name) for name in NAMES}
            spaces = {name: space_of(source, node) for name, node in nodes.items()}
            spaces["observations"] = self._observations or choice.select(spaces["observations"])
            spaces["actions"] = self._actions or spaces["actions"]
            try:
                arrays = {name: _read(source, f"{who}, {name}", nodes[name], spaces[name]) for name in NAMES}
                infos = _read_infos(source, who, episode, choice.info_keys)
            except OSError as error:
                raise StorageError(explain(who, expected="data that can be read", got=str(error))) from error
            observations = arrays["observations"]
            observations = observations if isinstance(observations, dict) else {"observation": observations}
            renamed = {choice.rename.get(name, name): value for name, value in observations.items()}
            arrays["observations"] = renamed | infos
            yield _transitions(who, number, arrays)


def read_minari(
    source: str | os.PathLike | Any,
    *,
    leave_out: Sequence[Key] = (),
    rename: Mapping[str, str] | None = None,
    info_keys: Sequence[Key] = (),
) -> MinariEpisodes:
    """Return an iterator over the episodes of a Minari dataset, each a TensorDict ``[T]`` of transitions.

    An episode of T steps is a TensorDict ``[T]``: at t ``observation``, ``action`` and ``is_init``, under ``"next"``
    the observation of t+1, ``reward`` (float32 ``[T, 1]``), ``terminated``, ``truncated`` and ``done``, and under
    ``("collector", "traj_ids")`` the episode's number in the dataset. The entries of a ``Dict`` of observations lie at
    the root, as an environment of ours lays them; those of a ``Tuple`` have the keys ``"0"``, ``"1"``, …. Values are
    those of :func:`torchrl.envs.encode`: double precision becomes single, choices count from 0. Pictures are uint8; by
    default Minari compresses them as JPEG, so they differ slightly from what was observed. Infos are left out, except
    ``info_keys``.

    ``write_dataset(folder, read_minari(name))`` converts the dataset to our format; or add each episode to a replay
    buffer. The iterator also has the spaces, the environment and the metadata: :class:`MinariEpisodes`.

    >>> import h5py
    >>> with h5py.File(getfixture("tmp_path") / "main_data.hdf5", "w") as file:  # as Minari writes it
    ...     flags = {"terminations": [False, True], "truncations": [False, False]}
    ...     steps = {"observations": [[0.0], [1.0], [2.0]], "actions": [1, 0], "rewards": [0.5, 1.5], **flags}
    ...     _ = [file.create_dataset(f"episode_0/{name}", data=value) for name, value in steps.items()]
    >>> episode = next(read_minari(getfixture("tmp_path")))
    >>> episode["observation"].tolist(), episode["next", "observation"].tolist(), episode["next", "done"].tolist()
    ([[0.0], [1.0]], [[1.0], [2.0]], [[False], [True]])

    Args:
        source: a ``MinariDataset``, also a part of one (``filter_episodes``, ``split_dataset``); the name of a dataset
            that Minari has on this machine, for example ``"mujoco/halfcheetah/expert-v0"``; its folder; or a
            ``main_data.hdf5``. The formats arrow and parquet take pyarrow.
        leave_out: observations that are not read, as in ``GymEnv``: ``["mission"]`` for text, ``"arm/name"`` or
            ``("arm", "name")`` inside another.
        rename: new names of observations of a ``Dict``, for example ``{"reward": "last_reward"}`` where batches already
            use the name.
        info_keys: entries of the infos that are read as observations, for example ``["success"]``, as ``GymEnv`` does.

    Returns:
        The episodes, in the order of their numbers, or in that of the given ``MinariDataset``.

    Raises:
        StorageError: there is no such dataset, or its files are damaged; at once, or at the episode concerned.
        SpecError: an episode whose arrays do not fit each other or its spaces, or with entries that are no numbers.
        ConfigError: names that no observation has, or new names that are taken.
        MissingExtraError: h5py or pyarrow is not installed, or Minari is not and a name was given.
    """
    reader, metadata, dataset = _locate(source)
    numbers = reader.numbers() if dataset is None else [int(number) for number in dataset.episode_indices]
    if not numbers:
        expected = f'episodes, as groups "episode_0" … or folders "0" …, in {reader.path}'
        raise StorageError(explain("read_minari", expected=expected, got="none"))
    for name, keys in (("leave_out", leave_out), ("info_keys", info_keys)):
        if isinstance(keys, str):
            raise ConfigError(explain("read_minari", expected=f"a list of names as {name}", got=repr(keys)))
    gone = {key_name(name_path(key)) for key in leave_out}
    choice = Choice(gone, dict(rename or {}), [name_path(key) for key in info_keys])
    return MinariEpisodes(reader, metadata, numbers, choice, dataset)


# ---- where it lies ---------------------------------------------------------------------------------------------------


def _locate(source: Any) -> tuple[Format, dict[str, Any], Any]:
    """Find a dataset; return its reader, its ``metadata.json`` as a dict, and its ``MinariDataset`` or None."""
    dataset = source if hasattr(source, "episode_indices") and hasattr(source, "storage") else None
    if dataset is None:
        if not isinstance(source, (str, os.PathLike)):
            expected = "a path, the name of a dataset, or a MinariDataset"
            raise ConfigError(explain("read_minari", expected=expected, got=type(source).__name__))
        found = open_format(Path(source))
        if found is not None:
            return *found, None
        dataset = _load(source)
    folder = Path(dataset.storage.data_path)
    found = open_format(folder)
    if found is None:
        raise StorageError(explain("read_minari", expected=f"a dataset in {folder}", got="none"))
    return *found, dataset


def _load(name: str | os.PathLike) -> Any:
    path = Path(name)
    is_path = isinstance(name, os.PathLike) or path.is_absolute() or path.suffix in {".hdf5", ".h5"}
    if is_path or path.exists():
        got = "a folder without one" if path.is_dir() else "nothing"
        expected = f"a dataset at {path}: {FILE}, or metadata.json with the format {' or '.join(TABLES)}"
        raise StorageError(explain("read_minari", expected=expected, got=got))
    minari = require("minari", extra="minari", purpose=f"read_minari by the name {name!r}")
    try:
        return minari.load_dataset(name)
    except (OSError, ValueError) as error:
        hint = f'minari.download_dataset("{name}") fetches it; or give the path of its folder.'
        expected = f"a dataset {name!r} on this machine"
        raise StorageError(explain("read_minari", expected=expected, got=str(error), hint=hint)) from error


# ---- entries ---------------------------------------------------------------------------------------------------------


def _read(source: Format, who: str, node: Any, space: Space, path: tuple[str, ...] = ()) -> Tensor | dict:
    """Read the entry at a path as a tensor, or a group of entries as a dict of tensors."""
    if space["type"] in NESTS:
        parts = {}
        for name, part in parts_of(space).items():
            try:
                child = source.child(node, name)
            except (KeyError, AttributeError, TypeError):
                got = source.names(node) or "an array"
                raise SpecError(explain(who, expected=f"an entry {name!r}, as its space says", got=got)) from None
            parts[name] = _read(source, f"{who}/{name}", child, part, (*path, name))
        return parts
    if space["type"] not in (None, "Box", "Text", *CHOICES):
        raise SpecError(explain(who, expected="a space of numbers", got=space["type"]))
    if source.names(node) is not None:
        raise SpecError(explain(who, expected="an array, as its space says", got=f"a group of {source.names(node)}"))
    array = source.array(node)
    if _is_code(array, space):
        array = decode_pictures(who, array)
    if not array.ndim or array.dtype.name not in NUMBERS:
        got = f"{array.dtype} {list(array.shape)}"
        key = "/".join(path)
        hint = f"read_minari(..., leave_out=[{key!r}]) goes without." if key and ", observations/" in who else ""
        raise SpecError(explain(who, expected="an array of numbers, one row for each step", got=got, hint=hint))
    return torch.from_numpy(np.require(fit_numbers(who, array, space), requirements="W"))  # Arrow's memory is read-only


def _read_infos(source: Format, who: str, episode: Any, paths: Sequence[tuple[str, ...]]) -> dict:
    infos: dict = {}
    for path in paths:
        node = source.child(episode, "infos") if "infos" in source.names(episode) else None
        for at, name in enumerate(path):
            names = [] if node is None else source.names(node) or []
            if name not in names:
                where = "/".join(("infos", *path[:at]))
                raise ConfigError(explain(who, expected=f"info_keys to name some of {where}: {names}", got=repr(name)))
            node = source.child(node, name)
        level = infos
        for name in path[:-1]:
            level = level.setdefault(name, {})
        level[path[-1]] = _read(source, f"{who}, infos/{'/'.join(path)}", node, space_of(source, node))
    return infos


def _is_code(array: np.ndarray, space: Space) -> bool:
    """Answer whether the entries are JPEG-coded: bytes, arrays of different lengths, or arrays with a JPEG's start."""
    if space["type"] not in (None, "Box") or array.ndim not in (1, 2) or not len(array):
        return False
    if array.dtype == object or array.dtype.kind == "S":
        return not isinstance(array[0], str) and bytes(array[0])[:3] == JPEG_START
    is_flat = space["type"] is None or len(space["shape"]) > 1
    return is_flat and array.dtype == np.uint8 and array.ndim == 2 and array[0, :3].tobytes() == JPEG_START


# ---- episodes --------------------------------------------------------------------------------------------------------


def _transitions(who: str, number: int, arrays: dict[str, Tensor | dict]) -> TensorDict:
    num_steps = _count_steps(who, arrays["rewards"])
    for name, extra in (("observations", 1), ("actions", 0), ("terminations", 0), ("truncations", 0)):
        for leaf in _leaves(arrays[name]):
            if len(leaf) != num_steps + extra:
                expected = f"{name} with {num_steps + extra} rows, as there are {num_steps} rewards"
                raise SpecError(explain(who, expected=expected, got=len(leaf)))
    terminated, truncated = (_column(who, name, arrays[name]).bool() for name in ("terminations", "truncations"))
    done = is_done(terminated, truncated)
    if done[:-1].any():
        expected = "an ending on the last step alone"
        raise SpecError(explain(who, expected=expected, got=f"one on step {int(done[:-1].nonzero()[0, 0])}"))
    is_init = torch.zeros(num_steps, 1, dtype=torch.bool)
    is_init[0] = True
    reward = _column(who, "rewards", arrays["rewards"]).float()
    flags = {"reward": reward, "terminated": terminated, "truncated": truncated, "done": done}
    root = {"action": arrays["actions"], "is_init": is_init}
    collector = {"traj_ids": torch.full((num_steps,), number)}
    now, after = (_take_rows(arrays["observations"], rows) for rows in (slice(None, -1), slice(1, None)))
    return TensorDict({**now, **root, "next": {**after, **flags}, "collector": collector}, batch_size=[num_steps])


def _count_steps(who: str, rewards: Tensor | dict) -> int:
    if isinstance(rewards, dict) or not len(rewards):
        got = "a group" if isinstance(rewards, dict) else "none"
        raise SpecError(explain(who, expected="rewards, at least one", got=got))
    return len(rewards)


def _column(who: str, name: str, value: Tensor | dict) -> Tensor:
    """Reshape an entry of one number per step to ``[T, 1]``, or refuse another shape."""
    if isinstance(value, dict) or value[0].numel() != 1:
        got = "a group" if isinstance(value, dict) else list(value.shape)
        raise SpecError(explain(who, expected=f"{name} with one number for each step", got=got))
    return value.reshape(-1, 1)


def _leaves(node: Tensor | dict) -> Iterator[Tensor]:
    if isinstance(node, dict):
        for child in node.values():
            yield from _leaves(child)
    else:
        yield node


def _take_rows(node: dict, rows: slice) -> dict:
    """Copy the time steps ``rows`` of each leaf, so that ``observation`` and its ``next`` share no memory."""
    return {
        name: _take_rows(child, rows) if isinstance(child, dict) else child[rows].clone()
        for name, child in node.items()
    }
