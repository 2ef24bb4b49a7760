"""Sums of several rewards inside the sequences of a loss, whose networks see every step. It knows no network.

``MultiStep`` takes the steps between a row and its successor out of a batch, which networks with memory need. Here all
steps stay: a row's sum ends with the value of the successor of the last row in it, which the loss has computed anyway.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from torchrl.data.multistep import sum_steps
from torchrl.objectives.keys import MASK
from torchrl.objectives.unrolling import FACTOR

REWARD = ("next", "reward")
LAST = "last_row"  # where rows hold the position of the last row of their sum among the rows


def sum_rewards_(rows: TensorDict, batch: TensorDictBase, follows: Tensor, *, n_steps: int, gamma: float) -> None:
    """Replace the reward of each row by ``r_{t+1} + … + γ^{m-1} r_{t+m}``, and write γ^m and where the sum ends.

    m is ``n_steps``, or less where the episode, the valid steps or the sequence end before.

    Args:
        rows: the valid rows, ``[*B, T]``, or ``[n]`` where the batch has a mask.
        batch: the sequences that they are from, ``[*B, T]``.
        follows: at which steps the next one is the successor, bool ``[*B, T, 1]``.
        n_steps: the largest m.
        gamma: discount γ.
    """
    mask, reward = batch.get(MASK, None), batch.get(REWARD).detach()
    if mask is not None:
        reward = torch.where(mask.unsqueeze(-1), reward, 0)
    sums, num_steps, last = sum_steps(reward, ~follows, n_steps=n_steps, gamma=gamma)
    factor = torch.pow(gamma, num_steps.double()).to(reward.dtype)
    length = last.shape[-1]
    first = torch.arange(0, last.numel(), length, device=last.device).view(*last.shape[:-1], 1)
    position = last + first  # of the last step, among all steps
    if mask is not None:
        sums, factor, position = sums[mask], factor[mask], (mask.flatten().cumsum(0) - 1)[position][mask]
    rows.set(REWARD, sums)
    rows.set(FACTOR, factor)
    rows.set(LAST, position)


def at_last(rows: TensorDict, value: Tensor) -> Tensor:
    """Return for each row what ``value``, ``[n, K]`` or ``[*B, T, K]``, has at the last row of its sum."""
    return value.flatten(0, rows.batch_dims - 1)[rows.get(LAST)]
