"""Write a buffer's state to a folder, whole or not at all, and read it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchrl.errors import CheckpointError, explain
from torchrl.files import write_whole

FILE = "replay.pt"


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
        return torch.load(path, weights_only=True, mmap=True)  # so that there are no two copies in memory
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        got = f"{type(error).__name__}: {error}"
        raise CheckpointError(explain("ReplayBuffer.load", expected=f"a whole file {path}", got=got)) from error
