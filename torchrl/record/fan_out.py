"""Several loggers as one: each gets everything."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import SupportsFloat

from torchrl.record.logger import Logger


class FanOut(Logger):
    """Pass all numbers and texts on to each of ``loggers``, in order.

    >>> from torchrl.record import CSVLogger
    >>> with FanOut(CSVLogger(folder / "a"), CSVLogger(folder / "b")) as logger:
    ...     logger.log_scalars({"loss": 0.5}, step=128)
    >>> (folder / "a" / "progress.csv").read_text() == (folder / "b" / "progress.csv").read_text()
    True
    """

    def __init__(self, *loggers: Logger) -> None:
        self.loggers = loggers

    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Pass numbers on to every logger."""
        for logger in self.loggers:
            logger.log_scalars(metrics, step)

    def log_text(self, name: str, text: str, step: int) -> None:
        """Pass a text on to every logger."""
        for logger in self.loggers:
            logger.log_text(name, text, step)

    def close(self) -> None:
        """Close every logger, also when closing one of them raises."""
        with ExitStack() as stack:
            for logger in reversed(self.loggers):
                stack.callback(logger.close)
