"""What collectors say about slots: which trajectory each step belongs to, and that some wait. Not the stepping."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl.envs.base import Env
from torchrl.errors import EnvError


def trajectory_ids(starts: Tensor, current: Tensor, num_begun: int) -> Tensor:
    """Number the trajectories of a batch over the whole run, in the order of slots, then of time.

    Args:
        starts: where a trajectory begins, bool ``[*B, T]``.
        current: the trajectory that each slot was in before the batch, int64 ``[*B]``; -1 for none.
        num_begun: how many had begun before the batch.

    Returns:
        int64 ``[*B, T]``; the last column is ``current`` for the next batch.
    """
    rank = starts.reshape(-1).cumsum(0).reshape(starts.shape) + (num_begun - 1)
    ids = torch.where(starts, rank, -1)
    ids[..., 0] = torch.maximum(ids[..., 0], current)
    return ids.cummax(-1).values


def let_wait(env: Env, rows: Tensor) -> bool:
    """Freeze rows of an environment until they are reset; answer whether it can.

    Where it cannot, rows are stepped on for nothing, and whoever collects leaves out what they do.

    Args:
        env: ``[*B]``.
        rows: bool ``[*B]``.
    """
    try:
        env.freeze_(rows)
    except EnvError:
        return False
    return True
