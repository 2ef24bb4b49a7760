"""Objects that live in a process of their own: calls by message, each with a deadline. Knows no environment.

The object is built in the child by a function that goes there by ``cloudpickle``. Its class lists in ``COMMANDS`` which
of its methods may be called from outside. Imports no torch.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle

from torchrl.channels import Channel, PeerGone, framed, packed_error, too_late, unpacked_error, until
from torchrl.errors import ProcessError, explain
from torchrl.processes import THREADS, Child, start_child

CLOSE_S = 1.0  # the time an object has to close itself
END = None  # the message that ends a child


class RemoteObject:
    """An object in a child process.

    ``post`` sends a call and ``answer`` waits for what it returns; answers come in the order of the calls. An exception
    in the child is raised here with its type, its traceback in a note; the object lives on. A child that dies or does
    not answer in time is a :class:`ProcessError` (:class:`DeadlineError`), and its object is lost.

    Args:
        name: for messages, for example ``"worker 1 (slots 2 to 3)"``.
        serve: ``"module:function"`` that calls :func:`serve_object`; a fork server imports its module beforehand.
        build: called in the child, returns the object.
        arguments: of ``build``.
        start_method: see :func:`~torchrl.processes.start_child`.
    """

    def __init__(
        self, name: str, serve: str, build: Callable[..., object], *arguments: object, start_method: str = "forkserver"
    ) -> None:
        self.name = name
        self.num_pending = 0
        work = cloudpickle.dumps((build, arguments))  # refuses what cannot be sent before anything is started
        self._child, connection = start_child(serve, start_method=start_method)
        self._channel = Channel(connection)
        self._is_closed = False
        weakref.finalize(self, _end, self._child, self._channel)  # where nobody closes it
        surroundings = {"path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ)}
        self._post_frame(framed((surroundings, work)))

    @property
    def pid(self) -> int:
        """Number of the child process."""
        return self._child.pid

    def post(self, command: str, *arguments: object, descriptors: Sequence[int] = ()) -> None:
        """Send a call; open files in ``descriptors`` come before the arguments, as numbers that are valid there."""
        self._post_frame(framed((command, arguments, len(descriptors))))
        if descriptors:
            self._channel.send_descriptors(descriptors)

    def post_frame(self, frame: bytes) -> None:
        """Send a call that :func:`call_frame` prepared."""
        self._post_frame(frame)

    def answer(self, timeout_s: float) -> Any:
        """Wait for what the earliest unanswered call returns.

        Raises:
            ProcessError: the child has died. DeadlineError: it did not answer in time. Or what the call raised.
        """
        return answers([self], timeout_s)[0]

    def call(self, command: str, *arguments: object, timeout_s: float, descriptors: Sequence[int] = ()) -> Any:
        """Send a call and wait for what it returns."""
        self.post(command, *arguments, descriptors=descriptors)
        return self.answer(timeout_s)

    def has_died(self) -> bool:
        """Answer whether the process has ended."""
        return self._is_closed or self._child.status() is not None

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Let the object close itself, then end the process, by force after ``timeout_s``; may be called twice."""
        close_all([self], timeout_s)

    def kill(self) -> None:
        """End the process at once; may be called twice."""
        self._is_closed = True
        _end(self._child, self._channel)

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when an answer comes or the child dies."""
        return self._channel.fileno()

    def _post_frame(self, frame: bytes) -> None:
        if self._is_closed:
            raise ProcessError(explain(self.name, expected="a running process", got="one that was closed"))
        try:
            self._channel.send_frame(frame)
        except PeerGone:
            raise self.death() from None
        except TimeoutError:
            self.kill()
            raise too_late(self.name, "to take a message", 60.0) from None
        self.num_pending += 1

    def _receive(self, timeout_s: float) -> tuple[bool, Any]:
        try:
            answer = self._channel.receive(timeout_s)
        except PeerGone:
            raise self.death() from None
        self.num_pending -= 1
        return answer

    def death(self) -> ProcessError:
        """Say how the process ended, and close what is left of it here."""
        self._child.join(CLOSE_S)
        how = self._child.describe()
        self.kill()
        hint = "If the kernel killed it, it may have run out of memory; what it printed is on the standard error."
        return ProcessError(explain(self.where, expected="a running process", got=how, hint=hint))

    @property
    def where(self) -> str:
        """Say which process this is, for messages."""
        return f"{self.name}, process {self.pid}"

    def __repr__(self) -> str:
        return f"RemoteObject({self.name}, process {self.pid})"


def _end(child: Child, channel: Channel) -> None:
    channel.close()
    child.kill()


def call_frame(command: str) -> bytes:
    """Prepare a call without arguments that is sent often."""
    return framed((command, (), 0))


def answers(remotes: Sequence[RemoteObject], timeout_s: float) -> list:
    """Wait for one answer from each, then raise the first exception among them, or return them in order.

    Raises:
        ProcessError: one has died; it is named at once, whoever else is still busy. The other answers stay to be read.
        DeadlineError: one did not answer in time, and was killed.
    """
    deadline = time.monotonic() + timeout_s
    results, failure = [], None
    for index, remote in enumerate(remotes):
        succeeded, result = _awaited(remote, remotes[index + 1 :], deadline, timeout_s)
        if not succeeded and failure is None:
            failure = unpacked_error(result, remote.where)
        results.append(result)
    if failure is not None:
        raise failure
    return results


def _awaited(
    remote: RemoteObject, others: Sequence[RemoteObject], deadline: float, timeout_s: float
) -> tuple[bool, object]:
    while True:
        try:
            return remote._receive(until(deadline))
        except TimeoutError as error:
            if isinstance(error, ProcessError):
                raise
            if time.monotonic() >= deadline:
                remote.kill()
                raise too_late(remote.where, "an answer", timeout_s) from None
            for other in others:
                if other.has_died():
                    raise other.death() from None


def ready(remotes: Sequence[RemoteObject], timeout_s: float) -> list[RemoteObject]:
    """Return those whose earliest call is answered, or that have died; wait at most so long for the first one."""
    poll = select.poll()
    for remote in remotes:
        poll.register(remote.fileno(), select.POLLIN)
    found = {descriptor for descriptor, _ in poll.poll(timeout_s * 1000)}
    return [remote for remote in remotes if remote.fileno() in found]


def close_all(remotes: Sequence[RemoteObject], timeout_s: float = CLOSE_S) -> None:
    """Close several at the same time; see :meth:`RemoteObject.close`."""
    deadline = time.monotonic() + timeout_s
    opened = [remote for remote in remotes if not remote._is_closed]
    for remote in opened:
        remote._is_closed = True
        try:
            remote._channel.send(END)
        except (PeerGone, TimeoutError):
            continue
    for remote in opened:
        remote._child.join(max(0.0, deadline - time.monotonic()))
        remote.kill()


# ---- in the child ----------------------------------------------------------------------------------------------------


def serve_object(connection: socket.socket) -> None:
    """Build the object that the first message asks for, answer calls until told to end, and close it."""
    channel = Channel(connection)
    surroundings, work = channel.receive()
    sys.path[:] = surroundings["path"]
    os.chdir(surroundings["folder"])
    _take_environment(surroundings["environment"])
    target = None
    try:
        target = _built(channel, work)
        while target is not None:
            message = channel.receive()
            if message is END:
                return
            _answer(channel, target, *message)
    finally:
        close = getattr(target, "close", None)
        if close is not None:
            close()


def _take_environment(environment: dict[str, str]) -> None:
    """Have the variables of the parent as they are now, which a fork server's are not; the caps on threads stay."""
    for name in os.environ.keys() - environment.keys() - set(THREADS):
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if name not in THREADS})


def _built(channel: Channel, work: bytes) -> object:
    try:
        build, arguments = cloudpickle.loads(work)
        target = build(*arguments)
    except Exception as error:
        channel.send((False, packed_error(error)))
        return None
    channel.send((True, None))
    return target


def _answer(channel: Channel, target: object, command: str, arguments: tuple, num_descriptors: int) -> None:
    try:
        if command not in target.COMMANDS:
            expected = f"one of {', '.join(sorted(target.COMMANDS))}"
            raise ProcessError(explain(type(target).__name__, expected=expected, got=repr(command)))
        descriptors = channel.receive_descriptors(num_descriptors) if num_descriptors else ()
        answer = (True, getattr(target, command)(*descriptors, *arguments))
    except Exception as error:
        answer = (False, packed_error(error))
    channel.send(answer)
