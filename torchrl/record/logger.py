"""The contract of a logger. It takes what a run says of itself; it measures, averages and prints nothing."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, SupportsFloat

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.files import make_writable
from torchrl.misspelling import Extensible

if TYPE_CHECKING:
    import numpy as np
    import torch

STEP = "frames"


class Logger(Extensible, ABC):
    """Base class of loggers, which record the numbers and texts of a run; use one in a ``with`` block, or close it.

    A subclass writes three methods. The others have defaults: a config and a summary become texts; histograms, pictures
    and videos are left out, since not every record has a form for them.

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
            SpecError: a value is not one number, or a metric is named ``frames``.
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

    def log_config(self, config: Mapping[str, object]) -> None:
        """Record the settings of a run, once, at its start; by default as a text named ``config``.

        Args:
            config: numbers, texts, switches, lists and None, by name.
        """
        self.log_text("config", as_lines(config), 0)

    def log_summary(self, summary: Mapping[str, object], step: int) -> None:
        """Record the results of a run, once, at its end; by default as a text named ``summary``.

        Args:
            summary: numbers, texts, and lists and mappings of these, by name.
            step: frames collected so far (agent steps).
        """
        self.log_text("summary", as_lines(summary), step)

    def log_histogram(self, name: str, values: np.ndarray | torch.Tensor, step: int) -> None:
        """Record how values are distributed; left out by default.

        Args:
            name: whose values, for example ``"actor/weights"``.
            values: numbers, at least one, in any shape.
            step: frames collected so far (agent steps).

        Raises:
            SpecError: from loggers that keep histograms, there is no value, or one that is not finite.
        """

    def log_picture(self, name: str, picture: np.ndarray | torch.Tensor, step: int) -> None:
        """Record a picture; left out by default.

        Args:
            name: what it shows, for example ``"first_frame"``.
            picture: uint8 ``[H, W, 3]``.
            step: frames collected so far (agent steps).

        Raises:
            SpecError: from loggers that keep pictures, it is none.
        """

    def log_video(self, name: str, path: str | os.PathLike, step: int) -> None:
        """Record a film that lies in a file already; left out by default.

        Args:
            name: what it shows, for example ``"eval/film"``.
            path: of the mp4 file, which stays where it is.
            step: frames collected so far (agent steps).
        """

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
        SpecError: a value is not one number, or a metric has the name of the step.
    """
    if STEP in metrics:
        hint = "That is the name of the step."
        raise SpecError(explain(who, expected=f"no metric named {STEP!r}", got="one", hint=hint))
    floats = {}
    for name, value in metrics.items():
        try:
            floats[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            shape = getattr(value, "shape", None)
            got = repr(value) if shape is None else f"{type(value).__name__} of shape {list(shape)}"
            raise SpecError(explain(f"{who}: metric {name!r}", expected="one number", got=got)) from None
    return floats


def as_lines(values: Mapping[str, object]) -> str:
    """Return settings or results as text, one ``name = value`` a line."""
    return "".join(f"{name} = {value}\n" for name, value in values.items())


def as_file_name(name: str) -> str:
    """Return the name of a text or picture as that of a file: slashes become underscores."""
    return name.replace("/", "_")
