"""Checkpoint files, written whole or not at all, of tensors and plain values. Which of an agent: see ``state``."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.errors import CheckpointError, explain
from torchrl.files import write_whole

FORMAT = "torchrl checkpoint"
VERSION = 2
ARRAY, SCALAR, CONTAINER = "__array__", "__scalar__", "__tensordict__"
COMPILED = "_orig_mod."  # what ``torch.compile`` puts between a module and the names inside it


def save_checkpoint(path: str | os.PathLike, state: Mapping) -> None:
    """Write a state to ``path``, so that a reader finds the old file or the new one and never a part.

    >>> save_checkpoint(folder / "run" / "mine.pt", {"weights": torch.ones(2), "counters": {"frames": 64}})
    >>> load_checkpoint(folder / "run" / "mine.pt")
    {'weights': tensor([1., 1.]), 'counters': {'frames': 64}}

    Args:
        path: the file; its folder is made.
        state: nested dicts, lists and tuples of tensors, numpy arrays, TensorDicts, numbers, strings, bools and None.

    Raises:
        CheckpointError: the state holds anything else, named with its place; the path is a folder's; or the file cannot
            be written.
    """
    name = os.fspath(path)
    if os.path.isdir(name) or not os.path.basename(name):
        hint = "Write agent.save('run/last.pt')."
        raise CheckpointError(explain("checkpoint", expected="the name of a file", got=repr(name), hint=hint))
    content = {"format": FORMAT, "version": VERSION, "state": to_plain(dict(state))}
    try:
        with write_whole(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)  # not to a path: torch refuses names without a suffix
    except OSError as error:
        raise CheckpointError(f"The checkpoint {name!r} cannot be written: {error}.") from error


def load_checkpoint(path: str | os.PathLike) -> dict:
    """Return the state in a file of :func:`save_checkpoint`, tensors on the CPU; no code in the file is ever run.

    >>> agent.save(folder / "a.pt")
    >>> load_checkpoint(folder / "a.pt")["counters"]["frames"]
    0

    Raises:
        CheckpointError: the file is missing, cut short, no checkpoint, or of a version this library does not read.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(explain("checkpoint", expected="a file", got=f"nothing at {str(path)!r}"))
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            begins_well = file.read(4) == b"PK\x03\x04"
        got = "one that is cut short" if begins_well else "a file that is no checkpoint"
        raise CheckpointError(explain("checkpoint", expected="a whole file", got=f"{got}: {str(path)!r}"))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            explain(
                "checkpoint",
                expected="tensors and numbers",
                got=f"the file {str(path)!r}, which does not load: {reason}",
            )
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            explain("checkpoint", expected="a file that an agent saved", got=f"other content: {str(path)!r}")
        )
    if content["version"] != VERSION:
        raise CheckpointError(
            explain(
                "checkpoint",
                expected=f"version {VERSION}",
                got=f"version {content['version']}: {str(path)!r}",
                hint="It was written by another version of torchrl; load it with that one.",
            )
        )
    return from_plain(content["state"])


def strip_compiled(state: Mapping[str, object]) -> dict[str, object]:
    """Remove ``torch.compile``'s prefix from the names of a state, so that it fits compiled and plain modules alike."""
    return {name.replace(COMPILED, ""): value for name, value in state.items()}


