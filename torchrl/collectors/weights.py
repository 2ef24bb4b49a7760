"""The weights of a policy in shared memory: one process publishes them, others take them over. Trains nothing."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn

from torchrl.errors import ConfigError, ProcessError, explain
from torchrl.modules.lazy import lazy_tensors
from torchrl.shared_memory import MakeArray, SharedMemory, size_of

LOCK_S = 10.0  # the longest wait for another process to copy weights


class SharedWeights:
    """Parameters and buffers of a policy (strengths of exploration and statistics included) in shared memory.

    A lock of the kernel, which a process that dies gives back, keeps a copy from being torn.

    Args:
        policy: what is trained, initialised.

    Raises:
        ConfigError: it has parameters that were not initialised.
    """

    def __init__(self, policy: nn.Module) -> None:
        lazy = lazy_tensors(policy)
        if lazy:
            hint = "Call it once, or initialise_lazy_(policy, env.reset()), before it is copied."
            raise ConfigError(explain("policy", expected="initialised parameters", got=f"lazy {lazy}", hint=hint))
        self._tensors = tensors_of(policy)
        cut = partial(_cut, self._tensors)
        self.memory = SharedMemory(size_of(cut))
        self._version, self._shared = cut(self.memory.array)
        self.publish(0)

    @torch.no_grad()
    def publish(self, version: int) -> None:
        """Write the present weights, as the given version."""
        with _locked(self.memory.descriptor):
            for shared, tensor in zip(self._shared, self._tensors, strict=True):
                shared.copy_(tensor)
            self._version[0] = version


class WeightReader:
    """The other end of :class:`SharedWeights`, beside a copy of the policy.

    Args:
        policy: a copy of the policy that publishes, changed by :meth:`refresh`.
        descriptor: of the shared memory.
        size: of the shared memory.
    """

    def __init__(self, policy: nn.Module, descriptor: int, size: int) -> None:
        self._tensors = tensors_of(policy)
        self._memory = SharedMemory(size, descriptor)
        self._version, self._shared = _cut(self._tensors, self._memory.array)
        self.version = -1

    @torch.no_grad()
    def refresh(self) -> bool:
        """Take over the weights if there are newer ones; answer whether there were."""
        with _locked(self._memory.descriptor):
            version = int(self._version[0])
            if version == self.version:
                return False
            for tensor, shared in zip(self._tensors, self._shared, strict=True):
                tensor.copy_(shared)
        self.version = version
        return True


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """List what makes a copy of a policy act alike: parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]


def cut_tensor(shape: Sequence[int], dtype: torch.dtype, make: MakeArray) -> torch.Tensor:
    """Cut the memory of one tensor; numpy need not know its dtype."""
    size = torch.Size(shape).numel() * dtype.itemsize
    if size == 0:
        return torch.zeros(shape, dtype=dtype)
    array = make((size,), np.dtype(np.uint8))
    if not array.flags.writeable:  # where only sizes are counted
        return torch.empty(0)
    return torch.from_numpy(array).view(dtype).view(shape)


def _cut(tensors: Sequence[torch.Tensor], make: MakeArray) -> tuple[np.ndarray, list[torch.Tensor]]:
    return make((1,), np.dtype(np.int64)), [cut_tensor(tensor.shape, tensor.dtype, make) for tensor in tensors]


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                expected = f"the weights to be free within {LOCK_S:g} s"
                raise ProcessError(explain("SharedWeights", expected=expected, got="a copy that goes on")) from None
            time.sleep(5e-5)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)
