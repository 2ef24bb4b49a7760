"""The weights of a policy in shared memory: the learner writes them there, workers read them. Trains nothing."""

from __future__ import annotations

import copy
import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn

from torchrl.errors import ConfigError, ProcessError, explain
from torchrl.modules.lazy import lazy_tensors
from torchrl.processes.shared_memory import MakeArray, SharedMemory, size_of

COPY, VERSION = 0, 1  # in the header: the number of the copy, and the version of its weights
BROKEN = -1  # instead of the copy's number, while it is being written
LOCK_S = 10.0  # the longest wait for another process to copy weights


class SharedWeights:
    """Write a policy's parameters and buffers into shared memory, from which worker processes read them.

    A lock of the kernel, which is released when its holder dies, keeps a reader from seeing half a copy. If writing is
    broken off (Ctrl-C), nobody reads the weights until they are written again.

    Args:
        policy: the policy being trained; its lazy parameters must be initialised.

    Raises:
        ConfigError: the policy has parameters that were not initialised.
    """

    def __init__(self, policy: nn.Module) -> None:
        require_initialised(policy)
        self._policy = policy
        cut = partial(_cut, tensors_of(policy))
        self.memory = SharedMemory(size_of(cut))
        self._header, self._shared = cut(self.memory.array)
        self._num_copies = 0
        self.publish(0)

    def snapshot(self) -> list[torch.Tensor]:
        """Return a copy of the policy's present weights, for :meth:`publish` later."""
        return [tensor.detach().clone() for tensor in tensors_of(self._policy)]

    @torch.no_grad()
    def publish(self, version: int, weights: Sequence[torch.Tensor] | None = None) -> None:
        """Write ``weights`` and their version into shared memory; None writes the policy's present weights.

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
    """Copy the weights that a :class:`SharedWeights` has written into a worker process's copy of the policy.

    Args:
        policy: a copy of the trained policy, changed by :meth:`refresh`.
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
        """Copy the published weights into the policy if their version is new; return whether it was."""
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
    """List the parameters and buffers of a policy, each once."""
    return [*module.parameters(), *module.buffers()]


def has_weights(policy: object) -> bool:
    """Answer whether a policy is a module with parameters or buffers."""
    return isinstance(policy, nn.Module) and bool(tensors_of(policy))


def on_cpu(policy: Callable | None) -> Callable | None:
    """Return the policy itself if all its tensors are on the CPU, else a copy that is."""
    if not has_weights(policy) or all(tensor.device.type == "cpu" for tensor in tensors_of(policy)):
        return policy
    return copy.deepcopy(policy).cpu()


def require_module(who: str, policy: Callable | None) -> None:
    """Refuse a policy that is no torch module: its weights, if it has any, cannot be sent to workers.

    Raises:
        ConfigError: it is a plain callable.
    """
    if policy is not None and not isinstance(policy, nn.Module):
        hint = "Write it as a torch.nn.Module; one without parameters will do."
        expected = "a torch module, whose weights can be sent to the workers"
        raise ConfigError(explain(f"{who}, policy", expected=expected, got=type(policy).__name__, hint=hint))


def require_initialised(policy: nn.Module) -> None:
    """Refuse a policy with lazy parameters, which cannot be copied.

    Raises:
        ConfigError: naming them.
    """
    lazy = lazy_tensors(policy)
    if lazy:
        hint = "Call it once, or initialise_lazy_(policy, env.reset()), before it is copied."
        raise ConfigError(explain("policy", expected="initialised parameters", got=f"lazy {lazy}", hint=hint))


def cut_tensor(shape: Sequence[int], dtype: torch.dtype, make: MakeArray) -> torch.Tensor:
    """Make a tensor in memory that ``make(shape, dtype)`` returns, also of a dtype that numpy lacks, as bfloat16."""
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
        expected = f"the {len(shared)} parameters and buffers that it began with, of the same shapes and dtypes"
        hint = "Make a new collector for a changed policy."
        raise ConfigError(explain("policy", expected=expected, got=f"{len(weights)}, or of other shapes", hint=hint))


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                expected = f"access to the weights within {LOCK_S:g} s"
                raise ProcessError(
                    explain("SharedWeights", expected=expected, got="a lock that another process holds")
                ) from None
            time.sleep(5e-5)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)