def match_compiled(state: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """Rename the entries of a state so that they match ``names``, of compiled modules or of plain ones.

    Args:
        state: by names of any modules, compiled or not.
        names: of the modules it is for; others stay as they are.
    """
    own = {name.replace(COMPILED, ""): name for name in names}
    return {own.get(name, name): value for name, value in strip_compiled(state).items()}


def require_fit(who: str, have: Mapping[str, object], came: Mapping[str, object]) -> None:
    """Refuse a state whose keys or tensor shapes differ from those of the module it is to be loaded into.

    Args:
        who: what is loaded, for the message.
        have: ``state_dict`` of the object as it stands.
        came: the state from the checkpoint.

    Raises:
        CheckpointError: naming keys and shapes, the first ones of each kind.
    """
    differences = [f"{key} is missing" for key in have if key not in came]
    differences += [f"{key} is not part of it" for key in came if key not in have]
    for key in have.keys() & came.keys():
        ours, theirs = _shape(have[key]), _shape(came[key])
        if ours != theirs:
            differences.append(f"{key} has shape {theirs} instead of {ours}")
    if differences:
        differences.sort(key=lambda text: ("instead of" not in text, text))
        more = f"; and {len(differences) - 6} more" if len(differences) > 6 else ""
        raise CheckpointError(
            explain(
                f"checkpoint, {who}",
                expected="the same parameters and shapes",
                got="; ".join(differences[:6]) + more,
                hint="Build the agent with the configuration the checkpoint was saved with.",
            )
        )


def load_optimizer(optimizer: torch.optim.Optimizer, came: dict) -> None:
    """Load a saved state into an optimizer; refuse the state of another class, on which torch would fail a step later.

    Two classes each have options that the other lacks, while a newer version of one class only adds options.

    Raises:
        CheckpointError: it is of another kind, or for other parameters.
    """
    for have, saved in zip(optimizer.state_dict()["param_groups"], came["param_groups"], strict=False):
        ours, theirs = have.keys() - saved.keys(), saved.keys() - have.keys()
        if ours and theirs:
            expected = f"the state of a {type(optimizer).__name__}, with {', '.join(sorted(ours))}"
            raise CheckpointError(
                explain("checkpoint, optimizer", expected=expected, got=f"one with {', '.join(sorted(theirs))}")
            )
    try:
        optimizer.load_state_dict(came)
    except ValueError as error:
        raise CheckpointError(f"checkpoint, optimizer: {error}.") from error


def to_plain(value: object, place: str = "state") -> object:
    """Replace numpy arrays, numpy numbers and TensorDicts in a state by dicts that ``weights_only`` lets torch load.

    Raises:
        CheckpointError: an object in it is none of these, nor a tensor, number, text, list, dict or None; it is named.
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes)) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, TensorDictBase):
        entries = {key: to_plain(entry, f"{place}/{key}") for key, entry in value.items()}
        return {CONTAINER: list(value.batch_size), "entries": entries}
    if isinstance(value, torch.Tensor):
        value = value.detach()
        is_view = value.untyped_storage().nbytes() > value.numel() * value.element_size()
        return value.clone() if is_view else value  # or the whole storage would be written
    if isinstance(value, np.generic):
        return {SCALAR: to_plain(np.asarray(value), place)}
    if isinstance(value, np.ndarray):
        try:
            return {ARRAY: torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape).copy())}
        except TypeError as error:
            raise _unfit(f"a numpy array of {value.dtype}", place) from error
    if isinstance(value, Mapping):
        return {_checked_key(key, place): to_plain(entry, f"{place}/{key}") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        entries = [to_plain(entry, f"{place}/{index}") for index, entry in enumerate(value)]
        return entries if isinstance(value, list) else tuple(entries)
    raise _unfit(type(value).__name__, place)


def from_plain(value: object) -> object:
    """Restore the numpy arrays, numpy numbers and TensorDicts that :func:`to_plain` replaced."""
    if isinstance(value, dict):
        if ARRAY in value:
            return value[ARRAY].numpy()
        if SCALAR in value:
            return from_plain(value[SCALAR])[()]
        if CONTAINER in value:
            return TensorDict(from_plain(value["entries"]), batch_size=value[CONTAINER])
        return {key: from_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(entry) for entry in value)
    return value


def _checked_key(key: object, place: str) -> object:
    if not isinstance(key, (str, int)):
        raise _unfit(f"a key {key!r}", place)
    return key


def _unfit(what: str, place: str) -> CheckpointError:
    return CheckpointError(
        explain("checkpoint", expected="tensors, numpy arrays, numbers, strings and None", got=f"{what} at {place}")
    )


def _shape(value: object) -> str:
    return str([*value.shape]) if isinstance(value, (torch.Tensor, np.ndarray)) else "none"
