"""Objects that live in a process of their own: calls by message, each with a deadline. Knows no environment.

The object is built in the child by a function that goes there by ``cloudpickle``: by value, but for what lies in shared
memory. Its class lists in ``COMMANDS`` which of its methods may be called from outside. Imports no torch.
"""

from __future__ import annotations

import io
import os
import pickle
import select
import socket
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle

from torchrl.errors import DeadlineError, ProcessError, explain
from torchrl.processes.channels import (
    STALL_S,
    Channel,
    Patience,
    PeerGone,
    framed,
    packed_error,
    pickled,
    too_late,
    unpacked_error,
)
from torchrl.processes.children import START_S, THREADS, Child, start_child

CLOSE_S = 1.0  # the time an object has to close itself
END = None  # the message that ends a child
MAX_DESCRIPTORS = 200  # in one message; Linux takes 253


@dataclass(frozen=True)
class Parcel:
    """How something goes to a process that is not copied there.

    Attributes:
        build: called there with an open file and ``arguments``, returns it.
        arguments: of ``build``.
        descriptor: the open file; None for none.
    """

    build: Callable[..., object]
    arguments: tuple
    descriptor: int | None = None


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
        start_method: see :func:`~torchrl.processes.children.start_child`.
        start_timeout_s: the longest wait for the first answer, which comes when the child has imported what it needs
            and the object is built; other deadlines begin after it.
        parcel_of: asked of everything that ``arguments`` hold, says what is not copied; None copies all.
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
        self.num_pending = 0
        # Refuses what cannot be sent before anything is started.
        work, descriptors = _packed((build, arguments), parcel_of)
        self._child, connection = start_child(serve, start_method=start_method)
        self._channel = Channel(connection, stall_s=start_timeout_s)
        self._is_closed = False
        self._owner = os.getpid()
        weakref.finalize(self, _end, self._child, self._channel)  # where nobody closes it
        surroundings = {"path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ)}
        self._post_frame(framed((surroundings, work, len(descriptors))))
        for chunk in _chunks(descriptors):
            self._channel.send_descriptors(chunk)
        self._channel.allow_stall(STALL_S)

    @property
    def pid(self) -> int:
        """Number of the child process."""
        return self._child.pid

    def post(self, command: str, *arguments: object, descriptors: Sequence[int] = ()) -> None:
        """Send a call; open files in ``descriptors`` come before the arguments, as numbers that are valid there."""
        self._post_frame(_call(command, arguments, len(descriptors)))
        if descriptors:
            try:
                self._channel.send_descriptors(descriptors)
            except PeerGone:
                raise self.death() from None

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
        self._require_open()
        try:
            self._channel.send_frame(frame)
        except PeerGone:
            raise self.death() from None
        except TimeoutError:
            self.kill()
            if not self.has_started:
                raise self.too_late(self.start_timeout_s) from None
            raise too_late(self.where, "a reader of messages", STALL_S) from None
        self.num_pending += 1

    def _require_open(self) -> None:
        if self._is_closed:
            raise ProcessError(explain(self.name, expected="a running process", got="one that was closed"))
        if os.getpid() != self._owner:
            got = "a copy of the process that started it, made by os.fork()"
            raise ProcessError(explain(self.name, expected="the process that started it", got=got))

    def _receive(self, timeout_s: float) -> tuple[bool, Any]:
        self._require_open()
        try:
            answer = self._channel.receive_bytes(timeout_s)
        except PeerGone:
            raise self.death() from None
        self.num_pending -= 1
        self.has_started = True
        try:
            return pickle.loads(answer)
        except Exception as error:  # it is answered all the same
            return False, packed_error(error)

    def death(self) -> ProcessError:
        """Say how the process ended, and close what is left of it here."""
        self._child.join(CLOSE_S)
        how = self._child.describe()
        self.kill()
        hint = "If the kernel killed it, it may have run out of memory; what it printed is on the standard error."
        return ProcessError(explain(self.where, expected="a running process", got=how, hint=hint))

    def too_late(self, timeout_s: float) -> DeadlineError:
        """Say that no answer came in time: to a call, or to the start."""
        if self.has_started:
            return too_late(self.where, "an answer", timeout_s)
        return too_late(self.where, "a start (imports and what it builds)", timeout_s, "start_timeout_s")

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
    return _call(command, (), 0)


def _call(command: str, arguments: tuple, num_descriptors: int) -> bytes:
    """Frame a call. Its arguments are pickled apart: who cannot unpickle them can still tell what was called."""
    return framed((command, pickled(arguments) if arguments else b"", num_descriptors))


def answers(remotes: Sequence[RemoteObject], timeout_s: float) -> list:
    """Wait for one answer from each, then raise the first exception among them, or return them in order.

    Those that have only begun to start have ``start_timeout_s`` for it instead.

    Raises:
        ProcessError: one has died; raised at once, while others are still busy. Their answers can be read later.
        DeadlineError: one did not answer in time, and was killed.
    """
    patience = Patience(timeout_s)
    results, failure = [], None
    for index, remote in enumerate(remotes):
        succeeded, result = _awaited(remote, remotes[index + 1 :], patience, timeout_s)
        if not succeeded and failure is None:
            failure = unpacked_error(result, remote.where)
        results.append(result)
    if failure is not None:
        raise failure
    return results


def _awaited(
    remote: RemoteObject, others: Sequence[RemoteObject], patience: Patience, timeout_s: float
) -> tuple[bool, object]:
    if not remote.has_started:
        patience, timeout_s = Patience(remote.start_timeout_s), remote.start_timeout_s
    while True:
        try:
            return remote._receive(patience.slice_s())
        except TimeoutError as error:
            if isinstance(error, ProcessError):
                raise
            if patience.is_over():
                remote.kill()
                raise remote.too_late(timeout_s) from None
            for other in others:  # one that could not build its object says why, and ends
                if other.has_died() and not other._channel.has_come():
                    raise other.death() from None


def ready(remotes: Sequence[RemoteObject], timeout_s: float) -> list[RemoteObject]:
    """Return those whose earliest call is answered, or that have died; wait at most so long for the first one."""
    poll = select.poll()
    for remote in remotes:
        if remote.fileno() >= 0:
            poll.register(remote.fileno(), select.POLLIN)
    closed = [remote for remote in remotes if remote.fileno() < 0]
    found = {descriptor for descriptor, _ in poll.poll(0 if closed else timeout_s * 1000)}
    return [remote for remote in remotes if remote.fileno() < 0 or remote.fileno() in found]


def close_all(remotes: Sequence[RemoteObject], timeout_s: float = CLOSE_S) -> None:
    """Close several at the same time; see :meth:`RemoteObject.close`."""
    deadline = time.monotonic() + timeout_s
    mine = [remote for remote in remotes if os.getpid() == remote._owner]
    asked = []
    try:
        for remote in mine:
            if not remote._is_closed and remote._channel.try_send(END):
                asked.append(remote)
            remote._is_closed = True
        for remote in asked:
            remote._child.join(max(0.0, deadline - time.monotonic()))
    finally:
        for remote in mine:
            remote.kill()


# ---- what an object is built from ------------------------------------------------------------------------------------


class _Pickler(cloudpickle.Pickler):
    """Pickles by value, but for what ``parcel_of`` recognises; collects the open files that go along."""

    def __init__(self, file: io.BytesIO, parcel_of: Callable[[object], Parcel | None] | None) -> None:
        super().__init__(file)
        self._parcel_of = parcel_of
        self._known: dict[int, tuple] = {}  # what stands for an object, by its id: one that comes twice is sent once
        self.descriptors: list[int] = []

    def persistent_id(self, value: object) -> tuple | None:
        """Return what stands for an object that is not copied."""
        if self._parcel_of is None or id(value) in self._known:
            return self._known.get(id(value))
        parcel = self._parcel_of(value)
        if parcel is None:
            return None
        place = None
        if parcel.descriptor is not None:
            place = len(self.descriptors)
            self.descriptors.append(parcel.descriptor)
        self._known[id(value)] = (len(self._known), place, parcel.build, parcel.arguments)
        return self._known[id(value)]


class _Unpickler(pickle.Unpickler):
    """Reads what :class:`_Pickler` wrote."""

    def __init__(self, file: io.BytesIO, descriptors: Sequence[int]) -> None:
        super().__init__(file)
        self._descriptors = descriptors
        self._built: dict[int, object] = {}

    def persistent_load(self, stands_for: tuple) -> object:
        """Build an object that was not copied; the same one where it comes again."""
        number, place, build, arguments = stands_for
        if number not in self._built:
            self._built[number] = build(None if place is None else self._descriptors[place], *arguments)
        return self._built[number]


def _packed(work: object, parcel_of: Callable[[object], Parcel | None] | None) -> tuple[bytes, list[int]]:
    """Pickle what an object is built from; return it with the open files that go along."""
    file = io.BytesIO()
    pickler = _Pickler(file, parcel_of)
    pickler.dump(work)
    return file.getvalue(), pickler.descriptors


def _chunks(values: Sequence[int]) -> list[Sequence[int]]:
    """Cut into pieces of as many open files as the kernel sends at once."""
    return [values[start : start + MAX_DESCRIPTORS] for start in range(0, len(values), MAX_DESCRIPTORS)]


# ---- in the child ----------------------------------------------------------------------------------------------------


def serve_object(connection: socket.socket) -> None:
    """Build the object that the first message asks for, answer calls until told to end, and close it."""
    channel = Channel(connection, stall_s=None)  # the reader may train for long
    surroundings, work, num_descriptors = channel.receive()
    descriptors = [one for chunk in _chunks(range(num_descriptors)) for one in channel.receive_descriptors(len(chunk))]
    sys.path[:] = surroundings["path"]
    os.chdir(surroundings["folder"])
    _take_environment(surroundings["environment"])
    target = None
    try:
        target = _built(channel, work, descriptors)
        while target is not None:
            message = channel.receive()
            if message is END:
                return
            channel.send_frame(_answered(channel, target, *message))
    finally:
        close = getattr(target, "close", None)
        if close is not None:
            close()


def _take_environment(environment: dict[str, str]) -> None:
    """Have the variables of the parent as they are now, which a fork server's are not; the caps on threads stay."""
    for name in os.environ.keys() - environment.keys() - set(THREADS):
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if name not in THREADS})


def _built(channel: Channel, work: bytes, descriptors: Sequence[int]) -> object:
    try:
        build, arguments = _Unpickler(io.BytesIO(work), descriptors).load()
        target = build(*arguments)
    except Exception as error:
        channel.send((False, packed_error(error)))
        return None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    channel.send((True, None))
    return target


def _answered(channel: Channel, target: object, command: str, arguments: bytes, num_descriptors: int) -> bytes:
    """Do what a call says, and frame the answer: a result, or an exception of any of the steps."""
    descriptors = channel.receive_descriptors(num_descriptors) if num_descriptors else ()
    try:
        if command not in target.COMMANDS:
            expected = f"one of {', '.join(sorted(target.COMMANDS))}"
            raise ProcessError(explain(type(target).__name__, expected=expected, got=repr(command)))
        result = getattr(target, command)(*descriptors, *(pickle.loads(arguments) if arguments else ()))
        return framed((True, result))
    except Exception as error:
        return framed((False, packed_error(error)))
