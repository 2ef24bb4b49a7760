"""What happens to keys between two steps. Not the stepping itself: that is the environments' work."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.shapes import expand_right
from torchrl.unchecked import put, shallow

NOT_CARRIED = ("reward", "terminated", "truncated", "done")


def carry_written(written: TensorDictBase, next_: TensorDict, root: TensorDict) -> TensorDict:
    """Join what the policy wrote under ``next`` (recurrent or exploration state) to the step, and carry it to the
    next root.

    Keys the environment writes itself win. On rows that ended, the next root holds zeros.

    Args:
        written: the policy's entries under ``next``, ``[*B]``.
        next_: the environment's outcome, ``[*B]``.
        root: the next root, ``[*B]``; carried keys are set in it.

    Returns:
        The outcome with the policy's entries added; the container given is left as it was.
    """
    joined = shallow(next_)
    ended = next_.get("done")
    for key, value in written.items():
        if key in next_.keys() or key in NOT_CARRIED:
            continue
        put(joined, key, value)
        put(root, key, _zero_where(ended, value))
    return joined


def _zero_where(ended: torch.Tensor, value: torch.Tensor | TensorDictBase) -> torch.Tensor | TensorDictBase:
    if isinstance(value, TensorDictBase):
        return value.apply(lambda leaf: _zero_where(ended, leaf))
    return value.masked_fill(expand_right(ended, value), 0)
