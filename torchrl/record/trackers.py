"""What makes a slow or failing tracker harmless to a run: it is called seldom enough, and its errors are counted."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import SupportsFloat

from torchrl.errors import ConfigError, TorchRLError, explain
from torchrl.record.logger import Logger, as_floats
from torchrl.record.passing_on import PassingOn


class Throttled(PassingOn):
    """Pass numbers on to a slow logger only so often that it takes a small share of the run's time.

    After a record that took the logger ``s`` seconds, the next goes to it ``s / share`` seconds later, and no sooner
    than ``records_per_second`` allows. Records between wait, of each metric the latest number with its own step, and
    go to the logger with the next record, or when this one is closed: the thinned curve ends where the run ended, and
    a number that comes seldom, such as an evaluation's, is not lost to those that come often. Everything else (texts,
    pictures, the summary) is passed on at once, after the numbers that wait.

    >>> from torchrl.record import CSVLogger
    >>> with Throttled(CSVLogger(folder), records_per_second=0.01) as logger:
    ...     for step in range(100):
    ...         logger.log_scalars({"loss": 1 / (1 + step)}, step=step)
    >>> print((folder / "progress.csv").read_text())
    frames,loss
    0,1.0
    99,0.01
    <BLANKLINE>

    Args:
        logger: the slow one; closed with this one.
        records_per_second: at most.
        share: of the time that passes, which the logger's records may take, above 0 and up to 1.
        clock: seconds, of any origin.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(
        self,
        logger: Logger,
        *,
        records_per_second: float = 10.0,
        share: float = 0.02,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not (records_per_second > 0 and 0 < share <= 1):
            expected, got = "records_per_second above 0, share above 0 and up to 1", f"{records_per_second} and {share}"
            raise ConfigError(explain("Throttled", expected=expected, got=got))
        self.logger = logger
        self._least_wait = 1 / records_per_second
        self._share = share
        self._clock = clock
        self._due = -float("inf")
        self._waiting: dict[str, tuple[int, float]] = {}  # by metric: its step, and its number

    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Pass numbers on if the next record is due, or let them wait.

        Raises:
            SpecError: a value is not one number.
        """
        self._waiting |= {name: (step, value) for name, value in as_floats(metrics, "Throttled").items()}
        if self._clock() >= self._due:
            self._flush()

    def pass_on(self, method: str, *arguments: object) -> None:
        """Pass on the numbers that wait, then the call."""
        try:
            self._flush()
        finally:  # a failing tracker is closed all the same
            getattr(self.logger, method)(*arguments)

    def _flush(self) -> None:
        """Pass on all numbers that wait, those of one step as one record."""
        waiting, self._waiting = self._waiting, {}
        records: dict[int, dict[str, float]] = {}
        for name, (step, value) in waiting.items():
            records.setdefault(step, {})[name] = value
        began = self._clock()
        try:
            for step in sorted(records):
                self.logger.log_scalars(records[step], step)
        finally:
            now = self._clock()
            self._due = now + max(self._least_wait, (now - began) / self._share)


class Tolerant(PassingOn):
    """Pass everything on to a tracker whose failures must not end the run.

    The first exception becomes a warning that names the tracker; later ones are counted, and their number is said by a
    second warning when the logger is closed. Every call is tried, so a server that comes back gets what comes then.
    Errors of this package, :class:`~torchrl.errors.TorchRLError`, pass through: a metric that is no number is a mistake
    of who logs it, not of the tracker.

    >>> class Broken(Logger):
    ...     def log_scalars(self, metrics, step):
    ...         raise OSError("no route to host")
    ...
    ...     def log_text(self, name, text, step): ...
    ...
    ...     def close(self): ...
    >>> logger = Tolerant(Broken(), "my server")
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     logger.log_scalars({"loss": 0.5}, step=128)
    >>> print(caught[0].message)
    my server: log_scalars failed with OSError: no route to host. The run goes on; later failures are counted.

    Args:
        logger: the tracker; closed with this one.
        name: of the tracker, for the warnings.

    Attributes:
        num_failures: calls that raised.
    """

    def __init__(self, logger: Logger, name: str) -> None:
        self.logger = logger
        self.name = name
        self.num_failures = 0
        self._num_told = 0

    def pass_on(self, method: str, *arguments: object) -> None:
        """Call a method of the tracker, and count the call if it raises."""
        try:
            getattr(self.logger, method)(*arguments)
        except TorchRLError:
            raise
        except Exception as error:
            self.num_failures += 1
            if self.num_failures == 1:
                self._num_told = 1
                hint = "The run goes on; later failures are counted."
                what = f"{self.name}: {method} failed with {type(error).__name__}: {error}".rstrip(".")
                warnings.warn(f"{what}. {hint}", stacklevel=3)

    def close(self) -> None:
        """Close the tracker, and say how many calls have failed if the first was not the only one."""
        self.pass_on("close")
        if self.num_failures > self._num_told:
            self._num_told = self.num_failures
            warnings.warn(f"{self.name}: {self.num_failures:,} calls failed; its record is not whole.", stacklevel=2)
