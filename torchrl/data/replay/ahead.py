"""Samples prefetched: their items are drawn now; a thread reads the data while the caller uses an earlier sample.

Between drawing and reading, new items may replace drawn ones; the function that reads must check that.
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
    """Hold a queued sample: its number of items, which were drawn, their ids, and the future of its data."""

    num: int
    draw: Draw
    ids: np.ndarray
    sample: Future


class SamplesAhead:
    """Queue the prefetched samples of a buffer: one thread reads their data in the background, in order."""

    def __init__(self) -> None:
        self._queue: deque[_Ahead] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, read: Read, num: int, draw: Draw, ids: np.ndarray) -> None:
        """Queue a sample: the thread will call ``read(num, draw, ids)``, which returns it, after the earlier ones."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "replay")
        self._queue.append(_Ahead(num, draw, ids, self._thread.submit(read, num, draw, ids)))

    def take(self) -> Future:
        """Take the next sample out of the queue, as a future: the thread may still be reading it."""
        return self._queue.popleft().sample

    def wait(self) -> None:
        """Wait until the thread has read all queued samples."""
        for ahead in self._queue:
            ahead.sample.exception()

    def keep_only(self, num: int) -> None:
        """Drop all queued samples if they were drawn for another batch size than ``num``."""
        if self._queue and self._queue[0].num != num:
            self.clear()

    def clear(self) -> None:
        """Drop every queued sample."""
        while self._queue:
            self._queue.popleft().sample.cancel()

    @property
    def next_round(self) -> int | None:
        """The sampler's round in which the next queued sample was drawn; None if the queue is empty."""
        return self._queue[0].draw.round if self._queue else None

    def state(self) -> list[dict]:
        """Return for each queued sample which items were drawn, without their data, as tensors and numbers."""
        return [{"num": one.num, "ids": torch.from_numpy(one.ids), **one.draw.state()} for one in self._queue]

    def load(self, read: Read, state: list[dict]) -> None:
        """Queue anew the samples that :meth:`state` describes; the thread reads their data again."""
        self.clear()
        for one in state:
            self.add(read, one["num"], Draw.of(one), one["ids"].numpy())

    def close(self) -> None:
        """Drop every queued sample and end the thread; may be called twice."""
        self.clear()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
