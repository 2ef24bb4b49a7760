"""Several loggers as one: each gets everything."""

from __future__ import annotations

from contextlib import ExitStack

from torchrl.record.logger import Logger
from torchrl.record.passing_on import PassingOn


class FanOut(PassingOn):
    """Pass everything on to each of ``loggers``, in order; what one of them raises ends the call.

    >>> from torchrl.record import CSVLogger
    >>> with FanOut(CSVLogger(folder / "a"), CSVLogger(folder / "b")) as logger:
    ...     logger.log_scalars({"loss": 0.5}, step=128)
    >>> (folder / "a" / "progress.csv").read_text() == (folder / "b" / "progress.csv").read_text()
    True
    """

    def __init__(self, *loggers: Logger) -> None:
        self.loggers = loggers

    def pass_on(self, method: str, *arguments: object) -> None:
        """Call a method of every logger."""
        for logger in self.loggers:
            getattr(logger, method)(*arguments)

    def close(self) -> None:
        """Close every logger, also when closing one of them raises."""
        with ExitStack() as stack:
            for logger in reversed(self.loggers):
                stack.callback(logger.close)
