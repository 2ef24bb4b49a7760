"""What happens to keys between two steps. Not the stepping itself: that is the environments' work."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.shapes import expand_right
from torchrl.unchecked import put

NOT_CARRIED = ("reward", "terminated", "truncated", "done")


def carry_written(written: TensorDictBase, next_: TensorDict, root: TensorDict) -> None:
    """Join what the policy wrote under ``next`` (recurrent or exploration state) to the step, and carry it to the
    next root.

    Keys the environment writes itself win. On rows that ended, the next root holds zeros.

    Args:
        written: the policy's entries under ``next``, ``[*B]``.
        next_: the environment's outcome, ``[*B]``; the entries are added to it.
        root: the next root, ``[*B]``; so are they here.
    """
    _join(written, next_, root, next_.get("done"))


def keep_missing(fresh: TensorDict, root: TensorDict) -> None:
    """Put into a fresh root what only the old one holds: policy state that was carried, at any level."""
    for key, value in root.items():
        mine = fresh.get(key, None)
        if mine is None:
            put(fresh, key, value)
        elif isinstance(mine, TensorDictBase):
            keep_missing(mine, value)


def _join(written: TensorDictBase, next_: TensorDict, root: TensorDict, ended: torch.Tensor) -> None:
    for key, value in written.items():
        mine = next_.get(key, None)
        if isinstance(mine, TensorDictBase) and isinstance(value, TensorDictBase):
            _join(value, mine, root.get(key), ended)
        elif mine is None:
            put(next_, key, value)
            put(root, key, _zero_where(ended, value))


def _zero_where(ended: torch.Tensor, value: torch.Tensor | TensorDictBase) -> torch.Tensor | TensorDictBase:
    if isinstance(value, TensorDictBase):
        return value.apply(lambda leaf: _zero_where(ended, leaf))
    return value.masked_fill(expand_right(ended, value), 0)
