"""Pickle the objects that a new process needs; those in shared memory are sent as open files instead of copied."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cloudpickle


@dataclass(frozen=True)
class Parcel:
    """Describe how another process rebuilds an object over the same memory: a function, arguments and an open file.

    Attributes:
        build: the other process calls it with the open file and ``arguments``; it returns the object.
        arguments: of ``build``.
        descriptor: the open file; None for none.
    """

    build: Callable[..., object]
    arguments: tuple
    descriptor: int | None = None


def pack(work: object, parcel_of: Callable[[object], Parcel | None] | None) -> tuple[bytes, list[int]]:
    """Pickle ``work`` for another process; return the bytes, and the descriptors of the files to send along.

    ``parcel_of`` returns a :class:`Parcel` for an object that is sent without a copy, and None for one to pickle.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, parcel_of)
    pickler.dump(work)
    return file.getvalue(), pickler.descriptors


def unpack(data: bytes, descriptors: Sequence[int]) -> object:
    """Rebuild what :func:`pack` pickled, given the open files as this process received them."""
    return _Unpickler(io.BytesIO(data), descriptors).load()


class _Pickler(cloudpickle.Pickler):
    """Pickle by value, except objects that ``parcel_of`` gives a parcel for; collect these parcels' open files."""

    def __init__(self, file: io.BytesIO, parcel_of: Callable[[object], Parcel | None] | None) -> None:
        super().__init__(file)
        self._parcel_of = parcel_of
        self._known: dict[int, tuple] = {}  # what stands for an object, by its id: an object is sent once
        self.descriptors: list[int] = []

    def persistent_id(self, value: object) -> tuple | None:
        """Return the tuple that is pickled in place of an object with a parcel; None for an object to pickle whole."""
        if self._parcel_of is None or id(value) in self._known:
            return self._known.get(id(value))
        parcel = self._parcel_of(value)
        if parcel is None:
            return None
        position = None
        if parcel.descriptor is not None:
            position = len(self.descriptors)
            self.descriptors.append(parcel.descriptor)
        self._known[id(value)] = (len(self._known), position, parcel.build, parcel.arguments)
        return self._known[id(value)]


class _Unpickler(pickle.Unpickler):
    """Read what :class:`_Pickler` wrote."""

    def __init__(self, file: io.BytesIO, descriptors: Sequence[int]) -> None:
        super().__init__(file)
        self._descriptors = descriptors
        self._built: dict[int, object] = {}

    def persistent_load(self, stands_for: tuple) -> object:
        """Build the object that ``stands_for`` describes, once: the same description returns the same object."""
        number, position, build, arguments = stands_for
        if number not in self._built:
            self._built[number] = build(None if position is None else self._descriptors[position], *arguments)
        return self._built[number]
