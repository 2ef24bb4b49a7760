"""How fast a training goes, when it will end, and how much of its GPU's memory it takes. Nothing is waited for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from torchrl.agents.parts import frames_per_batch

if TYPE_CHECKING:
    from torchrl.agents.agent import Agent

NUM_INTERVALS = 10  # over which the time left is estimated: evaluations come in some of them only


class Pace:
    """Estimate the time that frames will take from the time that the last ones took, all that passed counted.

    >>> pace, clock = Pace(clock=lambda: now), None
    >>> for now, frames in [(0.0, 0), (2.0, 100), (10.0, 300)]:
    ...     pace.note(frames)
    >>> pace.frames_per_second, pace.seconds_for(900)
    (25.0, 30.0)

    Args:
        clock: seconds, of any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._points: deque[tuple[int, float]] = deque(maxlen=NUM_INTERVALS + 1)

    def note(self, frames: int) -> None:
        """Note the frames done by now: an interval ends here, and the next begins."""
        self._points.append((frames, self._clock()))

    @property
    def frames_per_second(self) -> float:
        """Frames per second of the last interval; 0 before there is one."""
        if len(self._points) < 2:
            return 0.0
        (before, begin), (frames, end) = list(self._points)[-2:]
        return (frames - before) / max(end - begin, 1e-9)

    def seconds_for(self, frames: int) -> float | None:
        """Return how long more frames will take, at the mean pace of the last ten intervals; None before any frame."""
        (before, begin), (done, end) = self._points[0], self._points[-1]
        return frames * (end - begin) / (done - before) if done > before else None


def final_frames(agent: Agent) -> int:
    """Return the frames at which training ends: the collector's total, rounded up to whole batches; -1 for no end."""
    total, batch = agent.collector.total_frames, frames_per_batch(agent.collector) or 1
    return agent.frames + -(-(total - agent.frames) // batch) * batch if total > 0 else total


def gpu_memory_gb(agent: Agent) -> float | None:
    """Return the most memory that tensors have taken on the learner's GPU so far, in gigabytes (10⁹); None without one.

    torch's allocator counts it as it goes, so that the GPU's queue need not be waited for.
    """
    if not torch.cuda.is_initialized():
        return None
    device = next(agent.loss.parameters()).device
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
