"""Send tensors in shared memory, and arrays in files, to another process without copying them.

The open file, or its name, is sent, so that both processes see the same numbers. Only for the objects that a process is
built from; see :mod:`torchrl.processes.remote`.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import nn

from torchrl.processes.parcels import Parcel


def parcel_of(value: object, *, copied: Collection[int] = ()) -> Parcel | None:
    """Return the parcel by which a process opens a shared tensor or a memory-mapped array; None for other objects.

    Args:
        value: any object. Tensors in shared memory (``share_memory_()``) and ``np.memmap`` arrays get a parcel.
        copied: addresses of memory (:func:`memory_of`); a tensor there is copied although it is shared: it gets None.
    """
    kind = type(value)
    if kind is torch.Tensor or kind is nn.Parameter:
        is_common = value.device.type == "cpu" and value.layout is torch.strided and value.is_shared()
        if not is_common or memory_of(value) in copied:
            return None
        descriptor, size = value.untyped_storage()._share_fd_cpu_()
        form = (value.dtype, value.shape, value.stride(), value.storage_offset())
        return Parcel(tensor_in, (size, *form, value.requires_grad, kind is nn.Parameter), descriptor)
    if kind is np.memmap and not isinstance(value.base, np.memmap) and value.mode in ("r", "r+", "w+"):
        mode = "r" if value.mode == "r" else "r+"
        order = "C" if value.flags.c_contiguous else "F"
        return Parcel(array_in, (value.filename, value.dtype, mode, value.offset, value.shape, order))
    return None


def memory_of(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's memory; a parameter and its data share one."""
    return tensor.untyped_storage().data_ptr()


def tensor_in(
    descriptor: int,
    size: int,
    dtype: torch.dtype,
    shape: torch.Size,
    stride: tuple[int, ...],
    offset: int,
    requires_grad: bool,
    is_parameter: bool,
) -> torch.Tensor:
    """Rebuild a tensor, or a parameter, over the shared memory of ``size`` bytes behind an open file."""
    storage = torch.UntypedStorage._new_shared_fd_cpu(descriptor, size)  # it opens the file once more for itself
    tensor = torch.empty(0, dtype=dtype).set_(storage, offset, shape, stride)
    return nn.Parameter(tensor, requires_grad) if is_parameter else tensor.requires_grad_(requires_grad)


def array_in(
    descriptor: None, path: str, dtype: np.dtype, mode: str, offset: int, shape: tuple[int, ...], order: str
) -> np.memmap:
    """Open an array in a file as a ``np.memmap``, without copying it."""
    return np.memmap(path, dtype, mode, offset, shape, order)
