"""The errors that torchrl raises, and the function that writes their messages. Imports no torch: workers use it too."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class TorchRLError(Exception):
    """Base of every error the library raises on purpose."""


class SpecError(TorchRLError, ValueError):
    """A value does not fit the spec, shape or dtype that was promised."""


class KeyMissing(TorchRLError, KeyError):
    """A TensorDict lacks a key that a part needs."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would print the repr of the message


class EnvError(TorchRLError, RuntimeError):
    """An environment or simulator cannot be built, or broke its contract."""


class ConfigError(TorchRLError, ValueError):
    """A user's mistake in a flag, a config file or an argument; commands print it and exit with status 2."""


class MissingExtraError(TorchRLError, ImportError):
    """An optional dependency is not installed."""


class CheckpointError(TorchRLError, RuntimeError):
    """A checkpoint cannot be written, is cut short, or does not fit the object it is loaded into."""


class StorageError(TorchRLError, RuntimeError):
    """Memory or files for data are missing, full or damaged."""


class ProcessError(TorchRLError, RuntimeError):
    """A worker process died, could not be started, or cannot be reached."""


class DeadlineError(ProcessError, TimeoutError):
    """A worker process did not answer in time."""


class NonFiniteError(TorchRLError, ArithmeticError):
    """A value is NaN or infinite where a finite number was expected."""


def explain(who: str, *, expected: object, got: object, hint: str = "") -> str:
    """Build an error message: the part that complains, what it expected, what it got, and what the user can do.

    Args:
        who: the part that found the mistake, for example ``"Collector"``.
        expected: what the part can take.
        got: what it was given.
        hint: what the user can do about it; may be empty.
    """
    message = f"{who}: expected {expected}, got {got}."
    return f"{message} {hint}" if hint else message


def nearest(name: str, names: Iterable[str], *, likeness: float = 0.5) -> str | None:
    """Return the entry of ``names`` spelt most like ``name``, else the shortest that begins with it, else None.

    Args:
        name: the user's spelling.
        names: the names there are.
        likeness: the least share of letters that agree, from 0 to 1.
    """
    names = list(names)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=likeness)
    begun = sorted((other for other in names if len(name) > 1 and other.startswith(name)), key=len)
    return next(iter([*matches, *begun]), None)


@contextmanager
def exit_on_mistake(program: str | None = None) -> Iterator[None]:
    """Catch the library's own errors in a ``with`` block: print the message to stderr and exit with status 2.

    These errors say what a user can do: a wrong flag, file, environment or checkpoint, a missing extra, a loss that
    became NaN. Other exceptions are bugs and pass through.

    >>> try:
    ...     with exit_on_mistake():
    ...         raise ConfigError("--lr: expected a number")
    ... except SystemExit as ended:
    ...     ended.code
    2

    Args:
        program: the name before the message; None takes that of the process.
    """
    try:
        yield
    except TorchRLError as mistake:
        notes = " ".join(getattr(mistake, "__notes__", []))
        print(f"{program or Path(sys.argv[0]).name}: {mistake} {notes}".rstrip(), file=sys.stderr)
        raise SystemExit(2) from mistake


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings raised in a ``with`` block as one line each, without file name and source line.

    >>> with plain_warnings():
    ...     warnings.formatwarning("no display", UserWarning, "file.py", 3)
    'warning: no display\\n'
    """
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> str:
        is_ours = category is UserWarning
        return f"warning: {message}\n" if is_ours else usual(message, category, *place, **options)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual
