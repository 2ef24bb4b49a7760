"""Reorder the steps of collected batches into pieces of single episodes. Knows no files.

batches [2, 3]      a0 a1 a2     a3 b0 b1          a and b are episodes of row 0, c one of row 1
                    c0 c1 c2     c3 c4 c5

pieces              a0 a1 a2 a3      once a3 ends a;   c0 ... c5  once c5 ends c;   b0 b1  when no more batches come
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl.data.replay.records import values_of
from torchrl.errors import KeyMissing, SpecError, explain

Values = dict[tuple[str, ...], Tensor]
STARTS, DONE = ("is_init",), ("next", "done")
MASK, TRAJ_IDS = ("collector", "mask"), ("collector", "traj_ids")
FACTS = "replay"


class Piece(NamedTuple):
    """Hold consecutive steps of one episode, and whether they are the episode's first.

    Attributes:
        values: ``[T, ...]`` at each key.
        begins: whether these steps begin an episode; otherwise they continue the episode of the last piece.
    """

    values: Values
    begins: bool


@dataclass
class _Lane:
    """Hold one row's steps of an unfinished episode, and whether the next batch may continue it."""

    held: list[Values] = field(default_factory=list)
    begins: bool = True
    is_open: bool = False
    trajectory: int = -1

    def flush(self) -> Iterator[Piece]:
        if self.held:
            yield Piece({key: torch.cat([part[key] for part in self.held]) for key in self.held[0]}, self.begins)
        self.held = []


class Stitcher:
    """Join the steps of each row over several batches, and yield them as pieces of one episode each.

    With several rows, steps are held back until their episode ends, so that its pieces are not mixed with others';
    with one row they are yielded at once. A step continues the last one of its row unless ``is_init`` is true, that
    last step was done or masked out, the ``("collector", "traj_ids")`` differ, or the number of rows has changed.
    """

    def __init__(self) -> None:
        self._lanes: list[_Lane] = []

    def take(self, batch: TensorDictBase) -> Iterator[Piece]:
        """Add a batch, and yield the pieces that can be written now; they are views of the batch or copies.

        Args:
            batch: ``[T]`` or ``[*B, T]``, with ``is_init``.

        Raises:
            SpecError: another batch shape.
            KeyMissing: no ``is_init``.
        """
        values, (num_rows, num_steps) = _rows_of(batch)
        mask = values.pop(MASK, torch.ones(num_rows, num_steps, dtype=torch.bool))
        done = values[DONE][..., 0] if DONE in values else torch.zeros_like(mask)
        trajectories = values.get(TRAJ_IDS, torch.full_like(mask, -1, dtype=torch.int64))
        if num_rows != len(self._lanes):
            yield from self.flush()
            self._lanes = [_Lane() for _ in range(num_rows)]
        breaks = values[STARTS][..., 0].clone()
        if num_steps:
            breaks[:, 0] |= ~torch.tensor([lane.is_open for lane in self._lanes])
            breaks[:, 0] |= torch.tensor([lane.trajectory for lane in self._lanes]) != trajectories[:, 0]
            breaks[:, 1:] |= done[:, :-1] | ~mask[:, :-1] | (trajectories[:, 1:] != trajectories[:, :-1])
        for row, lane in enumerate(self._lanes if num_steps else ()):
            for first, stop in _find_stretches(mask[row], breaks[row]):
                if breaks[row, first]:
                    yield from lane.flush()
                if not lane.held:
                    lane.begins = bool(breaks[row, first])
                part = {key: value[row, first:stop] for key, value in values.items()}
                # The batch is the caller's: it may be written over before the episode ends.
                lane.held.append(part if num_rows == 1 else {key: value.clone() for key, value in part.items()})
                if num_rows == 1 or done[row, stop - 1]:
                    yield from lane.flush()
            lane.is_open = bool(mask[row, -1] & ~done[row, -1])
            lane.trajectory = int(trajectories[row, -1])

    def flush(self) -> Iterator[Piece]:
        """Yield the steps of unfinished episodes; to be called when no more batches come."""
        for lane in self._lanes:
            yield from lane.flush()


def _find_stretches(mask: Tensor, breaks: Tensor) -> Iterator[tuple[int, int]]:
    """Yield start and stop index of each run of valid steps; a step with ``breaks`` begins a new run. Bools ``[T]``."""
    firsts, lasts = mask.clone(), mask.clone()
    firsts[1:] &= breaks[1:] | ~mask[:-1]
    lasts[:-1] &= breaks[1:] | ~mask[1:]
    yield from zip(firsts.nonzero()[:, 0].tolist(), (lasts.nonzero()[:, 0] + 1).tolist(), strict=True)


def _rows_of(batch: TensorDictBase) -> tuple[Values, torch.Size]:
    """Return a batch's entries as CPU tensors ``[B, T, ...]``, and the size ``[B, T]``."""
    if not isinstance(batch, TensorDictBase) or not batch.batch_dims:
        got = f"one of batch size {list(batch.batch_size)}" if isinstance(batch, TensorDictBase) else type(batch)
        raise SpecError(explain("write_dataset", expected="batches of size [T] or [*B, T]", got=got))
    shape = batch.batch_size
    values: Values = {}
    for key, value in values_of(batch).items():
        if not isinstance(value, Tensor):
            who = f"write_dataset, key {'/'.join(key)!r}"
            raise SpecError(explain(who, expected="tensors", got=type(value).__name__, hint="Leave it out."))
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            who = f"write_dataset, key {'/'.join(key)!r}"
            got = "one without data" if value.is_meta else f"{value.dtype}, {value.layout}"
            raise SpecError(explain(who, expected="a dense tensor of plain numbers", got=got, hint="Leave it out."))
        if key[0] != FACTS:
            values[key] = value.detach().cpu()
    if STARTS not in values:
        hint = "It is true on the first step of each episode."
        raise KeyMissing(explain("write_dataset", expected='the key "is_init"', got=list(batch.keys()), hint=hint))
    for key, last in ((STARTS, (1,)), (DONE, (1,)), (MASK, ()), (TRAJ_IDS, ())):
        value = values.get(key)
        dtype = torch.int64 if key == TRAJ_IDS else torch.bool
        if value is not None and (value.shape != (*shape, *last) or value.dtype is not dtype):
            got = f"{value.dtype} {list(value.shape)}"
            who = f"write_dataset, key {'/'.join(key)!r}"
            raise SpecError(explain(who, expected=f"{dtype} {[*shape, *last]}", got=got))
    rows = torch.Size((shape[:-1].numel(), shape[-1]))
    return {key: value.reshape(*rows, *value.shape[len(shape) :]) for key, value in values.items()}, rows
