"""Memory that several processes see. It has no name in the file system, so nothing is left behind when they end.

The processes that hold a region's file descriptor (Linux ``memfd_create``) own it. The kernel frees the region when the
last of them ends, in whatever way. This module knows nothing of a region's content. It imports no torch.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from math import prod

import numpy as np

from torchrl.errors import ProcessError, explain

ALIGNMENT = 64  # a cache line
MakeArray = Callable[[tuple[int, ...], np.dtype], np.ndarray]


class SharedMemory:
    """A region of memory that several processes see, zeroed at first, from which arrays are cut one after the other.

    Processes that cut the same arrays in the same order see the same numbers in them.

    Args:
        size: in bytes; see :func:`size_of`.
        descriptor: the open file of a region that another process made; None makes a new region.

    Raises:
        ProcessError: there is no memory of that size.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size = max(1, size)
        self._descriptor = os.memfd_create("torchrl", os.MFD_CLOEXEC) if descriptor is None else descriptor
        try:
            if descriptor is None:
                os.ftruncate(self._descriptor, self.size)
            self._region = mmap.mmap(self._descriptor, self.size)
        except OSError as error:
            self.close()
            expected = f"{self.size:,} bytes of shared memory"
            raise ProcessError(explain("SharedMemory", expected=expected, got=error)) from error
        self._used = 0

    @property
    def descriptor(self) -> int:
        """The open file by which another process sees the same memory."""
        return self._descriptor

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Cut the next array of this shape and dtype from the region; the array keeps the memory alive."""
        dtype = np.dtype(dtype)
        start, self._used = self._used, self._used + _padded(shape, dtype)
        if prod(shape) == 0:
            return np.zeros(shape, dtype)
        flat = np.frombuffer(self._region, dtype, count=prod(shape), offset=start)
        return flat.reshape(shape)

    def close(self) -> None:
        """Close the descriptor; arrays cut from the region stay usable. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()


def size_of(cut: Callable[[MakeArray], object]) -> int:
    """Return how many bytes ``cut(make)`` needs for all the arrays that it gets from ``make(shape, dtype)``."""
    total = 0

    def count(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        nonlocal total
        total += _padded(shape, np.dtype(dtype))
        return np.broadcast_to(np.zeros((), dtype), shape)

    cut(count)
    return total


def _padded(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
