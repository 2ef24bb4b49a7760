"""A pool of workers: objects in processes of their own that are started, called, replaced and closed together.

Parallel environments, collectors and the evaluation beside training use it in two ways::

    pool.start()                       start all at the same time, return when every object is built
    pool.call("reset")                 call all, wait for all: results in the order of the workers
    pool.call_each("freeze", {1: a})   call some, each with arguments of its own

    pool.request(0, "collect")         send a call that takes long, and return at once
    pool.finished(0.2)                 which requests have ended meanwhile: [(0, its result or its exception)]
    pool.replace(0)                    kill worker 0 and start a new process in its place
    pool.revive(0, error)              replace worker 0 after its process has died, ``max_restarts`` times at most

If a process dies during a *call*, or Ctrl-C breaks the call off, the pool closes: later calls would take the unread
answers for their own. A *request* concerns one worker: if its process dies, :meth:`WorkerPool.finished` reports the
error, and the caller replaces the worker or closes the pool. Imports no torch, and knows nothing of environments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from torchrl.errors import ConfigError, ProcessError, explain
from torchrl.processes.channels import Patience
from torchrl.processes.children import START_S
from torchrl.processes.parcels import Parcel
from torchrl.processes.remote import CLOSE_S, RemoteObject, answers, call_frame, close_all, ready


@dataclass(frozen=True)
class Job:
    """What a worker process builds: the object that ``build(*arguments)`` returns there.

    Attributes:
        name: for messages, for example ``"worker 1 (rows 2 to 3)"``.
        build: builds the object; its class lists in ``COMMANDS`` which methods may be called.
        arguments: of ``build``.
        parcel_of: says which parts of ``arguments`` are not copied, see :class:`RemoteObject`.
    """

    name: str
    build: Callable[..., object]
    arguments: tuple
    parcel_of: Callable[[object], Parcel | None] | None = None


@contextmanager
def undone_if_lost(undo: Callable[[], object]) -> Iterator[None]:
    """Call ``undo`` if the ``with`` block raises a :class:`ProcessError` or is broken off (Ctrl-C).

    >>> try:
    ...     with undone_if_lost(lambda: print("closed")):
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt:
    ...     pass
    closed

    Args:
        undo: closes or forgets what a late answer could still reach; after other errors it is not called.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, ProcessError) or not isinstance(error, Exception):
            undo()
        raise


