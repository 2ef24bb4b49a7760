"""Ctrl-C as a wish rather than an accident. Knows nothing of agents."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType


class InterruptGuard:
    """Turn the first Ctrl-C inside the ``with`` block into a flag; a second one raises KeyboardInterrupt as usual.

    The handler found on entry is put back on exit. Python delivers signals to the main thread only; elsewhere the guard
    does nothing and the flag stays down.

    Attributes:
        is_requested: whether Ctrl-C was pressed.
    """

    def __init__(self, message: str = "Stopping after this batch; press Ctrl-C again to stop at once.") -> None:
        self.is_requested = False
        self._message = message
        self._previous: object = None
        self._is_installed = False

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._is_installed = True
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.SIG_DFL if self._previous is None else self._previous)
            self._is_installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True
        print(f"\n{self._message}", file=sys.stderr, flush=True)
