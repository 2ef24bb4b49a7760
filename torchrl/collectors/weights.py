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
from torchrl.processes.shared_memory import MakeArray, SharedMemory, size_of

COPY, VERSION = 0, 1  # in the header: which copy this is, and the version it is called by
BROKEN = -1  # in the place of the copy's number, while it is being made
LOCK_S = 10.0  # the longest wait for another process to copy weights


class SharedWeights:
    """Parameters and buffers of a policy (strengths of exploration and statistics included) in shared memory.

    A lock of the kernel, which a process that dies gives back, keeps a copy from being torn; one that was broken off
    (Ctrl-C) is nobody's until it is made again.

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
        self._policy = policy
        cut = partial(_cut, tensors_of(policy))
        self.memory = SharedMemory(size_of(cut))
        self._header, self._shared = cut(self.memory.array)
        self._num_copies = 0
        self.publish(0)

    def snapshot(self) -> list[torch.Tensor]:
        """Copy the present weights, to be published later."""
        return [tensor.detach().clone() for tensor in tensors_of(self._policy)]

    @torch.no_grad()
    def publish(self, version: int, weights: Sequence[torch.Tensor] | None = None) -> None:
        """Write weights, the present ones if None, as the given version.

        Raises:
            ConfigError: the policy has other tensors than it began with.
        """
        weights = tensors_of(self._policy) if weights is None else weights
        _require_same_form(weights, self._shared)
        with _locked(self.memory.descriptor):
            self._header[COPY] = BROKEN
            for shared, tensor in zip(self._shared, weights, strict=True):
                shared.copy_(tensor)
            self._num_copies += 1
            self._header[VERSION], self._header[COPY] = version, self._num_copies


class WeightReader:
    """The other end of :class:`SharedWeights`, beside a copy of the policy.

    Args:
        policy: a copy of the policy that publishes, changed by :meth:`refresh`.
        descriptor: of the shared memory.
        size: of the shared memory.

    Attributes:
        version: of the weights that the copy has.
    """

    def __init__(self, policy: nn.Module, descriptor: int, size: int) -> None:
        self._policy = policy
        self._memory = SharedMemory(size, descriptor)
        self._header, self._shared = _cut(tensors_of(policy), self._memory.array)
        self._copy = 0
        self.version = 0

    @torch.no_grad()
    def refresh(self) -> bool:
        """Take over the weights if they were written anew; answer whether they were."""
        with _locked(self._memory.descriptor):
            number = int(self._header[COPY])
            if number in (self._copy, BROKEN):
                return False
            mine = tensors_of(self._policy)
            _require_same_form(mine, self._shared)
            for tensor, shared in zip(mine, self._shared, strict=True):
                tensor.copy_(shared)
            self.version = int(self._header[VERSION])
        self._copy = number
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
    return make((2,), np.dtype(np.int64)), [cut_tensor(tensor.shape, tensor.dtype, make) for tensor in tensors]


def _require_same_form(weights: Sequence[torch.Tensor], shared: Sequence[torch.Tensor]) -> None:
    forms = [[(tensor.shape, tensor.dtype) for tensor in tensors] for tensors in (shared, weights)]
    if forms[0] != forms[1]:
        expected = f"the {len(shared)} parameters and buffers it began with, of the same shapes and dtypes"
        hint = "Make a new collector for a changed policy."
        raise ConfigError(explain("policy", expected=expected, got=f"{len(weights)}, or other ones", hint=hint))


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
