"""Ctrl-C and SIGTERM as a flag that a loop can look at. Knows nothing of agents."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType

TERMINATED = 128 + signal.SIGTERM  # the exit status by which shells and schedulers know who was asked to end


class InterruptGuard:
    """Turn the first Ctrl-C inside the ``with`` block into a flag; a second one raises KeyboardInterrupt as usual.

    SIGTERM, by which schedulers, containers and ``kill`` ask a process to end, becomes the same flag; a second one
    raises SystemExit with status 143, and so does the end of a block that ended well after the first. If the program
    handles SIGTERM already, its handler stays.

    The handlers found on entry are put back on exit. Python delivers signals to the main thread only; elsewhere the
    guard does nothing and the flag stays down.

    >>> with InterruptGuard() as guard:
    ...     while not guard.is_requested:  # until Ctrl-C
    ...         break
    >>> guard.is_requested
    False

    Attributes:
        is_requested: whether Ctrl-C was pressed or SIGTERM came.
    """

    def __init__(self, message: str = "Stopping after this batch; press Ctrl-C again to stop at once.") -> None:
        self.is_requested = False
        self._message = message
        self._is_terminated = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous = {}
        if self._is_terminated and error is None:
            raise SystemExit(TERMINATED)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True
        print(f"\n{self._message}", file=sys.stderr, flush=True)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if self._is_terminated:
            raise SystemExit(TERMINATED)
        self.is_requested = self._is_terminated = True
        print("\nSIGTERM: stopping after this batch; a second one stops at once.", file=sys.stderr, flush=True)
