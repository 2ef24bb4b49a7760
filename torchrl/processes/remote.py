"""Build an object in a child process and call its methods by message, with deadlines. Knows no environment.

A function builds the object in the child; ``cloudpickle`` sends the function and its arguments, by value, except what
lies in shared memory. The object's class lists in ``COMMANDS`` which methods may be called. Imports no torch.
"""

from __future__ import annotations

import os
import pickle
import select
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torchrl.errors import DeadlineError, ProcessError, explain
from torchrl.processes.channels import (
    END,
    STALL_S,
    Channel,
    Patience,
    PeerGone,
    pack_error,
    to_frame,
    to_pickle,
    too_late,
    unpack_error,
)
from torchrl.processes.children import START_S, Child, start_child
from torchrl.processes.parcels import Parcel, pack

CLOSE_S = 1.0  # the time an object has to close itself


class RemoteObject:
    """Start a child process that builds an object, and call the object's methods there by message.

    ``post`` sends a call and ``answer`` waits for what it returns; answers come in the order of the calls. An exception
    in the child is raised here with its type, its traceback in a note; the object lives on. If the child dies, a
    :class:`ProcessError` is raised; if it does not answer in time, a :class:`DeadlineError`. Then the object is lost.

    Args:
        name: for messages, for example ``"worker 1 (rows 2 to 3)"``.
        serve: ``"module:function"`` that calls :func:`~torchrl.processes.serving.serve_object`; a fork server imports
            its module beforehand.
        build: called in the child, returns the object.
        arguments: of ``build``.
        start_method: see :func:`~torchrl.processes.children.start_child`.
        start_timeout_s: the longest wait for the first answer, which comes when the child has imported what it needs
            and the object is built; other deadlines begin after it.
        parcel_of: called with every object inside ``arguments``, returns a :class:`~torchrl.processes.parcels.Parcel`
            for one to share instead of copy; None copies all.
    """

    def __init__(
        self,
        name: str,
        serve: str,
        build: Callable[..., object],
        *arguments: object,
        start_method: str = "forkserver",
        start_timeout_s: float = START_S,
        parcel_of: Callable[[object], Parcel | None] | None = None,
    ) -> None:
        self.name = name
        self.start_timeout_s = start_timeout_s
        self.has_started = False
        # Refuses what cannot be sent before anything is started.
        work, descriptors = pack((build, arguments), parcel_of)
        self._child, connection = start_child(serve, start_method=start_method)
        self._channel = Channel(connection, stall_s=start_timeout_s)
        self._is_closed = False
        self._owner = os.getpid()
        weakref.finalize(self, _end, self._child, self._channel)  # where nobody closes it
        surroundings = {"path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ)}
        self.post_frame(to_frame((surroundings, work, len(descriptors))), descriptors)
        self._channel.allow_stall(STALL_S)

    @property
    def pid(self) -> int:
        """Number of the child process."""
        return self._child.pid

    @property
    def where(self) -> str:
        """The object's name and process id, for messages."""
        return f"{self.name}, process {self.pid}"

    def post(self, command: str, *arguments: object, descriptors: Sequence[int] = ()) -> None:
        """Send a call without waiting for its result; the method gets the ``descriptors`` as its first arguments."""
        self.post_frame(call_frame(command, *arguments, num_descriptors=len(descriptors)), descriptors)

    def post_frame(self, frame: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a call that :func:`call_frame` prepared.

        Raises:
            ProcessError: the child has died.
            DeadlineError: the child does not read; it was killed.
        """
        self._require_open()
        try:
            self._channel.send_frame(frame)
            if descriptors:
                self._channel.send_descriptors(descriptors)
        except PeerGone:
            raise self.death() from None
        except TimeoutError:
            self.kill()
            if not self.has_started:
                raise self.too_late(self.start_timeout_s) from None
            raise too_late(self.where, "a reader of messages", STALL_S) from None

    def answer(self, timeout_s: float) -> Any:
        """Wait for what the earliest unanswered call returns.

        Raises:
            ProcessError: the child has died.
            DeadlineError: it did not answer in time. Or what the call raised.
        """
        return answers([self], timeout_s)[0]

    def call(self, command: str, *arguments: object, timeout_s: float, descriptors: Sequence[int] = ()) -> Any:
        """Send a call and wait for what it returns."""
        self.post(command, *arguments, descriptors=descriptors)
        return self.answer(timeout_s)

    def receive(self, timeout_s: float) -> tuple[bool, Any]:
        """Wait for the earliest call's answer; return whether it succeeded, and its result or its packed exception.

        Raises:
            TimeoutError: no answer came in time; the caller may wait again.
            ProcessError: the child has died.
        """
        self._require_open()
        try:
            answer = self._channel.receive_bytes(timeout_s)
        except PeerGone:
            raise self.death() from None
        self.has_started = True
        try:
            return pickle.loads(answer)
        except Exception as error:  # it is answered all the same
            return False, pack_error(error)

    def has_died(self) -> bool:
        """Answer whether the process has ended."""
        return self._is_closed or self._child.status() is not None

    def has_died_silently(self) -> bool:
        """Answer whether the process has ended and no answer of it is left to read."""
        return self.has_died() and not self._channel.has_input()

    def death(self) -> ProcessError:
        """Wait a moment for the process to end, else kill it; close the channel, and return the error that says how."""
        self._child.join(CLOSE_S)
        how = self._child.describe()
        self.kill()
        hint = "If the kernel killed it, it may have run out of memory; what it printed is on the standard error."
        return ProcessError(explain(self.where, expected="a running process", got=how, hint=hint))

    def too_late(self, timeout_s: float, awaited: str = "an answer") -> DeadlineError:
        """Return the error that says that the child did not answer a call, or did not start, in time.

        It says that the child was stopped, which the caller does: this kills nothing.
        """
        if self.has_started:
            return too_late(self.where, awaited, timeout_s)
        return too_late(self.where, "a start (imports and what it builds)", timeout_s, "start_timeout_s")

    def ask_to_end(self) -> bool:
        """Send the child the message to close its object and end, without waiting; answer whether it could be sent."""
        was_closed, self._is_closed = self._is_closed, True
        return not was_closed and os.getpid() == self._owner and self._channel.try_send(END)

    def join(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` for the process to end; answer whether it has."""
        return self._child.join(timeout_s)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Let the object close itself, then end the process, by force after ``timeout_s``; may be called twice."""
        close_all([self], timeout_s)

    def kill(self) -> None:
        """Kill the process and close the channel to it; may be called twice."""
        self._is_closed = True
        _end(self._child, self._channel)

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when an answer comes or the child dies; -1 once closed."""
        return self._channel.fileno()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ProcessError(explain(self.name, expected="a running process", got="one that was closed"))
        if os.getpid() != self._owner:
            got = "a copy of the process that started it, made by os.fork()"
            raise ProcessError(explain(self.name, expected="the process that started it", got=got))

    def __repr__(self) -> str:
        return f"RemoteObject({self.name}, process {self.pid})"


def _end(child: Child, channel: Channel) -> None:
    channel.close()
    child.kill()


def call_frame(command: str, *arguments: object, num_descriptors: int = 0) -> bytes:
    """Pickle a call into bytes to send; arguments are pickled apart: a child that cannot read them still answers."""
    return to_frame((command, to_pickle(arguments) if arguments else b"", num_descriptors))


# ---- several at once -------------------------------------------------------------------------------------------------


def answers(remotes: Sequence[RemoteObject], timeout_s: float) -> list:
    """Wait for one answer from each remote object, then raise their first exception, or return the results in order.

    A remote object that has not finished starting has its ``start_timeout_s`` instead of ``timeout_s``.

    Raises:
        ProcessError: a process has died; raised at once, while others are busy. Their answers can be read later.
        DeadlineError: a process did not answer in time, and was killed.
    """
    patience = Patience(timeout_s)
    results, failure = [], None
    for index, remote in enumerate(remotes):
        succeeded, result = _receive_in_time(remote, remotes[index + 1 :], patience, timeout_s)
        if not succeeded and failure is None:
            failure = unpack_error(result, remote.where)
        results.append(result)
    if failure is not None:
        raise failure
    return results


def _receive_in_time(
    remote: RemoteObject, others: Sequence[RemoteObject], patience: Patience, timeout_s: float
) -> tuple[bool, object]:
    if not remote.has_started:
        patience, timeout_s = Patience(remote.start_timeout_s), remote.start_timeout_s
    while True:
        try:
            return remote.receive(patience.slice_s())
        except TimeoutError as error:
            if isinstance(error, ProcessError):
                raise
            if patience.is_over():
                remote.kill()
                raise remote.too_late(timeout_s) from None
            for other in others:  # a child that could not build its object says why, and ends
                if other.has_died_silently():
                    raise other.death() from None


def ready(remotes: Sequence[RemoteObject], timeout_s: float) -> list[RemoteObject]:
    """Return the remote objects that have an answer or have died; wait at most ``timeout_s`` for the first."""
    poll = select.poll()
    for remote in remotes:
        if remote.fileno() >= 0:
            poll.register(remote.fileno(), select.POLLIN)
    closed = [remote for remote in remotes if remote.fileno() < 0]
    found = {descriptor for descriptor, _ in poll.poll(0 if closed else timeout_s * 1000)}
    return [remote for remote in remotes if remote.fileno() < 0 or remote.fileno() in found]


def close_all(remotes: Sequence[RemoteObject], timeout_s: float = CLOSE_S) -> None:
    """Close several remote objects at the same time: all are asked to end, and killed after ``timeout_s`` in all."""
    deadline = time.monotonic() + timeout_s
    try:
        asked = [remote for remote in remotes if remote.ask_to_end()]
        for remote in asked:
            remote.join(max(0.0, deadline - time.monotonic()))
    finally:
        for remote in remotes:
            remote.kill()
