"""The child's end of a :class:`~torchrl.processes.remote.RemoteObject`: build the object, answer calls, close it."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Sequence

from torchrl.errors import ProcessError, explain
from torchrl.processes.channels import END, Channel, pack_error, to_frame
from torchrl.processes.children import THREADS
from torchrl.processes.parcels import unpack


def serve_object(connection: socket.socket) -> None:
    """Build the object that the first message describes, answer calls until told to end, and close the object."""
    channel = Channel(connection, stall_s=None)  # the reader may train for long
    surroundings, work, num_descriptors = channel.receive()
    descriptors = channel.receive_descriptors(num_descriptors)
    sys.path[:] = surroundings["path"]
    os.chdir(surroundings["folder"])
    _take_environment(surroundings["environment"])
    target = None
    try:
        target = _build(channel, work, descriptors)
        while target is not None:
            message = channel.receive()
            if message is END:
                return
            channel.send_frame(_answer(channel, target, *message))
    finally:
        close = getattr(target, "close", None)
        if close is not None:
            close()


def _take_environment(environment: dict[str, str]) -> None:
    """Set ``os.environ`` to the parent's variables, except those that limit threads: a fork server's may be old."""
    for name in os.environ.keys() - environment.keys() - set(THREADS):
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if name not in THREADS})


def _build(channel: Channel, work: bytes, descriptors: Sequence[int]) -> object:
    try:
        build, arguments = unpack(work, descriptors)
        target = build(*arguments)
    except Exception as error:
        channel.send((False, pack_error(error)))
        return None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    channel.send((True, None))
    return target


def _answer(channel: Channel, target: object, command: str, arguments: bytes, num_descriptors: int) -> bytes:
    """Call the method that ``command`` names, and pickle its result, or the exception raised anywhere on the way."""
    descriptors = channel.receive_descriptors(num_descriptors) if num_descriptors else ()
    try:
        if command not in target.COMMANDS:
            expected = f"one of {', '.join(sorted(target.COMMANDS))}"
            raise ProcessError(explain(type(target).__name__, expected=expected, got=repr(command)))
        result = getattr(target, command)(*descriptors, *(pickle.loads(arguments) if arguments else ()))
        return to_frame((True, result))
    except Exception as error:
        return to_frame((False, pack_error(error)))
