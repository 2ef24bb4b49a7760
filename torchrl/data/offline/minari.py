"""Datasets in Minari's HDF5 format, read episode by episode. Writes none, and never downloads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.errors import SpecError, StorageError, explain
from torchrl.extras import require
from torchrl.functional.endings import is_done

FILE = "main_data.hdf5"
JPEG_START = bytes([0xFF, 0xD8, 0xFF])
_KINDS = "bfiu"  # of numpy dtypes: bool, float, integers
_WIDER = {"float64": np.float32, "uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


def read_minari(path_or_name: str | os.PathLike) -> Iterator[TensorDict]:
    """Read the episodes of a Minari dataset as transitions, one at a time.

    An episode of T steps is a TensorDict ``[T]``: at t ``observation``, ``action`` and ``is_init``, under ``"next"``
    the observation of t+1, ``reward`` (float32 ``[T, 1]``), ``terminated``, ``truncated`` and ``done``, and under
    ``("collector", "traj_ids")`` the episode's number in the file. The entries of a ``Dict`` of observations lie at the
    root, as an environment of ours lays them; those of a ``Tuple`` have the keys ``"0"``, ``"1"``, …. Double precision
    becomes single. Infos are left out.

    ``write_dataset(folder, read_minari(name))`` makes a dataset of them; each episode may go to a replay buffer.

    Args:
        path_or_name: a ``main_data.hdf5``, the folder of one, or the name of a dataset that Minari has on this machine,
            for example ``"mujoco/halfcheetah/expert-v0"``.

    Returns:
        The episodes, in the order of their numbers.

    Raises:
        StorageError: there is no such dataset, or its file is damaged; at once, or at the episode concerned.
        SpecError: an episode whose arrays do not fit each other, or with entries that are no numbers.
        MissingExtraError: h5py is not installed, or Minari is not and a name was given.
    """
    h5py = require("h5py", extra="minari", purpose="read_minari")
    path = _find(path_or_name)
    with _opened(h5py, path) as file:
        numbers = [name.removeprefix("episode_") for name in file if name.startswith("episode_")]
        numbers = sorted(int(number) for number in numbers if number.isdecimal())
    if not numbers:
        raise StorageError(explain("read_minari", expected=f'groups "episode_0" … in {path}', got="none"))
    return _episodes(h5py, path, numbers)


def _find(path_or_name: str | os.PathLike) -> Path:
    path = Path(path_or_name)
    for candidate in (path, path / FILE, path / "data" / FILE):
        if candidate.is_file():
            return candidate
    is_path = isinstance(path_or_name, os.PathLike) or path.is_absolute() or path.suffix in {".hdf5", ".h5"}
    if is_path or path.exists():
        got = "a folder without one" if path.is_dir() else "nothing"
        raise StorageError(explain("read_minari", expected=f"a file {FILE} at {path}", got=got))
    minari = require("minari", extra="minari", purpose=f"read_minari by the name {str(path_or_name)!r}")
    try:
        found = Path(minari.load_dataset(str(path_or_name)).storage.data_path) / FILE
    except (OSError, ValueError) as error:
        hint = f'minari.download_dataset("{path_or_name}") fetches it; or give the path of a {FILE}.'
        expected = f"a dataset {str(path_or_name)!r} on this machine"
        raise StorageError(explain("read_minari", expected=expected, got=str(error), hint=hint)) from error
    if not found.is_file():
        hint = "Only Minari's format hdf5 can be read."
        raise StorageError(explain("read_minari", expected=f"a file {found}", got="another format", hint=hint))
    return found


def _opened(h5py: Any, path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StorageError(explain("read_minari", expected=f"a whole HDF5 file {path}", got=str(error))) from error


def _episodes(h5py: Any, path: Path, numbers: list[int]) -> Iterator[TensorDict]:
    with _opened(h5py, path) as file:
        for number in numbers:
            group = file[f"episode_{number}"]
            who = f"read_minari, {path}, episode {number}"
            names = ("observations", "actions", "rewards", "terminations", "truncations")
            missing = [name for name in names if name not in group]
            if missing:
                raise StorageError(explain(who, expected=f"{', '.join(names)}", got=f"no {', '.join(missing)}"))
            try:
                arrays = {name: _read(h5py, group[name], f"{who}, {name}") for name in names}
            except OSError as error:
                raise StorageError(explain(who, expected="data that can be read", got=str(error))) from error
            yield _transitions(who, number, arrays)


def _read(h5py: Any, node: Any, who: str) -> Tensor | dict:
    """Read an array, or a group of them as a dict."""
    if isinstance(node, h5py.Group):
        return {name.removeprefix("_index_"): _read(h5py, child, f"{who}/{name}") for name, child in node.items()}
    if node.dtype.kind not in _KINDS or not node.ndim:
        hint = "Turn text and images of different sizes into arrays of numbers before."
        got = f"{node.dtype} {list(node.shape)}"
        raise SpecError(explain(who, expected="an array of numbers, one row for each step", got=got, hint=hint))
    array = node[()]
    if array.dtype == np.uint8 and array.ndim == 2 and len(array) and array[0, :3].tobytes() == JPEG_START:
        hint = "Make the Minari dataset with jpeg_encoding=False."
        raise SpecError(explain(who, expected="pixels", got="images in JPEG's code", hint=hint))
    dtype = _WIDER.get(array.dtype.name, array.dtype.newbyteorder("="))
    return torch.from_numpy(array.astype(dtype, copy=False))


def _transitions(who: str, number: int, arrays: dict[str, Tensor | dict]) -> TensorDict:
    num_steps = _checked_length(who, arrays["rewards"])
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
    observations = arrays["observations"]
    observations = observations if isinstance(observations, dict) else {"observation": observations}
    is_init = torch.zeros(num_steps, 1, dtype=torch.bool)
    is_init[0] = True
    reward = _column(who, "rewards", arrays["rewards"]).float()
    flags = {"reward": reward, "terminated": terminated, "truncated": truncated, "done": done}
    root = {"action": arrays["actions"], "is_init": is_init}
    taken = sorted(observations.keys() & (flags.keys() | root.keys() | {"next", "collector"}))
    if taken:
        raise SpecError(explain(who, expected="observations with names of their own", got=taken))
    collector = {"traj_ids": torch.full((num_steps,), number)}
    now, after = _cut(observations, slice(None, -1)), _cut(observations, slice(1, None))
    return TensorDict({**now, **root, "next": {**after, **flags}, "collector": collector}, batch_size=[num_steps])


def _checked_length(who: str, rewards: Tensor | dict) -> int:
    if isinstance(rewards, dict) or not len(rewards):
        got = "a group" if isinstance(rewards, dict) else "none"
        raise SpecError(explain(who, expected="rewards, at least one", got=got))
    return len(rewards)


def _column(who: str, name: str, value: Tensor | dict) -> Tensor:
    """Return one number for each step as ``[T, 1]``."""
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


def _cut(node: dict, rows: slice) -> dict:
    """Take rows of each leaf, a copy: the two observations of a step are no views of each other."""
    return {name: _cut(child, rows) if isinstance(child, dict) else child[rows].clone() for name, child in node.items()}