class WorkerPool:
    """Start worker processes that hold one object each, call the objects' methods, and close the processes.

    Args:
        who: for messages, for example ``"ParallelEnv"``.
        serve: ``"module:function"``, see :class:`RemoteObject`.
        job_of: returns the job of a worker by its index; called whenever a worker is started.
        num_workers: how many workers there are.
        start_method: see :mod:`torchrl.processes.children`.
        timeout_s: the longest wait for the answers to a call, and for a request to end.
        start_timeout_s: the longest wait for a worker to start: to import what it needs and build its object.
        awaited: what a request should return, for messages.
        max_restarts: how often in a row :meth:`revive` starts a worker again before one of its requests succeeds.

    Raises:
        ConfigError: a deadline is not positive.
    """

    def __init__(
        self,
        who: str,
        serve: str,
        job_of: Callable[[int], Job],
        num_workers: int = 1,
        *,
        start_method: str = "forkserver",
        timeout_s: float,
        start_timeout_s: float = START_S,
        awaited: str = "an answer",
        max_restarts: int = 0,
    ) -> None:
        for name, value in (("timeout_s", timeout_s), ("start_timeout_s", start_timeout_s)):
            if not value > 0:
                raise ConfigError(explain(f"{who}, {name}", expected="a positive number of seconds", got=value))
        self.who = who
        self.num_workers = num_workers
        self._serve = serve
        self._job_of = job_of
        self._how = {"start_method": start_method, "start_timeout_s": start_timeout_s}
        self._timeout_s = timeout_s
        self._awaited = awaited
        self._max_restarts = max_restarts
        self._remotes: list[RemoteObject] = []
        self._requests: dict[int, Patience] = {}  # by worker: how long to wait for what it was asked for
        self._losses: dict[int, ProcessError] = {}  # of workers that could not be asked
        self._failures: dict[int, int] = {}  # by worker: how often it was lost since a request succeeded

    # ---- start and end -----------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether the pool was started and has not been closed since."""
        return bool(self._remotes)

    @property
    def pids(self) -> list[int]:
        """The process id of each worker; empty while the pool does not run."""
        return [remote.pid for remote in self._remotes]

    def start(self) -> None:
        """Start all workers, if they do not run, and wait until their objects are built.

        Raises:
            ProcessError: a process cannot be started. Or what building an object raised; no worker runs then.
        """
        if self._remotes:
            return
        try:
            for index in range(self.num_workers):
                self._remotes.append(self._start_worker(index))
            answers(self._remotes, self._timeout_s)  # the first failure is raised when all have answered
        except BaseException:
            self.close()
            raise

    def replace(self, index: int) -> None:
        """Kill a worker and start another in its place, whose object is built anew.

        Raises:
            ProcessError: it cannot be started, or was lost meanwhile. Or what building its object raised.
        """
        self.kill(index)
        self._remotes[index] = self._start_worker(index)
        self._remotes[index].answer(self._timeout_s)

    def revive(self, index: int, error: ProcessError, prepare: Callable[[], None] | None = None) -> None:
        """Replace a worker whose process has died, and again if the replacement dies; ``max_restarts`` times at most.

        The count begins anew when a request of the worker succeeds.

        Args:
            index: of the worker.
            error: says how the process ended.
            prepare: called after each replacement.

        Raises:
            ProcessError: the last loss, where there were more than ``max_restarts`` in a row. Or what building the
                object, or ``prepare``, raised.
        """
        while self._failures.get(index, 0) < self._max_restarts:
            self._failures[index] = self._failures.get(index, 0) + 1
            try:
                self.replace(index)
                if prepare is not None:
                    prepare()
            except ProcessError as another:
                error = another
            else:
                return
        if self._max_restarts:
            error.add_note(f"{self._max_restarts + 1} processes in a row were lost without {self._awaited}.")
        raise error

    def kill(self, index: int) -> None:
        """Kill the process of one worker, and forget its unfinished request."""
        self._requests.pop(index, None)
        self._losses.pop(index, None)
        self._remotes[index].kill()

    def has_died(self, index: int) -> bool:
        """Answer whether the process of a worker has ended."""
        return self._remotes[index].has_died()

    def losses(self) -> dict[int, ProcessError]:
        """Return an error for each worker whose process has died, by its index; nothing is replaced or closed."""
        return {index: remote.death() for index, remote in enumerate(self._remotes) if remote.has_died()}

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Let all objects close themselves, and end the processes after ``timeout_s`` at most; may be called twice."""
        remotes, self._remotes = self._remotes, []
        self._requests, self._losses, self._failures = {}, {}, {}
        close_all(remotes, timeout_s)

    def closed_if_lost(self) -> AbstractContextManager[None]:
        """Close the pool if the ``with`` block raises a :class:`ProcessError` or is broken off (Ctrl-C)."""
        return undone_if_lost(self.close)

    # ---- calls -------------------------------------------------------------------------------------------------------

    def call(self, command: str, *arguments: object, descriptors: Sequence[int] = ()) -> list:
        """Call all workers with the same arguments and return the results in their order.

        Waits and errors are those of :meth:`call_each`: a lost process closes the pool.
        """
        return self.call_each(command, dict.fromkeys(range(self.num_workers), arguments), descriptors=descriptors)

    def call_each(self, command: str, arguments: Mapping[int, tuple], *, descriptors: Sequence[int] = ()) -> list:
        """Call some workers, each with arguments of its own, and wait for all results.

        Args:
            command: the method to call.
            arguments: of each worker, by its index.
            descriptors: open files that go along, see :meth:`RemoteObject.post`.

        Returns:
            The results, in the order of ``arguments``.

        Raises:
            ProcessError: a process was lost, or the pool does not run; it is closed then. Or the first exception that a
                method raised, when all have answered.
        """
        self._require_running()
        frames = {  # all before the first is sent: what cannot be pickled leaves no call without its answer read
            index: call_frame(command, *own, num_descriptors=len(descriptors)) for index, own in arguments.items()
        }
        with self.closed_if_lost():
            for index, frame in frames.items():
                self._remotes[index].post_frame(frame, descriptors)
            return answers([self._remotes[index] for index in frames], self._timeout_s)

    def call_frame(self, frame: bytes) -> list:
        """Send all workers one call that :func:`~torchrl.processes.remote.call_frame` pickled; return their results.

        As :meth:`call`, but a pool that does not run is not refused: the list is empty then.
        """
        with self.closed_if_lost():
            for remote in self._remotes:
                remote.post_frame(frame)
            return answers(self._remotes, self._timeout_s)

    def call_one(self, index: int, command: str, *arguments: object, descriptors: Sequence[int] = ()) -> Any:
        """Call one worker and return its result; if its process dies, the other workers keep running.

        Raises:
            ProcessError: its process was lost. Or what the method raised.
        """
        return self._remotes[index].call(command, *arguments, timeout_s=self._timeout_s, descriptors=descriptors)

    # ---- requests ----------------------------------------------------------------------------------------------------

    def request(self, index: int, command: str, *arguments: object) -> None:
        """Send one worker a call and return without waiting; :meth:`finished` reports its result or error later.

        Its ``timeout_s`` begins now, but is looked at only in :meth:`finished`. A worker has one request at a time.
        """
        frame = call_frame(command, *arguments)
        self._requests[index] = Patience(self._timeout_s)
        try:
            self._remotes[index].post_frame(frame)
        except ProcessError as error:
            self._losses[index] = error

    def is_busy(self, index: int) -> bool:
        """Answer whether this worker has a request that :meth:`finished` has not reported yet."""
        return index in self._requests

    @property
    def has_requests(self) -> bool:
        """Whether any worker has a request that :meth:`finished` has not reported yet."""
        return bool(self._requests)

    def finished(self, wait_s: float) -> list[tuple[int, Any]]:
        """Report the requests that have ended, each once; wait at most ``wait_s`` for the first.

        Returns:
            Pairs of a worker's index and its outcome: the result, the exception that the method raised, or a
            :class:`ProcessError` where the process died. A worker that exceeds ``timeout_s`` is killed, and its
            outcome is a :class:`DeadlineError`.
        """
        with self.closed_if_lost():
            done = self._ended_requests(0.0 if self._losses else wait_s)
            outcomes = [(index, self._losses.pop(index, None) or self._outcome(index)) for index in done]
            for index in done:
                del self._requests[index]
            for index in [index for index, patience in self._requests.items() if patience.is_over()]:
                self.kill(index)
                outcomes.append((index, self._remotes[index].too_late(self._timeout_s, self._awaited)))
            return outcomes

    def _ended_requests(self, wait_s: float) -> list[int]:
        """List the workers whose request was answered or whose process died; wait at most ``wait_s`` for the first."""
        indices = {id(self._remotes[index]): index for index in self._requests}
        remotes = ready([self._remotes[index] for index in self._requests], wait_s)
        return list(dict.fromkeys([*(indices[id(remote)] for remote in remotes), *self._losses]))

    def _outcome(self, index: int) -> Any:
        try:
            result = self._remotes[index].answer(self._timeout_s)
        except Exception as error:
            return error
        self._failures.pop(index, None)
        return result

    def _start_worker(self, index: int) -> RemoteObject:
        job = self._job_of(index)
        return RemoteObject(job.name, self._serve, job.build, *job.arguments, parcel_of=job.parcel_of, **self._how)

    def _require_running(self) -> None:
        if not self._remotes:
            raise ProcessError(explain(self.who, expected="running workers", got="workers that were closed"))

    def __repr__(self) -> str:
        return f"WorkerPool({self.who}, {self.num_workers} workers, processes {self.pids})"
