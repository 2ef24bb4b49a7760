"""The memory that a collector records one batch after the other in: pictures are written once, into their batch."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.loop import allocate, contiguous_copy

LARGE = 4096  # bytes of an entry in one row at one step; smaller blocks are not worth a call each
Path = tuple[str, ...]


class Recording:
    """Hold the memory in which a collector records the steps of one batch after the other.

    Small entries are recorded in memory that stays, and are copied into the batch that is handed out. A large one, such
    as a picture, is recorded in memory that its batch takes along: the copy would cost several times the recording.

    >>> transition, _ = env.step_and_reset(actor(env.reset()))
    >>> recording = Recording(transition, 5)
    >>> len(recording.steps), recording.take().shape
    (5, torch.Size([2, 5]))

    Args:
        transition: ``[*B]``, with the keys, shapes and dtypes of every step.
        num_steps: how many steps a batch has, T.

    Attributes:
        steps: a writer for each step.
    """

    def __init__(self, transition: TensorDictBase, num_steps: int) -> None:
        self._batch, self.steps = allocate(transition, num_steps)
        self._large = [path for path in _paths(self._batch) if _bytes_of_row(self._batch, path) >= LARGE]
        self._is_taken = True
        self.renew()

    def keys(self) -> list[str]:
        """List the first level of keys."""
        return list(self._batch.keys())

    def renew(self) -> None:
        """Give large entries new memory if a batch took theirs along; needed before each batch."""
        if self._large and self._is_taken:
            views: list[dict[Path, torch.Tensor]] = [{} for _ in self.steps]
            for path in self._large:
                last = self._batch.get(path)
                memory = torch.empty(last.shape, dtype=last.dtype, device=last.device)
                self._batch.set(path, memory)
                for step, view in zip(views, memory.unbind(self._batch.ndim - 1), strict=True):
                    step[path] = view
            for step, moved in zip(self.steps, views, strict=True):
                step.move_(moved)
        self._is_taken = False

    def take(self) -> TensorDict:
        """Return the batch, ``[*B, T]`` in contiguous memory; after :meth:`renew` no later batch shares it."""
        self._is_taken = True
        return contiguous_copy(self._batch, self._large)


def _paths(batch: TensorDict) -> list[Path]:
    keys = batch.keys(include_nested=True, leaves_only=True)
    return [key if isinstance(key, tuple) else (key,) for key in keys]


def _bytes_of_row(batch: TensorDict, path: Path) -> int:
    """Return the bytes of an entry in one row at one step."""
    value = batch.get(path)
    return value.element_size() * value.shape[batch.ndim :].numel()
