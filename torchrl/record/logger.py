"""The contract of a logger. It takes named numbers at a step; it measures, averages and prints nothing."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.files import make_writable
from torchrl.misspelling import Extensible


class Logger(Extensible, ABC):
    """Base class of loggers, which record the numbers and texts of a run; use one in a ``with`` block, or close it.

    >>> class Print(Logger):
    ...     def log_scalars(self, metrics, step):
    ...         print(step, metrics)
    ...
    ...     def log_text(self, name, text, step):
    ...         pass
    ...
    ...     def close(self):
    ...         pass
    >>> Print().log_scalars({"loss": 0.5}, step=128)
    128 {'loss': 0.5}
    """

    @abstractmethod
    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Record numbers at a step; all numbers of the call are on disk when it returns.

        Args:
            metrics: one number each, by name, for example ``"train/episode_return"``; NaN and infinities are numbers.
            step: frames collected so far (agent steps).

        Raises:
            SpecError: a value is not one number.
        """

    @abstractmethod
    def log_text(self, name: str, text: str, step: int) -> None:
        """Record a text.

        Args:
            name: what the text is, for example ``"config"``.
            text: in Markdown or plain.
            step: frames collected so far (agent steps).
        """

    @abstractmethod
    def close(self) -> None:
        """Release files; may be called twice."""

    def __enter__(self) -> Logger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_folder(folder: str | os.PathLike, who: str) -> Path:
    """Create a logger's folder if it is absent, and return its path.

    Args:
        folder: the path.
        who: the caller's name, for the message.

    Raises:
        ConfigError: it cannot be made, or not be written to.
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise ConfigError(explain(who, expected="a folder that can be written to", got=str(error))) from error
    return Path(folder)


def as_floats(metrics: Mapping[str, SupportsFloat], who: str) -> dict[str, float]:
    """Return every metric as a Python float, by name.

    Args:
        metrics: numbers, or arrays and tensors of one element, by name.
        who: the logger, for the message.

    Raises:
        SpecError: a value is not one number.
    """
    floats = {}
    for name, value in metrics.items():
        try:
            floats[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            shape = getattr(value, "shape", None)
            got = repr(value) if shape is None else f"{type(value).__name__} of shape {list(shape)}"
            raise SpecError(explain(f"{who}: metric {name!r}", expected="one number", got=got)) from None
    return floats
