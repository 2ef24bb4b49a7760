"""Send whole messages, exceptions too, between two processes over a socket, with deadlines. Starts no process.

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
STALL_S = 60.0  # the longest pause while a message is sent
SLICE_S = 0.2  # how often a wait looks whether its message can still come
END = None  # the message that ends a child
MAX_DESCRIPTORS = 200  # in one message; Linux takes 253


class PeerGone(Exception):
    """Raised by a read or write on a channel whose other end is closed, for example because its process has ended."""


class Channel:
    """Send and receive whole pickled messages at one end of a socket; only one thread may use it at a time.

    Args:
        connection: the socket; the channel closes it.
        stall_s: the longest pause while a message is being sent; None waits for ever.
    """

    def __init__(self, connection: socket.socket, *, stall_s: float | None = STALL_S) -> None:
        self._socket = connection
        self._socket.settimeout(stall_s)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._size: int | None = None  # of the message that is coming, once its header is there
        self._come = bytearray()  # the part of it that has come: a wait that ends early goes on in the next call

    def allow_stall(self, stall_s: float) -> None:
        """Change the longest pause while a message is being sent."""
        self._socket.settimeout(stall_s)

    def fileno(self) -> int:
        """Return the file descriptor, to wait for several channels at once; -1 once closed."""
        return self._socket.fileno()

    def send(self, message: object) -> None:
        """Send one message.

        Raises:
            PeerGone: the other end was closed.
            TimeoutError: the other end did not read for ``stall_s``.
        """
        self.send_frame(to_frame(message))

    def send_frame(self, frame: bytes) -> None:
        """Send bytes that :func:`to_frame` made; a message for several channels is pickled only once this way.

        Raises:
            PeerGone: the other end was closed.
            TimeoutError: the other end did not read for ``stall_s``.
        """
        try:
            self._socket.sendall(frame)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGone from error

    def try_send(self, message: object) -> bool:
        """Send a short message if the socket takes it at once; answer whether the whole of it was sent.

        For the last message alone: where it answers no, a part may have gone, and the other end cannot read on.
        """
        frame = to_frame(message)
        try:
            return self._socket.send(frame, socket.MSG_DONTWAIT) == len(frame)
        except OSError:
            return False

    def has_input(self) -> bool:
        """Answer whether some bytes of a message have come and wait to be received."""
        try:
            return bool(self._come) or bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def receive(self, timeout_s: float | None = None) -> object:
        """Wait for one message and return it, unpickled; waits and errors are those of :meth:`receive_bytes`."""
        return pickle.loads(self.receive_bytes(timeout_s))

    def receive_bytes(self, timeout_s: float | None = None) -> bytes | bytearray:
        """Wait for one message and return its pickled bytes.

        Args:
            timeout_s: seconds to wait for the whole message; None waits for ever. After a timeout the next call goes
                on with the bytes that came so far.

        Raises:
            PeerGone: the other end was closed.
            TimeoutError: the message did not come whole in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            missing = (HEADER.size if self._size is None else self._size) - len(self._come)
            if missing == 0 and self._size is None:
                (self._size,) = HEADER.unpack(self._come)
                self._come = bytearray()
                continue
            if missing == 0:
                message, self._size, self._come = self._come, None, bytearray()
                return message
            wait_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not self._poll.poll(wait_ms):
                raise TimeoutError
            try:
                part = self._socket.recv(min(missing, 1 << 20))
            except ConnectionResetError as error:
                raise PeerGone from error
            if not part:
                raise PeerGone
            self._come += part

    def send_descriptors(self, descriptors: Sequence[int]) -> None:
        """Send open files to the other process, which must call :meth:`receive_descriptors` next; they stay open here.

        Raises:
            PeerGone: the other end was closed.
        """
        try:
            for start in range(0, len(descriptors), MAX_DESCRIPTORS):
                socket.send_fds(self._socket, [b"+"], list(descriptors[start : start + MAX_DESCRIPTORS]))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGone from error

    def receive_descriptors(self, num: int) -> list[int]:
        """Wait for ``num`` open files and return their numbers; this process must close them."""
        received: list[int] = []
        while len(received) < num:
            expected = min(MAX_DESCRIPTORS, num - len(received))
            _, descriptors, _, _ = socket.recv_fds(self._socket, 1, expected)
            received += descriptors
            if len(descriptors) != expected:
                raise PeerGone
        return received

    def close(self) -> None:
        """Close this end; may be called twice."""
        self._socket.close()


def to_frame(message: object) -> bytes:
    """Return a message as the bytes that go over a channel."""
    data = to_pickle(message)
    return HEADER.pack(len(data)) + data


def to_pickle(message: object) -> bytes:
    """Pickle a message so that another process can read it, also where its classes or functions are of ``__main__``."""
    try:
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    except Exception:  # cloudpickle can do it, or says why not
        return cloudpickle.dumps(message)
    # Plain pickle names what is of __main__, and the other process has another __main__.
    return cloudpickle.dumps(message) if b"__main__" in data else data


class Patience:
    """Count down the seconds left to wait for an answer; time that this process spends stopped or busy hardly counts.

    Between two calls of :meth:`is_over` at most ``2 * SLICE_S`` seconds are subtracted. So an answer is not called late
    only because this process was stopped (Ctrl-Z) or busy with a long update, and could not read it.

    Args:
        timeout_s: how long the waits may last in all.
    """

    def __init__(self, timeout_s: float) -> None:
        self._left_s = timeout_s
        self._last_look = time.monotonic()

    def slice_s(self) -> float:
        """Return how many seconds to wait for the answer before the next call of :meth:`is_over`."""
        return max(0.0, min(SLICE_S, self._left_s))

    def is_over(self) -> bool:
        """Subtract the time since the last call from what is left, and answer whether nothing is left."""
        now = time.monotonic()
        self._left_s -= min(now - self._last_look, 2 * SLICE_S)
        self._last_look = now
        return self._left_s <= 0


# ---- exceptions ------------------------------------------------------------------------------------------------------


def pack_error(error: BaseException) -> dict:
    """Turn an exception and its traceback into a dict that can be sent; :func:`unpack_error` rebuilds it there."""
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


def unpack_error(packed: dict, where: str) -> BaseException:
    """Rebuild an exception with its type and attributes, and add a note with ``where`` and the original traceback.

    An exception that cannot be pickled becomes a :class:`ProcessError` with the same note.
    """
    try:
        error = _rebuild_error(packed)
    except Exception as reason:
        error = ProcessError(f"{packed['name']}, which could not be unpickled here ({reason})")
    error.add_note(f"Raised in {where}:\n{packed['text']}")
    return error


def _rebuild_error(packed: dict) -> BaseException:
    if packed["whole"] is not None:
        return pickle.loads(packed["whole"])
    if packed["parts"] is None:
        return ProcessError(f"{packed['name']}, which cannot be pickled")
    kind, arguments, attributes = pickle.loads(packed["parts"])
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(attributes)
    return error


def too_late(who: str, doing: str, timeout_s: float, argument: str = "timeout_s") -> DeadlineError:
    """Return the error for a process that did not answer within ``timeout_s``; it is not raised here.

    The message always says that the process was stopped: the caller kills it.

    Args:
        who: the process that did not answer.
        doing: what it should have done by then.
        timeout_s: how long it was waited for, in seconds.
        argument: the name of the deadline that the user may raise.
    """
    hint = f"It was stopped. Raise {argument} if it needs longer."
    return DeadlineError(explain(who, expected=f"{doing} within {timeout_s:g} s", got="no answer", hint=hint))
