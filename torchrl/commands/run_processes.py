"""Run pieces of work in processes of their own, several at once, and hear from them. What the work is, they are sent.

A process is a fresh interpreter, so that a run in it is as one of the command line, and one that dies takes no other
with it. What it prints goes to ``output.txt`` in its folder. It does not see Ctrl-C; it ends when its parent ends, even
if that is killed. Where a lock is given, a process holds it, shared, as long as it lives: who holds it alone knows that
none is left. The kernel keeps the lock, so that a killed process lets go of it.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

from torchrl.errors import ConfigError, explain
from torchrl.processes.channels import Channel, Patience, PeerGone
from torchrl.processes.children import start_child

OUTPUT = "output.txt"
INTERRUPTED = 130  # the status of a command that Ctrl-C ended
SERVE = "torchrl.commands.run_processes:serve"
END_S = 30.0  # for a process to end after its last message
ORPHANS_S = 120.0  # for processes to notice that their parent was killed, however busy the machine


class Ask(Protocol):
    """Interface of how a run tells its parent of an evaluation, and hears whether to go on."""

    def __call__(self, evaluation: int, frames: int, mean: float) -> bool:
        """Tell of the evaluation of this number, counted from 1, after ``frames``; return whether to go on."""


Work = Callable[[Path, Ask], None]


class Run:
    """A process that does one piece of work, ``work(folder, ask)``, and then ends.

    Args:
        name: of the run, for the user.
        work: can be pickled.
        folder: is made, for what the run writes and what it prints.
        lock: a file that the process locks, shared, before it begins.
    """

    def __init__(self, name: str, work: Work, folder: Path, *, lock: Path | None = None) -> None:
        self.name, self.folder = name, folder
        folder.mkdir(parents=True)
        self._child, connection = start_child(SERVE, start_method="spawn")
        self._channel = Channel(connection)
        self._channel.send((work, folder, lock))

    def fileno(self) -> int:
        """Return the file descriptor that is ready to read when the run has something to say."""
        return self._channel.fileno()

    def hear(self) -> tuple[int, int, float] | None:
        """Return what the run tells of an evaluation, as :class:`Ask` has it; None if it has ended."""
        try:
            message = self._channel.receive()
            if message == "ready":
                self._channel.send("go")
                return self.hear()
            return message
        except PeerGone:
            self._child.join(END_S)
            return None

    def answer(self, goes_on: bool) -> None:
        """Tell the run whether to go on after the evaluation of which it told."""
        with suppress(PeerGone):  # the next wait hears that it has ended
            self._channel.send(goes_on)

    def error(self) -> str | None:
        """Say why a run that has ended failed: the last line that it printed; None where it ended well."""
        status = self._child.status()
        if status == 0:
            return None
        output = self.folder / OUTPUT
        lines = output.read_text(errors="replace").split("\n") if output.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), self._child.describe())

    def close(self) -> None:
        """Kill the process if it runs; may be called twice."""
        self._child.kill()
        self._channel.close()


def run_all(
    starts: Iterable[Callable[[], Run]],
    num_processes: int,
    *,
    hear: Callable[[Run, int, int, float], bool],
    conclude: Callable[[Run], None],
) -> None:
    """Start runs one after the other, at most ``num_processes`` at once, until all have ended; kill them on an error.

    Args:
        starts: start a run each; the next one is asked for when there is place for it.
        num_processes: how many run at once.
        hear: is told of each evaluation, as ``hear(run, evaluation, frames, mean)``; returns whether the run goes on.
        conclude: is called with each run that has ended, well or not.
    """
    starts, running = iter(starts), []
    try:
        while True:
            while len(running) < num_processes and (start := next(starts, None)) is not None:
                running.append(start())
            if not running:
                return
            for run in select.select(running, [], [])[0]:
                message = run.hear()
                if message is not None:
                    run.answer(hear(run, *message))
                    continue
                running.remove(run)
                run.close()
                conclude(run)
    finally:
        for run in running:
            run.close()


@contextmanager
def held(path: Path, *, shared: bool = False, timeout_s: float | None = None) -> Iterator[None]:
    """Hold the kernel's lock on a file in the ``with`` block; the end of the process lets go of it in any case.

    Args:
        path: of the file, which is made.
        shared: hold it beside others that share it.
        timeout_s: how long to wait for it; None waits as long as it takes.

    Raises:
        ConfigError: another process holds it.
    """
    with path.open("ab") as file:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        patience = None if timeout_s is None else Patience(timeout_s)
        while True:
            try:
                fcntl.flock(file, how if patience is None else how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if patience.is_over():
                    got = "another process that holds it"
                    raise ConfigError(explain(str(path), expected="a lock that is free", got=got)) from None
                select.select([], [], [], patience.slice_s())
        yield


def serve(connection: socket.socket) -> None:
    """Do the work of a :class:`Run` in its process."""
    os.setsid()  # the terminal's Ctrl-C is the parent's
    channel = Channel(connection, stall_s=None)
    work, folder, lock = channel.receive()
    with (folder / OUTPUT).open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
            stream.reconfigure(line_buffering=True)

    def ask(evaluation: int, frames: int, mean: float) -> bool:
        channel.send((evaluation, frames, mean))
        return channel.receive()

    with nullcontext() if lock is None else held(lock, shared=True):
        channel.send("ready")
        channel.receive()  # a parent that was killed meanwhile says nothing, and the work does not begin
        work(folder, ask)
