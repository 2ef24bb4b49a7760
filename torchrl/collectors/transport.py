"""Batches in shared memory: describe a batch's layout, make tensors for it in given memory, copy a batch out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.weights import cut_tensor
from torchrl.errors import SpecError, explain
from torchrl.layouts import Form, describe_differences
from torchrl.processes.shared_memory import MakeArray
from torchrl.unchecked import new_tensordict

Layout = dict[str, Any]


def layout_of(batch: TensorDictBase) -> Layout:
    """Return the layout of a batch ``[B, ...]`` without its number of rows: dtype and shape of each entry, by name."""
    entries = {}
    for key in sorted(batch.keys()):
        value = batch.get(key)
        if isinstance(value, TensorDictBase):
            entries[key] = layout_of(value)
        else:
            entries[key] = (value.dtype, tuple(value.shape[1:]))
    return {"batch_size": tuple(batch.batch_size[1:]), "entries": entries}


def cut_batch(layout: Layout, num_rows: int, make: MakeArray) -> TensorDict:
    """Make a batch ``[num_rows, ...]`` with the entries of ``layout``, in memory that ``make(shape, dtype)`` gives."""
    entries = {}
    for key, entry in layout["entries"].items():
        if isinstance(entry, dict):
            entries[key] = cut_batch(entry, num_rows, make)
        else:
            dtype, shape = entry
            entries[key] = cut_tensor((num_rows, *shape), dtype, make)
    return new_tensordict(entries, torch.Size((num_rows, *layout["batch_size"])))


def copy_out(shared: TensorDict, device: torch.device | None) -> TensorDict:
    """Return a copy of a batch in shared memory, on a device; None is the CPU."""
    return shared.clone() if device is None or device.type == "cpu" else shared.to(device)


def require_one_layout(layouts: Sequence[Layout], names: Sequence[str]) -> None:
    """Refuse workers whose batches have other keys, shapes or dtypes than those of the first.

    Raises:
        SpecError: naming the worker and the entries.
    """
    for layout, name in zip(layouts, names, strict=True):
        if layout != layouts[0]:
            got = describe_differences(_leaves(layout), _leaves(layouts[0]))
            expected = f"batches of one layout from all workers, as from {names[0]}"
            raise SpecError(explain(name, expected=expected, got=got))


def _leaves(layout: Layout, path: str = "") -> dict[str, Form]:
    leaves = {}
    for key, entry in layout["entries"].items():
        if isinstance(entry, dict):
            leaves |= _leaves(entry, f"{path}{key}/")
        else:
            dtype, shape = entry
            leaves[f"{path}{key}"] = (shape, dtype, None)
    return leaves
