"""Replay buffers against plain tensors in the same run, one torch thread: 256 of 1e4, 1e6 and 1e7 transitions.

    python benchmarks/replay.py [number of items ...] [atari] [r2d2]

An item is what off-policy training keeps of a step of HalfCheetah: 17 features twice, 6 actions, reward, three flags,
``is_init``, return and length. *Plain* is a dict of tensors: reading by ``tensor[index]``, writing by slices. Both
sides are timed in turn, in processor time; the median ratio of the rounds counts, its range stands beside it.

``atari`` counts every byte that DQN's buffer holds of 100,000 steps with stacks of four frames of 84 × 84, stored once,
uniform and prioritised; a million take ten times as many. The pictures are random, in episodes of Pong's length, since
no byte depends on them. ``r2d2`` counts those of the repeat task by R2D2's settings, whose leaves are tiny. Without
arguments all of it is done.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
from _bytes import held_bytes
from tensordict import TensorDict

from torchrl.data.replay import (
    MemmapStorage,
    PrioritizedSampler,
    ReplayBuffer,
    Sampler,
    SliceSampler,
    StackedFrames,
    Storage,
    TensorStorage,
)

BATCH, ROWS, STEPS, SLICE = 256, 8, 128, 32
SIZES = (10_000, 1_000_000, 10_000_000)
ROUNDS, SECONDS = 9, 0.1  # of a side in a round


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


def in_turn(sides: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the microseconds of processor time of a call, for each side and round."""
    calls = {}
    for name, call in sides.items():
        call()
        start = time.process_time()
        for _ in range(5):
            call()
        calls[name] = max(1, int(5 * SECONDS / max(time.process_time() - start, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, call in sides.items():
            start = time.process_time()
            for _ in range(calls[name]):
                call()
            times[name].append((time.process_time() - start) / calls[name] * 1e6)
    return times


def line(label: str, times: list[float], ratios: list[float], budget: str = "") -> None:
    """Print the median time, and the median ratio with its range."""
    ratios = sorted(ratios)
    ends = f"{ratios[0]:.2f}–{ratios[-1]:.2f}"
    print(
        f"{label:<36}{statistics.median(times):>8.0f}{statistics.median(ratios):>8.2f}  {ends:<14}{budget}", flush=True
    )


def quotients(over: list[float], under: list[float]) -> list[float]:
    """Divide round by round."""
    return [one / other for one, other in zip(over, under, strict=True)]


def compare(num: int) -> None:
    """Print the figures of one size."""
    batch = batch_of(ROWS, STEPS)
    plain = Plain(num, batch)
    for _ in range(-(-num // batch.numel())):
        plain.extend(batch)
    uniform, write = filled(TensorStorage(num), batch), partial(plain.extend, batch)
    print(f"\n{num:>12,} items                      µs   ratio  range         budget")
    sides = {"read": plain.sample, "sample": uniform.sample, "write": write, "extend": partial(uniform.extend, batch)}
    times = in_turn(sides)
    line("plain, read 256", times["read"], [1.0])
    line("uniform sample", times["sample"], quotients(times["read"], times["sample"]), "≥ 1.0 × plain; 1.7 from 1e6")
    line(f"plain, write {batch.numel()}", times["write"], [1.0])
    line(f"extend, {batch.numel()} at a time", times["extend"], quotients(times["write"], times["extend"]), "≥ 0.25")
    with tempfile.TemporaryDirectory() as folder:
        buffer = filled(MemmapStorage(num, f"{folder}/replay"), batch)
        times = in_turn({"memory": uniform.sample, "files": buffer.sample})
        line("uniform sample, memmap", times["files"], quotients(times["files"], times["memory"]), "≤ 1.1 × in memory")
        buffer.close()
    buffer = filled(TensorStorage(num), batch, sampler=SliceSampler(SLICE))
    sides = {
        "write": write,
        "extend": partial(buffer.extend, batch),
        "uniform": uniform.sample,
        "slices": buffer.sample,
    }
    times = in_turn(sides)
    ratios = quotients(times["write"], times["extend"])
    line("extend, with what came before what", times["extend"], ratios, "≥ 0.35 × plain")
    ratios = quotients(times["slices"], times["uniform"])
    line(f"slices, {BATCH // SLICE} of {SLICE}", times["slices"], ratios, "≤ 2 × uniform")
    buffer = filled(TensorStorage(num), batch, sampler=PrioritizedSampler())
    times = in_turn({"uniform": uniform.sample, "update": partial(update, buffer, torch.rand(BATCH))})
    ratios = quotients(times["update"], times["uniform"])
    line("prioritised sample and update", times["update"], ratios, "≤ 5 × uniform; 1e7 < 2 × 1e4")


# ---- bytes -----------------------------------------------------------------------------------------------------------

NUM_FRAMES, EPISODE, NUM_STEPS = 4, 850, 50  # agent steps of a game of Pong that is lost at random, and of a batch


def leaves_of(observation: torch.Tensor, after: torch.Tensor, start: int) -> TensorDict:
    """Make the entries that DQN stores of a batch whose first step is step ``start`` of its episodes."""
    shape = observation.shape[:2]
    at = torch.arange(start, start + shape[1]).expand(shape).unsqueeze(-1)
    done = at.remainder(EPISODE).eq(EPISODE - 1)
    outcome = {"observation": after, "reward": torch.zeros(*shape, 1), "done": done, "terminated": done}
    outcome |= {"truncated": torch.zeros_like(done), "episode_return": torch.zeros(*shape, 1)}
    root = {"observation": observation, "action": torch.zeros(shape, dtype=torch.int64)}
    root |= {"is_init": at.remainder(EPISODE).eq(0), "episode_return": torch.zeros(*shape, 1)}
    root |= {"episode_length": at.remainder(EPISODE)}
    outcome["episode_length"] = root["episode_length"] + 1
    return TensorDict({**root, "next": TensorDict(outcome, shape)}, shape)


def report_bytes(label: str, buffer: ReplayBuffer, num: int, leaves: int, budget: str) -> None:
    """Print what a buffer holds for each of ``num`` steps, part by part."""
    held = held_bytes(buffer)
    print(
        f"\n{label}: {sum(held.values()) / num:,.1f} bytes a step, {sum(held.values()) / num / leaves:.3f} × {leaves:,}"
    )
    print(f"  a million: {sum(held.values()) / num / 1e3:.3f} GB {budget}")
    for path, num_bytes in sorted(held.items(), key=lambda item: -item[1]):
        if num_bytes / num >= 0.05:
            print(f"  {num_bytes / num:>10.1f}  {path.removeprefix('ReplayBuffer.')}", flush=True)


def atari(num: int = 100_000) -> None:
    """Count the bytes of DQN's buffer of stacked frames."""
    samplers: dict[str, Sampler] = {"uniform": None, "prioritised": PrioritizedSampler()}
    for name, sampler in samplers.items():
        storage = TensorStorage(num, frames=StackedFrames("observation", num_frames=NUM_FRAMES))
        buffer = ReplayBuffer(storage, sampler=sampler, seed=0)
        frames = torch.zeros(ROWS, NUM_STEPS + NUM_FRAMES, 84, 84, dtype=torch.uint8)
        for batch in range(num // (ROWS * NUM_STEPS) + 20):  # and over the edge of the ring
            if (start := batch * NUM_STEPS % EPISODE) == 0:
                frames[:, -NUM_FRAMES:] = torch.randint(256, (ROWS, 1, 84, 84), dtype=torch.uint8)  # a first frame
            frames[:, :NUM_FRAMES] = frames[:, -NUM_FRAMES:].clone()
            frames[:, NUM_FRAMES:] = torch.randint(256, (ROWS, NUM_STEPS, 84, 84), dtype=torch.uint8)
            stacks = frames.unfold(1, NUM_FRAMES, 1).movedim(-1, 2)
            buffer.extend(leaves_of(stacks[:, :-1], stacks[:, 1:], start))
        report_bytes(f"Atari, stacks of {NUM_FRAMES}, {name}", buffer, num, 84 * 84, "(budget 7.3)")


def r2d2(num: int = 100_000) -> None:
    """Count the bytes of R2D2's buffer of the repeat task: 56 bytes of leaves, slices of 32 over episodes' ends."""
    samplers = {"uniform slices": SliceSampler(32, across=True), "single steps": None}
    for name, sampler in samplers.items():
        buffer = ReplayBuffer(TensorStorage(num), sampler=sampler, seed=0)
        observation = torch.zeros(ROWS, NUM_STEPS, 4)
        batch = leaves_of(observation, observation, 0)
        batch = batch.exclude("episode_return", ("next", "episode_return"), ("next", "episode_length"))
        for _ in range(num // batch.numel() + 1):
            buffer.extend(batch)
        leaves = sum(entry.num_bytes for entry in buffer.storage.entries)
        report_bytes(f"R2D2's repeat task, {name}", buffer, num, leaves, "")


def main() -> None:
    """Print the figures of each size, and the bytes."""
    torch.set_num_threads(1)
    counts = {"atari": atari, "r2d2": r2d2}
    for word in sys.argv[1:] or (*SIZES, *counts):
        counts[word]() if word in counts else compare(int(float(word)))


if __name__ == "__main__":
    main()
