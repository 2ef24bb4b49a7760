"""Memory for a recording whose number of steps is not known beforehand; ``loop.allocate`` makes a fixed number."""

from __future__ import annotations

from collections.abc import Collection

import torch
from tensordict import TensorDict

from torchrl.collectors.loop import allocate
from torchrl.unchecked import StepWriter


class GrowingBatch:
    """Record transitions ``[*B]`` one after another, in blocks of memory that are added as needed.

    Making the views of a step costs far more than copying into it, so the next recording uses the same blocks again.

    Args:
        transition: ``[*B]``; all recorded transitions have its keys, shapes and dtypes.
        block_size: how many steps are added at a time.
    """

    def __init__(self, transition: TensorDict, block_size: int = 64) -> None:
        self._example = transition.clone()
        self._block_size = block_size
        self._blocks: list[TensorDict] = []
        self._steps: list[StepWriter] = []

    def __getitem__(self, index: int) -> StepWriter:
        """Return the object that copies a transition into step ``index``; steps count from 0 in each recording."""
        while index >= len(self._steps):
            block, steps = allocate(self._example, self._block_size)
            self._blocks.append(block)
            self._steps += steps
        return self._steps[index]

    def keys(self) -> Collection[str]:
        """Return the top-level keys that every step holds."""
        return self._example.keys()

    def recorded(self, num_steps: int) -> TensorDict:
        """Return the first ``num_steps`` steps, ``[*B, T]``, a copy."""
        time = self._example.batch_dims
        num_blocks = -(-num_steps // self._block_size)
        parts = self._blocks[:num_blocks]
        rest = num_steps - (num_blocks - 1) * self._block_size
        return torch.cat([*parts[:-1], parts[-1][(slice(None),) * time + (slice(rest),)]], time)
