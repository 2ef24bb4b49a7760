"""Start child processes in one of three ways, and end them without fail. Knows nothing of what they do.

Imports no torch, so that a child that needs no torch starts in milliseconds. Three ways to start a child:

- ``"forkserver"``: a small server process imports what the children need, once, and forks each in milliseconds. It has
  one thread and no library state, so forking it is safe. The default.
- ``"spawn"``: a fresh interpreter for each child: as safe, and slower by the imports.
- ``"fork"``: a copy of this process: as fast, but it inherits locks and CUDA in whatever state they are. Only for a
  process without other threads.

In all three the child gets its work by message, never by importing ``__main__``: a script needs no
``if __name__ == "__main__"``. A child ignores Ctrl-C, which reaches the whole terminal, and SIGTERM, which schedulers
send to all processes of a job: ending the child is left to its parent. If the parent ends in any way, even killed, the
child ends by itself within about a second.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from types import FrameType

import numpy as np

from torchrl.errors import ConfigError, ProcessError, explain
from torchrl.processes.channels import PeerGone

START_METHODS = ("forkserver", "spawn", "fork")
PR_SET_PDEATHSIG = 1  # of Linux's prctl
START_S = 300.0  # for a process to import what it needs, however busy the machine
WATCH_S = 0.5  # how often a child looks whether its parent is there
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
Serve = Callable[[socket.socket], None]

_children: weakref.WeakSet[Child] = weakref.WeakSet()
_servers: dict[str, ForkServer] = {}
_starting = threading.RLock()


class Child:
    """A handle on a child process: read its exit status, wait for its end, or kill it.

    Args:
        pid: number of the process.
        poll: returns the exit status once the process has ended (minus the signal that killed it), else None.

    Raises:
        ProcessError: the number is that of no single process.
    """

    def __init__(self, pid: int, poll: Callable[[], int | None]) -> None:
        self.pid = pid
        self._poll = poll
        self._status: int | None = None
        self._owner = os.getpid()
        if pid <= 0:  # a signal to it would go to a whole group
            raise ProcessError(explain("Child", expected="the number of a process", got=pid))
        _children.add(self)

    def status(self) -> int | None:
        """Return the exit status, minus the signal if one killed it; None while it runs."""
        if self._status is None:
            self._status = self._poll()
        return self._status

    def join(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` for the process to end; answer whether it has."""
        deadline, pause_s = time.monotonic() + timeout_s, 0.0005
        while self.status() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.02)
        return True

    def kill(self) -> None:
        """Kill the process, if it runs and was started by this process; may be called twice."""
        if os.getpid() == self._owner and self.status() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.join(5.0)

    def describe(self) -> str:
        """Say in words how the process ended, or that it is still running."""
        status = self.status()
        if status is None:
            return "still running"
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def start_child(serve: str, *, start_method: str = "forkserver") -> tuple[Child, socket.socket]:
    """Start a process that calls ``serve`` with one end of a socket; return the child and the other end.

    Args:
        serve: ``"module:function"``, called with the socket; the child ends when it returns. This process has imported
            the module, too, which ``"fork"`` relies on.
        start_method: one of ``START_METHODS``.

    Raises:
        ConfigError: no such start method.
        ProcessError: the process could not be started.
    """
    if start_method not in START_METHODS:
        expected = f"one of {', '.join(START_METHODS)}"
        raise ConfigError(explain("start_method", expected=expected, got=repr(start_method)))
    ours, theirs = socket.socketpair()
    with _starting, theirs:
        try:
            _close_all_at_exit()
            start = {"forkserver": _by_server, "spawn": _by_interpreter, "fork": _by_fork}[start_method]
            return start(serve, theirs), ours
        except BaseException:
            ours.close()
            raise


def _by_interpreter(serve: str, theirs: socket.socket) -> Child:
    process = _interpreter(serve, "run_child", theirs)
    return Child(process.pid, process.poll)


def _by_fork(serve: str, theirs: socket.socket) -> Child:
    parent, descriptor = os.getpid(), theirs.fileno()
    sys.stdout.flush()  # or the copy would print what waits here once more
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _run_forked(lambda: run_child(serve, os.dup(descriptor), parent))
    return Child(pid, lambda: _exit_status_of(pid))


def _by_server(serve: str, theirs: socket.socket) -> Child:
    server = _servers.get(serve)
    if server is None or not server.is_usable():
        server = _servers[serve] = ForkServer(serve)
    return server.fork(theirs)


def _interpreter(serve: str, function: str, theirs: socket.socket) -> subprocess.Popen:
    """Start a Python process that imports ``serve``'s module, then calls ``function`` of this module with a socket."""
    module = serve.partition(":")[0]
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda *_: None)\n"  # at once
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"import {module}, torchrl.processes.children\n"
        f"torchrl.processes.children.{function}({serve!r}, {theirs.fileno()}, {os.getpid()})"
    )
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
        )
    except OSError as error:
        raise ProcessError(explain("start of a process", expected="a new interpreter", got=error)) from error


