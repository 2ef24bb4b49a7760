"""Replay buffers against plain tensors in the same run, one torch thread: 256 of 1e4, 1e6 and 1e7 transitions.

An item is what off-policy training keeps of a step of HalfCheetah: 17 features twice, 6 actions, reward, three flags,
``is_init``, return and length. *Plain* is a dict of tensors: reading by ``tensor[index]``, writing by slices.

    python benchmarks/replay.py [number of items ...]
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial

import torch
from _plain import seconds_per_call
from tensordict import TensorDict

from torchrl.data.replay import MemmapStorage, PrioritizedSampler, ReplayBuffer, SliceSampler, Storage, TensorStorage

BATCH, ROWS, STEPS, SLICE = 256, 8, 128, 32
SIZES = (10_000, 1_000_000, 10_000_000)
LARGEST_MEMMAP = 10_000_000


def batch_of(num_rows: int, num_steps: int) -> TensorDict:
    """Make a batch ``[B, T]`` with an ending every 100 steps."""
    shape = (num_rows, num_steps)

    def floats(num: int) -> torch.Tensor:
        return torch.randn(*shape, num)

    done = torch.arange(num_steps).remainder(100).eq(99).expand(shape).unsqueeze(-1).clone()
    is_init = torch.arange(num_steps).remainder(100).eq(0).expand(shape).unsqueeze(-1).clone()
    outcome = {"observation": floats(17), "reward": floats(1), "done": done, "terminated": done, "truncated": ~done}
    return TensorDict(
        {
            "observation": floats(17),
            "action": floats(6),
            "is_init": is_init,
            "episode_return": floats(1),
            "episode_length": torch.ones(*shape, 1, dtype=torch.int64),
            "next": TensorDict(outcome, batch_size=shape),
        },
        batch_size=shape,
    )


class Plain:
    """A ring of tensors, one for each entry."""

    def __init__(self, capacity: int, batch: TensorDict) -> None:
        self.capacity, self.cursor = capacity, 0
        self.memory = {
            key: torch.zeros((capacity, *value.shape[2:]), dtype=value.dtype) for key, value in batch.items(True, True)
        }

    def extend(self, batch: TensorDict) -> None:
        """Write by slices."""
        num = batch.numel()
        if self.cursor + num > self.capacity:
            self.cursor = 0
        for key, value in batch.items(True, True):
            self.memory[key][self.cursor : self.cursor + num] = value.reshape(num, *value.shape[2:])
        self.cursor += num

    def sample(self) -> dict:
        """Read by indexing."""
        index = torch.randint(0, self.capacity, (BATCH,))
        return {key: value[index] for key, value in self.memory.items()}


def filled(storage: Storage, batch: TensorDict, **options: object) -> ReplayBuffer:
    """Make a buffer and write into it until it is full."""
    buffer = ReplayBuffer(storage, batch_size=BATCH, seed=0, **options)
    for _ in range(-(-storage.capacity // batch.numel())):
        buffer.extend(batch)
    return buffer


def update(buffer: ReplayBuffer, priority: torch.Tensor) -> None:
    """Sample by priority, and give what was drawn other ones."""
    buffer.update_priority(buffer.sample(), priority)


def compare(num: int) -> None:
    """Print the figures of one size."""
    batch = batch_of(ROWS, STEPS)
    plain = Plain(num, batch)
    for _ in range(-(-num // batch.numel())):
        plain.extend(batch)
    read, write = seconds_per_call(plain.sample), seconds_per_call(partial(plain.extend, batch))
    del plain

    print(f"\n{num:>12,} items                      µs    ratio   budget")
    print(f"{'plain, read 256':<36}{read * 1e6:>8.0f}{1:>9.2f}")

    def line(label: str, seconds: float, ratio: float, budget: str = "") -> None:
        print(f"{label:<36}{seconds * 1e6:>8.0f}{ratio:>9.2f}   {budget}", flush=True)

    buffer = filled(TensorStorage(num), batch)
    uniform = seconds_per_call(buffer.sample)
    line("uniform sample", uniform, read / uniform, "≥ 1.3 × plain")
    seconds = seconds_per_call(lambda: buffer.extend(batch))
    line(f"plain, write {batch.numel()}", write, 1)
    line(f"extend, {batch.numel()} at a time", seconds, write / seconds, "≥ 0.25 × plain")
    del buffer
    if num <= LARGEST_MEMMAP:
        with tempfile.TemporaryDirectory() as folder:
            buffer = filled(MemmapStorage(num, f"{folder}/replay"), batch)
            seconds = seconds_per_call(buffer.sample)
            line("uniform sample, memmap", seconds, seconds / uniform, "≤ 1.1 × in memory")
            buffer.close()
    buffer = filled(TensorStorage(num), batch, sampler=SliceSampler(SLICE))
    seconds = seconds_per_call(lambda: buffer.extend(batch))
    line("extend, with what came before what", seconds, write / seconds)
    seconds = seconds_per_call(buffer.sample)
    line(f"slices, {BATCH // SLICE} of {SLICE}", seconds, seconds / uniform, "≤ 2 × uniform")
    del buffer
    buffer = filled(TensorStorage(num), batch, sampler=PrioritizedSampler())
    priority = torch.rand(BATCH)
    seconds = seconds_per_call(lambda: update(buffer, priority))
    line("prioritised sample and update", seconds, seconds / uniform, "≤ 5 × uniform; 1e7 < 2 × 1e4")


def main() -> None:
    """Print the figures of each size."""
    torch.set_num_threads(1)
    for num in [int(float(size)) for size in sys.argv[1:]] or SIZES:
        compare(num)


if __name__ == "__main__":
    main()
