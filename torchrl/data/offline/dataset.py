"""A dataset in a folder: one file of raw numbers for each entry, mapped into memory, and an index in JSON.

A dataset is written once, from beginning to end, and then only read; to add and replace steps use a replay buffer.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from torchrl.data.offline.stitching import STARTS, Piece, Stitcher
from torchrl.data.replay.records import nest
from torchrl.errors import ConfigError, SpecError, StorageError, explain
from torchrl.files import write_whole
from torchrl.keys import Key
from torchrl.layouts import Form, describe_differences

VERSION = 1
INDEX = "dataset.json"
_DATA = re.compile(r"steps-[0-9a-f]{16}")


class Extendable(Protocol):
    """Interface of an object that stores steps by ``extend(batch)``, as :class:`~torchrl.data.replay.ReplayBuffer`."""

    def extend(self, batch: TensorDictBase) -> object:
        """Add the steps of a batch ``[T]``."""


class OfflineDataset:
    """Hold the steps of a recorded dataset, episode after episode; return single episodes, or fill a replay buffer.

    A step is read from the disk when its numbers are used. The batches that it returns are views: writing to them
    changes this object's memory, never the files.

    >>> write_dataset(getfixture("tmp_path"), batch)  # [2, 8]: two rows, at least two episodes
    >>> dataset = read_dataset(getfixture("tmp_path"))
    >>> len(dataset), dataset.num_episodes == 2 + int(batch["next", "done"][:, :-1].sum())
    (16, True)
    >>> dataset.fill(buffer)

    Args:
        steps: ``[n]``.
        starts: where each episode begins, increasing, the first 0.
        metadata: what :func:`write_dataset` was given.
    """

    def __init__(self, steps: TensorDict, *, starts: list[int], metadata: dict[str, Any]) -> None:
        self.steps = steps
        self.starts = starts
        self.metadata = metadata

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.steps.batch_size[0]

    @property
    def num_episodes(self) -> int:
        """How many episodes there are, incomplete ones included."""
        return len(self.starts)

    def episode(self, index: int) -> TensorDict:
        """Return one episode, ``[T]``, a view.

        Args:
            index: number of the episode; negative numbers count from the end.

        Raises:
            IndexError: there is no such episode.
        """
        num = self.num_episodes
        if not -num <= index < num:
            raise IndexError(explain("episode", expected=f"an index from {-num} to {num - 1}", got=index))
        first, *after = self.starts[index % num : index % num + 2]
        return self.steps[first : after[0] if after else len(self)]

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield the episodes, ``[T]`` each."""
        return (self.episode(index) for index in range(self.num_episodes))

    def fill(self, buffer: Extendable, *, chunk_len: int = 4096) -> None:
        """Add all steps to a buffer in their order; if it becomes full, the buffer's writer decides which items stay.

        Args:
            buffer: its ``extend`` is called.
            chunk_len: number of steps that are copied at a time, at most the buffer's capacity.

        Raises:
            ConfigError: ``chunk_len`` is below 1.
        """
        if chunk_len < 1:
            raise ConfigError(explain("fill", expected="a chunk_len of at least 1", got=chunk_len))
        for first in range(0, len(self), chunk_len):
            buffer.extend(self.steps[first : first + chunk_len])

    def __repr__(self) -> str:
        return f"OfflineDataset({len(self)} steps, {self.num_episodes} episodes)"


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_dataset(
    folder: str | os.PathLike,
    batches: TensorDictBase | Iterable[TensorDictBase],
    *,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Write batches of steps as a dataset into a folder; an older dataset there stays until the new one is whole.

    The function takes batches one by one, as a collector yields them, and joins the steps of each episode: a row of a
    batch continues the same row of the batch before, unless ``is_init``, ``("next", "done")``, ``("collector",
    "traj_ids")`` or the number of rows say otherwise. For batches of several rows, memory holds the unfinished
    episodes. Episodes are written in the order in which they end. ``is_init`` is written as true on the first step of
    each, also where the episode's beginning is not in the data, so that no reader joins it to the one before. Steps
    whose ``("collector", "mask")`` is false and entries under ``"replay"`` are left out. Only one process may write to
    a folder at a time.

    >>> write_dataset(getfixture("tmp_path"), batch, metadata={"env": "CartPole-v1"})
    >>> read_dataset(getfixture("tmp_path")).metadata
    {'env': 'CartPole-v1'}

    Args:
        folder: the folder, made if it is missing.
        batches: ``[T]`` or ``[*B, T]`` each, with ``is_init``; or one such batch.
        metadata: anything that JSON can hold: the environment's name, who acted, when.

    Raises:
        SpecError: no steps, steps with other keys, shapes or dtypes than the first, or entries that are no dense
            tensors.
        KeyMissing: no ``is_init``.
        ConfigError: metadata that change when JSON writes and reads them.
        StorageError: the files cannot be written, for example because the disk is full.
    """
    folder = Path(folder)
    metadata = {} if metadata is None else metadata
    _require_json(metadata)
    data = folder / f"steps-{secrets.token_hex(8)}"
    with _explain_os_errors(folder):
        data.mkdir(parents=True)
    try:
        with _Columns(data) as columns:
            stitcher = Stitcher()
            for batch in [batches] if isinstance(batches, TensorDictBase) else batches:
                for piece in stitcher.take(batch):
                    columns.append(piece)
            for piece in stitcher.flush():
                columns.append(piece)
            columns.finish()
    except BaseException:
        shutil.rmtree(data, ignore_errors=True)
        raise
    # From here on nothing may take the new steps away: the index could name them already. The next write tidies up.
    index = {"version": VERSION, "data": data.name, **columns.description(), "metadata": metadata}
    with _explain_os_errors(folder), write_whole(folder / INDEX) as path:
        path.write_text(json.dumps(index), encoding="utf-8")
    for old in _data_folders(folder):
        if old != data:
            shutil.rmtree(old, ignore_errors=True)


class _Columns:
    """Append steps to files: one file of raw numbers for each entry of the first piece."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: list = []
        self._entries: dict[Key, Form] | None = None
        self._starts: list[int] = []
        self._num_steps = 0

    def __enter__(self) -> _Columns:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def append(self, piece: Piece) -> None:
        values = dict(piece.values)
        entries = {key: (tuple(value.shape[1:]), value.dtype, None) for key, value in sorted(values.items())}
        if self._entries is None:
            self._entries = entries
            with _explain_os_errors(self._folder):
                for number in range(len(entries)):
                    self._files.append(self._stack.enter_context((self._folder / f"{number}.bin").open("wb")))
        if entries != self._entries:
            got = describe_differences(entries, self._entries)
            raise SpecError(explain("write_dataset", expected="steps with the entries of the first", got=got))
        if piece.begins:
            self._starts.append(self._num_steps)
            values[STARTS] = values[STARTS].clone()
            values[STARTS][0] = True
        self._num_steps += len(values[STARTS])
        with _explain_os_errors(self._folder):
            for key, file in zip(entries, self._files, strict=True):
                file.write(memoryview(values[key].contiguous().reshape(-1).view(torch.uint8).numpy()))

    def finish(self) -> None:
        if not self._num_steps:
            raise SpecError(explain("write_dataset", expected="batches with steps", got="none"))
        with _explain_os_errors(self._folder):
            for file in self._files:
                file.flush()
                os.fsync(file.fileno())

    def description(self) -> dict:
        entries = [
            {"key": list(key), "shape": list(shape), "dtype": str(dtype).removeprefix("torch.")}
            for key, (shape, dtype, _) in self._entries.items()
        ]
        return {"num_steps": self._num_steps, "starts": self._starts, "entries": entries}


def _require_json(metadata: object) -> None:
    hint = "Use dicts with string keys, lists, strings, finite numbers, true, false and None."
    try:
        if isinstance(metadata, dict) and json.loads(json.dumps(metadata, allow_nan=False)) == metadata:
            return
        got = repr(metadata)
    except (TypeError, ValueError) as error:
        got = f"{metadata!r} ({error})"
    raise ConfigError(
        explain("write_dataset", expected="metadata that JSON returns unchanged", got=got, hint=hint)
    ) from None


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_dataset(folder: str | os.PathLike) -> OfflineDataset:
    """Open the dataset in a folder; steps stay on the disk until their numbers are used.

    >>> write_dataset(getfixture("tmp_path"), batch)
    >>> episode = read_dataset(getfixture("tmp_path")).episode(0)
    >>> episode["is_init"][:2, 0]
    tensor([ True, False])

    Args:
        folder: where :func:`write_dataset` wrote it.

    Raises:
        StorageError: there is no dataset, it is damaged, its write was cut short, or another version wrote it.
    """
    folder = Path(folder)
    index = _read_index(folder)
    try:
        num_steps, starts, metadata = index["num_steps"], index["starts"], index["metadata"]
        entries = [(tuple(entry["key"]), entry["shape"], getattr(torch, entry["dtype"])) for entry in index["entries"]]
        is_sound = num_steps > 0 and starts[0] == 0 and starts == sorted(set(starts)) and starts[-1] < num_steps
        is_sound &= bool(_DATA.fullmatch(index["data"])) and isinstance(metadata, dict)
        if not is_sound:
            raise ValueError("numbers that contradict each other")
        sizes = [num_steps * torch.Size(shape).numel() * dtype.itemsize for _, shape, dtype in entries]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _damaged(folder / INDEX, f"{type(error).__name__}: {error}") from error
    values: dict[Key, Tensor] = {}
    for number, ((key, shape, dtype), size) in enumerate(zip(entries, sizes, strict=True)):
        values[key] = _map_file(folder / index["data"] / f"{number}.bin", size, dtype).view(num_steps, *shape)
    return OfflineDataset(nest(values, torch.Size([num_steps])), starts=starts, metadata=metadata)


def _read_index(folder: Path) -> dict:
    path = folder / INDEX
    if not path.is_file():
        cut_short = any(_data_folders(folder))
        got = "one whose write was cut short" if cut_short else "none"
        hint = "Write it again." if cut_short else ""
        raise StorageError(explain("read_dataset", expected=f"a dataset in {folder}", got=got, hint=hint))
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(index, dict) or "version" not in index:
        raise _damaged(path, "no version")
    if index["version"] != VERSION:
        hint = "Read it with the version of torchrl that wrote it, and write it again."
        expected = f"a dataset of format version {VERSION} in {folder}"
        raise StorageError(explain("read_dataset", expected=expected, got=f"version {index['version']}", hint=hint))
    return index


def _map_file(path: Path, size: int, dtype: torch.dtype) -> Tensor:
    """Map a file into memory as a flat tensor; writing to the tensor changes this process's memory, not the file."""
    try:
        if path.stat().st_size != size:
            raise _damaged(path, f"{path.stat().st_size} bytes, not {size}")
        if not size:
            return torch.empty(0, dtype=dtype)
        return torch.from_numpy(np.memmap(path, np.uint8, mode="c")).view(dtype)
    except OSError as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _data_folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _DATA.fullmatch(path.name)] if folder.is_dir() else []


def _damaged(path: Path, got: str) -> StorageError:
    return StorageError(explain("read_dataset", expected=f"a whole file {path}", got=got, hint="The data are damaged."))


@contextmanager
def _explain_os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        got = f"{type(error).__name__}: {error}"
        hint = "The dataset that was there before is unchanged."
        expected = f"a folder with room for the steps, {folder}"
        raise StorageError(explain("write_dataset", expected=expected, got=got, hint=hint)) from error
