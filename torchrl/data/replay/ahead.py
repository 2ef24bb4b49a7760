"""Samples made ahead: drawn now, read by a thread while the caller works on the sample before them.

Between the two, later items may have replaced those that were drawn; the function that reads looks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from tensordict import TensorDictBase

from torchrl.data.replay.samplers import Draw

Read = Callable[[int, Draw, np.ndarray], TensorDictBase]


class _Ahead(NamedTuple):
    """The number of items of a sample, the draw, the numbers of its items, and the sample that is being read."""

    num: int
    draw: Draw
    ids: np.ndarray
    sample: Future


class SamplesAhead:
    """Queue samples for a buffer that prefetches: one thread reads them in the background, in order."""

    def __init__(self) -> None:
        self._queue: deque[_Ahead] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, read: Read, num: int, draw: Draw, ids: np.ndarray) -> None:
        """Let the thread call ``read(num, draw, ids)``, which returns a sample, after all that was added before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "replay")
        self._queue.append(_Ahead(num, draw, ids, self._thread.submit(read, num, draw, ids)))

    def take(self) -> Future:
        """Take the next sample out of the queue, as a future: the thread may still be reading it."""
        return self._queue.popleft().sample

    def wait(self) -> None:
        """Wait until all samples are read."""
        for ahead in self._queue:
            ahead.sample.exception()

    def keep_only(self, num: int) -> None:
        """Forget all samples if they have another number of items than ``num``."""
        if self._queue and self._queue[0].num != num:
            self.clear()

    def clear(self) -> None:
        """Forget every sample."""
        while self._queue:
            self._queue.popleft().sample.cancel()

    @property
    def next_round(self) -> int | None:
        """Round of the sampler that the next sample belongs to; None if the queue is empty."""
        return self._queue[0].draw.round if self._queue else None

    def state(self) -> list[dict]:
        """Return what was drawn for each sample, not its data, as tensors and numbers."""
        return [{"num": one.num, "ids": torch.from_numpy(one.ids), **one.draw.state()} for one in self._queue]

    def load(self, read: Read, state: list[dict]) -> None:
        """Queue anew the samples that :meth:`state` describes; the thread reads their data again."""
        self.clear()
        for one in state:
            self.add(read, one["num"], Draw.of(one), one["ids"].numpy())

    def close(self) -> None:
        """Forget every sample and end the thread; may be called twice."""
        self.clear()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
