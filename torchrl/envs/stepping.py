"""Copy a policy's state from one step into the next root, and refuse steps of another layout. Steps no environment."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.errors import KeyMissing, SpecError, explain
from torchrl.layouts import describe_differences, layout_of
from torchrl.shapes import expand_right
from torchrl.unchecked import peek, put

NOT_CARRIED = ("reward", "terminated", "truncated", "done")


def carry_written(
    written: TensorDictBase, next_: TensorDict, root: TensorDict, initial: TensorDictBase | None = None
) -> None:
    """Add the policy's entries under ``next``, such as a recurrent state, to the step's outcome and to the next root.

    Keys that the environment writes itself are not overwritten. On rows that ended, the next root gets initial values.

    Args:
        written: the policy's entries under ``next``, ``[*B]``.
        next_: the environment's outcome, ``[*B]``, edited here.
        root: the next root, ``[*B]``, edited here.
        initial: the entries' values at the start of an episode, ``[*B]``; zero for an entry that it lacks.

    Raises:
        SpecError: an entry has another shape or dtype than its initial value.
    """
    _join(written, next_, root, next_.get("done"), initial)


def keep_missing(fresh: TensorDict, root: TensorDict) -> None:
    """Add entries that ``root`` has and ``fresh`` lacks, such as a policy's state, to ``fresh``, at any level."""
    for key, value in root.items():
        mine = peek(fresh, key)
        if mine is None:
            put(fresh, key, value)
        elif isinstance(mine, TensorDictBase):
            keep_missing(mine, value)


def keep_state(
    fresh: TensorDict, root: TensorDictBase, restarted: torch.Tensor, initial: TensorDictBase | None = None
) -> None:
    """Add entries that only the root before a reset has to the one after it, with initial values on restarted rows.

    Args:
        fresh: the root after a reset, ``[*B]``; entries are added to it.
        root: the root before the reset, ``[*B]``.
        restarted: bool ``[*B]``, true on rows that restarted.
        initial: the entries' values at the start of an episode, ``[*B]``; zero for an entry that it lacks.
    """
    for key, value in root.items():
        mine, start = fresh.get(key, None), _below(initial, key)
        if mine is None:
            put(fresh, key, _start_where(restarted, value, start, key))
        elif isinstance(mine, TensorDictBase):
            keep_state(mine, value, restarted, start)


def with_unwritten(written: TensorDictBase | None, root: TensorDictBase, initial: TensorDictBase) -> TensorDictBase:
    """Return the policy's entries under ``next`` with those state entries that it did not write, copied from the root.

    Args:
        written: the policy's entries under ``next``, ``[*B]``; None if it wrote none.
        root: the root that it acted on, ``[*B]``.
        initial: has the keys of the policy's state, ``[*B]``.

    Raises:
        KeyMissing: the root lacks an entry of the state.
    """
    complete = TensorDict(batch_size=root.batch_size) if written is None else written.copy()
    for key, start in initial.items():
        before, mine = root.get(key, None), complete.get(key, None)
        if before is None:
            expected = f"a root with {key!r}, which reset() puts there"
            hint = "Act on the root of reset() or of the step before; see reset(mask, root=...)."
            raise KeyMissing(explain("step", expected=expected, got=sorted(map(str, root.keys())), hint=hint))
        if isinstance(start, TensorDictBase):
            put(complete, key, with_unwritten(mine, before, start))
        elif mine is None:
            put(complete, key, before)
    return complete


def _join(
    written: TensorDictBase, next_: TensorDict, root: TensorDict, ended: torch.Tensor, initial: TensorDictBase | None
) -> None:
    for key, value in written.items():
        mine, start = next_.get(key, None), _below(initial, key)
        if isinstance(mine, TensorDictBase) and isinstance(value, TensorDictBase):
            _join(value, mine, root.get(key), ended, start)
        elif mine is None:
            put(next_, key, value)
            put(root, key, _start_where(ended, value, start, key))


def _below(initial: TensorDictBase | None, key: str) -> torch.Tensor | TensorDictBase | None:
    return None if initial is None else initial.get(key, None)


def _start_where(
    starts: torch.Tensor,
    value: torch.Tensor | TensorDictBase,
    start: torch.Tensor | TensorDictBase | None,
    key: str,
) -> torch.Tensor | TensorDictBase:
    if isinstance(value, TensorDictBase):
        new = value.empty()
        for inner, leaf in value.items():
            put(new, inner, _start_where(starts, leaf, _below(start, inner), f"{key}/{inner}"))
        return new
    starts = expand_right(starts, value)
    if start is None:
        return value.masked_fill(starts, 0)
    if start.shape != value.shape or start.dtype is not value.dtype:
        expected = f"shape {list(start.shape)} and {start.dtype}, as its initial value"
        raise SpecError(explain(f"state {key!r}", expected=expected, got=f"{list(value.shape)} and {value.dtype}"))
    return torch.where(starts, start, value)


def require_same_layout(who: str, transition: TensorDictBase, row: TensorDictBase) -> None:
    """Refuse a transition whose keys, shapes, dtypes or devices differ from those of the batch's first one.

    Raises:
        SpecError: naming each difference.
    """
    if layout_of(transition) != layout_of(row):
        raise another_layout(who, transition, row)


def another_layout(who: str, transition: TensorDictBase, row: TensorDictBase) -> SpecError:
    """Return the error for a transition whose keys, shapes, dtypes or devices differ from those of the first one."""
    return SpecError(
        explain(
            who,
            expected="every transition with the keys, shapes, dtypes and devices of the first one",
            got=describe_differences(layout_of(transition), layout_of(row)),
            hint="Write the same entries at every step; state that goes under 'next' goes into the root, too.",
        )
    )
