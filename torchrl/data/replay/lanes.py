"""Find which item came before which in time, when batches ``[B, T]`` become one sequence of items. Numpy only.

A lane is one row of one source of batches, followed from batch to batch::

    batch 1 of 2 rows, 2 steps      batch 2 of the same source
    row a   a0 a1                   a2 a3        a2 follows a1, which was the last item of its lane
    row b   b0 b1                   b2 b3

    items   a0 b0 a1 b1             a2 b2 a3 b3

``Lanes`` remembers the last item of every lane. Two collectors that write into one buffer are two sources.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

MAX_SOURCES = 256


class Links(NamedTuple):
    """Hold for each new item ``gap`` and ``run``, int32: see the table in :mod:`torchrl.data.replay.ledger`."""

    gap: np.ndarray
    run: np.ndarray

    @classmethod
    def none(cls, num: int) -> Links:
        """Return the links of ``num`` items that follow no other."""
        return cls(gap=np.zeros(num, np.int32), run=np.ones(num, np.int32))


@dataclass
class _Ends:
    """Hold the last item of each row of one source of batches, ``[B]``; ``ids`` is -1 where there is none."""

    ids: np.ndarray
    run: np.ndarray
    is_over: np.ndarray
    trajectories: np.ndarray | None
    num_steps: np.ndarray | None


class Lanes:
    """Find for each step of a batch which item it follows in time, and remember each row's last item for later batches.

    A row's first step in a batch follows the row's last item of the batch before, of the same source. Sources are told
    apart by ``traj_ids``, so batches of several collectors may come in any order; without them, by the number of rows.
    Where batches have ``episode_length``, a step follows only an item with the count just before its own, so nothing is
    joined over missing steps. A step that begins an episode follows its row's last item in time (``gap``), but its
    ``run`` begins at 1.
    """

    def __init__(self) -> None:
        self._sources: list[_Ends] = []

    def clear(self) -> None:
        """Forget all rows, so that no later step follows an earlier item."""
        self._sources = []

    def state(self) -> list[dict[str, np.ndarray | None]]:
        """Return the last items of every source's rows, as arrays."""
        return [vars(ends).copy() for ends in self._sources]

    def load(self, state: list[dict[str, np.ndarray | None]]) -> None:
        """Restore :meth:`state`; other entries, which older versions wrote, are ignored."""
        names = [column.name for column in fields(_Ends)]
        self._sources = [_Ends(**{name: ends[name] for name in names}) for ends in state]

    def link(
        self,
        ids: np.ndarray,
        *,
        is_init: np.ndarray,
        done: np.ndarray,
        trajectories: np.ndarray | None = None,
        num_steps: tuple[np.ndarray, np.ndarray] | None = None,
        are_masked: bool = True,
    ) -> Links:
        """Return which item each step of a batch follows, and remember each row's last item for the next batch.

        Args:
            ids: the ids that the steps get, int64 ``[B, T]``; -1 for steps that are left out.
            is_init: where an episode begins, bool ``[B, T]``.
            done: where one ends, bool ``[B, T]``.
            trajectories: which trajectory each step belongs to, int64 ``[B, T]``; None where that is not known.
            num_steps: how many steps its episode had before each step, and after it, int64 ``[B, T]`` each; None where
                that is not known.
            are_masked: whether ``ids`` may be -1.

        Returns:
            ``gap`` and ``run``, ``[B, T]`` each; without meaning for steps that are left out.
        """
        before = self._take_source(is_init, trajectories, ids[:, 0])
        follows = np.empty(ids.shape, bool)
        np.equal(is_init[:, 0], before.is_over, out=follows[:, 0])
        np.equal(is_init[:, 1:], done[:, :-1], out=follows[:, 1:])
        follows[:, 0] &= before.ids >= 0
        if are_masked:
            is_there = ids >= 0
            follows &= is_there
            follows[:, 1:] &= is_there[:, :-1]
        if num_steps is not None:
            counted = num_steps[0][:, 0] if before.num_steps is None else before.num_steps
            counted = np.concatenate((counted[:, None], num_steps[1][:, :-1]), 1)
            follows &= is_init | (num_steps[0] == counted)
        gap = np.empty(ids.shape, np.int32)
        np.subtract(ids[:, 0], before.ids, out=gap[:, 0], casting="unsafe")
        np.subtract(ids[:, 1:], ids[:, :-1], out=gap[:, 1:], casting="unsafe")
        gap *= follows
        # The run goes on from the last break, is_init or not follows; before any, from what the row had.
        steps = np.arange(1, 1 + ids.shape[1], dtype=np.int32)
        since = np.where(is_init >= follows, steps - 1, -before.run[:, None])
        run = np.subtract(steps, np.maximum.accumulate(since, 1), dtype=np.int32)
        links = Links(gap, run)
        # A row whose last step was left out is followed by nothing: the step that was left out lies between.
        counted = None if num_steps is None else num_steps[1][:, -1].copy()
        playing = None if trajectories is None else trajectories[:, -1].copy()
        after = _Ends(ids[:, -1].copy(), links.run[:, -1].copy(), done[:, -1].copy(), playing, counted)
        self._sources.append(after)
        del self._sources[:-MAX_SOURCES]
        return links

    def _take_source(self, is_init: np.ndarray, trajectories: np.ndarray | None, first_ids: np.ndarray) -> _Ends:
        """Take out the last items of the source that this batch continues; all -1 if it continues none."""
        num_rows = len(is_init)
        goes_on = None if trajectories is None else ~is_init[:, 0] & (first_ids >= 0)
        for at in range(len(self._sources) - 1, -1, -1):
            ends = self._sources[at]
            if len(ends.ids) != num_rows or (ends.trajectories is None) != (trajectories is None):
                continue
            if trajectories is None:
                return self._sources.pop(at)
            same = np.array_equal(ends.trajectories[goes_on], trajectories[goes_on, 0])
            if same and (goes_on.any() or ends.is_over.all()):
                return self._sources.pop(at)
        return _Ends(np.full(num_rows, -1), np.zeros(num_rows, np.int32), np.zeros(num_rows, bool), None, None)
