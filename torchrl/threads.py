"""Binding of a library's threads to the core of the thread that waits for them, where Linux allows it.

Waking a thread on a core that sleeps costs more than many steps of a cheap world: on a virtual machine with two cores
an EnvPool of 64 CartPoles takes 61 µs a step from the caller's own core and 121 from the other one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path

TASKS = Path("/proc/self/task")


def start_apart(build: Callable) -> tuple[object, list[int]]:
    """Call ``build()``; return what it returned and the system's ids of the threads that it started and left running.

    Other threads may start threads meanwhile. So the caller gives up one of its cores while ``build`` runs: threads
    with that set of cores, which they inherit, are those of ``build``. All get the caller's cores back afterwards.

    Returns:
        The result, and no ids where the system cannot say or the process has one core.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if len(allowed) < 2 or not TASKS.is_dir():
        return build(), []
    marked = allowed - {min(allowed)}
    before = set(TASKS.iterdir())
    os.sched_setaffinity(0, marked)
    try:
        result = build()
    finally:
        os.sched_setaffinity(0, allowed)
    started = [int(task.name) for task in TASKS.iterdir() if task not in before]
    return result, [thread for thread in started if _cores_of(thread) == marked and _bind(thread, allowed)]


class SameCore:
    """Bind a library's threads to the core that the calling thread runs on, at each :meth:`follow`.

    Args:
        threads: ids as :func:`start_apart` gives them; none make every call free.
    """

    def __init__(self, threads: Sequence[int]) -> None:
        self._threads = list(threads)
        self._core = -1
        self._here = getattr(ctypes.CDLL(None), "sched_getcpu", None) if self._threads else None

    def follow(self) -> None:
        """Bind the threads to the core that the caller runs on, unless the last call bound them to it."""
        if self._here is None or (core := self._here()) == self._core:
            return
        self._core = core
        self._threads = [thread for thread in self._threads if _bind(thread, {core})]


def _cores_of(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:  # it has ended since it was listed
        return set()


def _bind(thread: int, cores: set[int]) -> bool:
    """Let a thread run on these cores only; return whether it is there still."""
    try:
        os.sched_setaffinity(thread, cores)
    except ProcessLookupError:
        return False
    return True
