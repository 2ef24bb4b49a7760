"""Messages between two processes over a socket: whole, with a deadline, exceptions included. Starts no process.

Imports no torch. What one end sends is pickled, by ``cloudpickle`` where plain pickle cannot name a thing (a class or
function of ``__main__``, a closure); a class sent out and back is the same class again.
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
import time
import traceback
from collections.abc import Sequence

import cloudpickle

from torchrl.errors import DeadlineError, ProcessError, explain

HEADER = struct.Struct("<Q")
STALL_S = 60.0  # the longest pause inside a message
SLICE_S = 0.2  # a wait looks up so often whether what it waits for can still come


class PeerGone(Exception):
    """The other end was closed: its process has ended."""


class Channel:
    """One end of a connected stream socket. Not for several threads at once.

    Args:
        connection: the socket; this one closes it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.settimeout(STALL_S)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def fileno(self) -> int:
        """Return the file descriptor, to wait for several channels at once."""
        return self._socket.fileno()

    def send(self, message: object) -> None:
        """Send one message.

        Raises:
            PeerGone: nobody is there to read it.
        """
        self.send_frame(framed(message))

    def send_frame(self, frame: bytes) -> None:
        """Send a message that was prepared by :func:`framed`, for those that are sent often."""
        try:
            self._socket.sendall(frame)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGone from error

    def receive(self, timeout_s: float | None = None) -> object:
        """Wait for one message and return it.

        Args:
            timeout_s: seconds to wait for its first byte; None waits for ever.

        Raises:
            PeerGone: the other end was closed.
            TimeoutError: nothing came in time, or the message broke off.
        """
        if not self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            raise TimeoutError
        (size,) = HEADER.unpack(self._read(HEADER.size))
        return pickle.loads(self._read(size))

    def send_descriptors(self, descriptors: Sequence[int]) -> None:
        """Hand open files over; the other end calls :meth:`receive_descriptors` for them as its next step."""
        socket.send_fds(self._socket, [b"+"], list(descriptors))

    def receive_descriptors(self, num: int) -> list[int]:
        """Receive open files, which are this process's own from then on."""
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, num)
        if len(descriptors) != num:
            raise PeerGone
        return list(descriptors)

    def close(self) -> None:
        """Close this end; may be called twice."""
        self._socket.close()

    def _read(self, size: int) -> bytes | bytearray:
        try:
            first = self._socket.recv(size)
            if len(first) == size:
                return first
            data = bytearray(first)
            while first and len(data) < size:
                first = self._socket.recv(min(size - len(data), 1 << 20))
                data += first
        except ConnectionResetError as error:
            raise PeerGone from error
        if len(data) < size:
            raise PeerGone
        return data


def framed(message: object) -> bytes:
    """Return a message as the bytes that go over a channel."""
    try:
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    except Exception:  # whatever plain pickle stumbles over, cloudpickle either can do or explains
        data = cloudpickle.dumps(message)
    return HEADER.pack(len(data)) + data


def until(deadline: float) -> float:
    """Return for how long to wait before looking up, at most until ``deadline`` on the monotonic clock."""
    return max(0.0, min(SLICE_S, deadline - time.monotonic()))


# ---- exceptions ------------------------------------------------------------------------------------------------------


def packed_error(error: BaseException) -> dict:
    """Prepare an exception for :func:`unpacked_error` in another process, traceback included."""
    text = "".join(traceback.format_exception(error)).rstrip()
    packed = {"name": type(error).__name__, "text": text, "whole": None, "parts": None}
    try:
        packed["whole"] = cloudpickle.dumps(error)
        pickle.loads(packed["whole"])  # an exception whose constructor takes other arguments than its `args` fails here
    except Exception:
        packed["whole"] = None
        try:
            packed["parts"] = cloudpickle.dumps((type(error), error.args, vars(error)))
        except Exception:
            packed["parts"] = None  # then its text has to do
    return packed


def unpacked_error(packed: dict, where: str) -> BaseException:
    """Rebuild an exception with its type and attributes, and a note that says where it was raised.

    One that cannot be sent becomes a :class:`ProcessError` that holds its text.
    """
    try:
        error = _rebuilt(packed)
    except Exception as reason:
        error = ProcessError(f"{packed['name']}, which could not be brought here ({reason})")
    error.add_note(f"Raised in {where}:\n{packed['text']}")
    return error


def _rebuilt(packed: dict) -> BaseException:
    if packed["whole"] is not None:
        return pickle.loads(packed["whole"])
    if packed["parts"] is None:
        return ProcessError(f"{packed['name']}, which cannot be pickled")
    kind, arguments, attributes = pickle.loads(packed["parts"])
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(attributes)
    return error


def too_late(who: str, doing: str, timeout_s: float) -> DeadlineError:
    """Say that an answer did not come in time."""
    hint = "It was stopped. Raise timeout_s if it needs longer."
    return DeadlineError(explain(who, expected=f"{doing} within {timeout_s:g} s", got="no answer", hint=hint))
