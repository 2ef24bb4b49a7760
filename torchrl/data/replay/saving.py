"""Write a buffer's state to a folder, whole or not at all, and read it.

Items that are written in *pieces* lie in files of their own, of items with consecutive ids. What an id stands for never
changes, so a later save of the same buffer links the pieces of an earlier one and writes only what is new. A place of
the storage that is used again is no danger: the item that lay there is still in its piece.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchrl.data.replay.storages import Storage
from torchrl.errors import CheckpointError, explain
from torchrl.files import link_file, write_whole

FILE = "replay.pt"
PIECES = "pieces"
MAX_PIECES = 64  # more are written anew, as fewer and larger ones
MIN_ROWS, MAX_SHARE = 1024, 32  # a whole piece has this many items, or one in this many of the capacity
_PIECE = re.compile(r"items-(\d+)-(\d+)-(\w+)\.pt")


def to_tensors(columns: Mapping[str, np.ndarray | None]) -> dict[str, Tensor | None]:
    """Convert a dict of numpy arrays to tensors, for a state dict; None stays None."""
    return {name: None if column is None else torch.from_numpy(column) for name, column in columns.items()}


def to_arrays(columns: Mapping[str, Tensor | None]) -> dict[str, np.ndarray | None]:
    """Undo :func:`to_tensors`."""
    return {name: None if column is None else column.numpy() for name, column in columns.items()}


def save_to(folder: str | os.PathLike, state: dict) -> None:
    """Write a state to a folder; it replaces an earlier one there when it is whole.

    Raises:
        CheckpointError: the files cannot be written; the earlier save is unchanged.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for cut_short in folder.glob(f".partial-*-{FILE}"):
            cut_short.unlink()
        with write_whole(folder / FILE) as path:
            torch.save(state, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        expected = f"a folder with room for the save, {folder}"
        hint = "The last save there is unchanged."
        got = f"{type(error).__name__}: {error}"
        raise CheckpointError(explain("ReplayBuffer.save", expected=expected, got=got, hint=hint)) from error


def save_pieces(
    folder: str | os.PathLike, storage: Storage, *, since: str | os.PathLike | None, mark: str
) -> list[str]:
    """Write the items of a storage, whose places are used in turn, to a folder in pieces; return their files' names.

    Args:
        folder: where the files go; made if it is missing.
        storage: has the items.
        since: folder of an earlier save; its pieces with the same mark are linked. None writes every item.
        mark: letters and digits that tell apart saves in which one id stands for different items.

    Raises:
        CheckpointError: the files cannot be written.
    """
    folder, (oldest, written) = Path(folder), storage.ledger.live
    whole = max(MIN_ROWS, -(-storage.capacity // MAX_SHARE))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        linked = _pieces_to_link(Path(since), oldest, written, mark, whole) if since is not None else []
        names = [path.name for _, _, path in linked]
        for _, _, path in linked:
            link_file(path, folder / path.name)
        begin = linked[-1][1] if linked else oldest
        for first, end in _ranges(storage, begin, written, whole):
            names.append(f"items-{first}-{end}-{mark}.pt")
            torch.save(storage.rows(int(storage.ledger.place_of(np.int64(first))), end - first), folder / names[-1])
    except (OSError, RuntimeError) as error:
        expected, got = f"a folder with room for the items, {folder}", f"{type(error).__name__}: {error}"
        raise CheckpointError(explain("ReplayBuffer.save_in_pieces", expected=expected, got=got)) from error
    return names


def load_pieces(storage: Storage, pieces: Iterator[tuple[int, int, dict]]) -> None:
    """Put saved items into the places that the storage's ledger, loaded before, has them in."""
    oldest, written = storage.ledger.live
    for first, end, memory in pieces:
        begin, stop = max(first, oldest), min(end, written)
        if begin < stop:
            rows = {name: value[begin - first : stop - first] for name, value in memory.items()}
            storage.load_rows(int(storage.ledger.place_of(np.int64(begin))), rows)


def _pieces_to_link(since: Path, oldest: int, written: int, mark: str, whole: int) -> list[tuple[int, int, Path]]:
    """Return the pieces of an earlier save, end to end, that hold items from ``oldest`` on; where too many, the large.

    The small ones and what was written after the first of them are then written anew.
    """
    found = []
    for path in since.iterdir() if since.is_dir() else ():
        match = _PIECE.fullmatch(path.name)
        if match is not None and match[3] == mark and int(match[2]) > oldest and int(match[2]) <= written:
            found.append((int(match[1]), int(match[2]), path))
    chain: list[tuple[int, int, Path]] = []
    for piece in sorted(found):
        if piece[0] != chain[-1][1] if chain else piece[0] > oldest:
            break
        chain.append(piece)
    if len(chain) >= MAX_PIECES:
        small = next((at for at, (first, end, _) in enumerate(chain) if end - first < whole), len(chain))
        chain = chain[:small]
    return chain


def _ranges(storage: Storage, begin: int, end: int, whole: int) -> Iterator[tuple[int, int]]:
    """Yield the ids of pieces, first and end, at most ``whole`` items each, whose places lie side by side."""
    while begin < end:
        place = int(storage.ledger.place_of(np.int64(begin)))
        stop = min(end, begin + whole, begin + storage.capacity - place)
        yield begin, stop
        begin = stop


def load_from(folder: str | os.PathLike) -> dict:
    """Read the state that :func:`save_to` last wrote whole to a folder.

    Raises:
        CheckpointError: there is no saved state, or it is damaged.
    """
    path = Path(folder) / FILE
    if not path.exists():
        cut_short = any(Path(folder).glob(f".partial-*-{FILE}"))
        got = "one that was cut short" if cut_short else "none"
        raise CheckpointError(explain("ReplayBuffer.load", expected=f"a save in {folder}", got=got))
    try:
        state = torch.load(path, weights_only=True, mmap=True)  # so that there are no two copies in memory
        if PIECES in state:
            state[PIECES] = list(_read_pieces(Path(folder), state[PIECES]))
        return state
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        got = f"{type(error).__name__}: {error}"
        raise CheckpointError(explain("ReplayBuffer.load", expected=f"a whole file {path}", got=got)) from error


def _read_pieces(folder: Path, names: list[str]) -> Iterator[tuple[int, int, dict]]:
    for name in names:
        first, end, _ = _PIECE.fullmatch(name).groups()
        yield int(first), int(end), torch.load(folder / name, weights_only=True, mmap=True)