class ForkServer:
    """A helper process that imports once what the children need, and then forks each child in milliseconds.

    Args:
        serve: see :func:`start_child`.
    """

    def __init__(self, serve: str) -> None:
        self._owner = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _interpreter(serve, "run_server", theirs)
        self._socket = ours
        self._socket.settimeout(START_S)  # its first answer comes when it has imported what it serves
        self._lock = threading.RLock()
        self._numbers = count()
        self._answers: dict[int, bytes] = {}  # answers to earlier questions, which another caller still waits for

    def is_usable(self) -> bool:
        """Answer whether the server runs and was started by this process, not by one that this was forked from."""
        return self._owner == os.getpid() and self._process.poll() is None

    def fork(self, theirs: socket.socket) -> Child:
        """Let the server fork a child that serves the given socket, and return the child.

        Raises:
            ProcessError: the server has failed (its message is on the standard error), or it cannot fork.
        """
        try:
            answer = self._ask(b"fork", [theirs.fileno()])
        except OSError as error:
            self._process.kill()
            self._process.wait()
            hint = "Its messages are on the standard error."
            expected, got = f"a child process within {START_S:g} s, its own start included", f"none ({error})"
            raise ProcessError(explain("fork server", expected=expected, got=got, hint=hint)) from error
        if not answer.isdigit():
            raise ProcessError(explain("fork server", expected="a child process", got=answer.decode()))
        pid = int(answer)
        return Child(pid, lambda: self._status_of(pid))

    def _status_of(self, pid: int) -> int | None:
        if os.getpid() != self._owner:
            return None
        try:
            answer = self._ask(b"wait %d" % pid)
        except OSError:  # children do not outlive their server
            return -signal.SIGKILL
        return None if answer == b"runs" else int(answer)

    def _ask(self, request: bytes, descriptors: Sequence[int] = ()) -> bytes:
        """Send a request to the server and return its answer.

        Requests and answers carry numbers: garbage collection may send another request in the middle of this one, and
        Ctrl-C may leave an earlier answer unread.
        """
        with self._lock:
            number = next(self._numbers)
            socket.send_fds(self._socket, [b"%d %b" % (number, request)], list(descriptors))
            while number not in self._answers:
                answer = self._socket.recv(256)
                if not answer:
                    raise ConnectionResetError("the fork server has ended")
                its_number, _, text = answer.partition(b" ")
                self._answers[int(its_number)] = text
            return self._answers.pop(number)

    def close(self) -> None:
        """End the server; its children follow within a second."""
        self._socket.close()
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()


def run_server(serve: str, descriptor: int, parent: int) -> None:
    """Run the fork server until the parent ends: fork children and report how they ended."""
    own, libc = os.getpid(), ctypes.CDLL(None)
    with socket.socket(fileno=descriptor) as requests:
        requests.settimeout(WATCH_S)
        while os.getppid() == parent:
            try:
                request, descriptors, _, _ = socket.recv_fds(requests, 64, 1)
            except TimeoutError:
                continue
            if not request:
                return
            number, _, request = request.partition(b" ")
            if request == b"fork":
                answer = _fork_child(serve, requests, descriptors[0], own, libc)
            else:
                status = _exit_status_of(int(request.removeprefix(b"wait ")))
                answer = b"runs" if status is None else b"%d" % status
            while os.getppid() == parent:
                try:
                    requests.send(b"%b %b" % (number, answer))
                except TimeoutError:
                    continue
                break


def _fork_child(serve: str, requests: socket.socket, theirs: int, own: int, libc: ctypes.CDLL) -> bytes:
    """Fork a child of the server; return its process id as text, or the reason why forking failed."""
    try:
        pid = os.fork()
    except OSError as error:
        return str(error).encode()
    else:
        if pid == 0:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # also where code that never returns holds the interpreter
            os.close(requests.detach())
            _run_forked(lambda: run_child(serve, theirs, own))
        return b"%d" % pid
    finally:
        os.close(theirs)


def run_child(serve: str, descriptor: int, parent: int) -> None:
    """Run in a child process: serve the socket and return, or exit soon after the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _ignore_sigterm()
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    module, _, name = serve.partition(":")
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(PeerGone):
        getattr(sys.modules[module], name)(connection)


def _ignore_sigterm() -> None:
    """Ignore SIGTERM in this process; processes that it starts or forks later end on SIGTERM as usual."""
    own = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a copy made by fork; other programs begin without handlers
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handle)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


def _run_forked(run: Callable[[], None]) -> None:
    """Call ``run`` in a forked child, then exit without the exit handlers that the child copied from its parent."""
    status = 1
    try:
        np.random.seed()  # or the global streams would be those of its siblings
        random.seed()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        run()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _exit_status_of(pid: int) -> int | None:
    """Return the exit status of a child that has ended, minus the signal if one killed it; None while it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # somebody else in this process has waited for it
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None


def _close_all_at_exit() -> None:
    atexit.unregister(_kill_children)
    atexit.register(_kill_children)


def _kill_children() -> None:
    for child in list(_children):
        child.kill()
    for server in _servers.values():
        server.close()
    _servers.clear()
