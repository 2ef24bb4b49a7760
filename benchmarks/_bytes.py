"""How many bytes of memory an object holds: every tensor and array that its attributes lead to, each once."""

from __future__ import annotations

import numpy as np
import torch


def held_bytes(owner: object) -> dict[str, int]:
    """Return the bytes of the tensors and arrays below an object, by the shortest path that holds each."""
    found: dict[int, tuple[str, int]] = {}
    seen: set[int] = set()
    left = [(type(owner).__name__, owner)]
    while left:
        path, value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            memory = value.untyped_storage()
            _note(found, memory.data_ptr(), path, memory.nbytes())
        elif isinstance(value, np.ndarray):
            while isinstance(value.base, np.ndarray):
                value = value.base
            _note(found, value.__array_interface__["data"][0], path, value.nbytes)
        elif isinstance(value, dict):
            left += [(f"{path}[{key!r}]", inner) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            left += [(f"{path}[{at}]", inner) for at, inner in enumerate(value)]
        elif hasattr(value, "__dict__") and type(value).__module__.startswith("torchrl"):
            left += [(f"{path}.{key}", inner) for key, inner in vars(value).items()]
    return {path: num_bytes for path, num_bytes in found.values() if num_bytes}


def _note(found: dict[int, tuple[str, int]], address: int, path: str, num_bytes: int) -> None:
    shown, most = found.get(address, (path, 0))
    if num_bytes > most or (num_bytes == most and len(path) < len(shown)):
        found[address] = (path, num_bytes)
