"""What every estimator shares: values of rows and of their successors, keys, padding. No maths of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import unravel_key
from torch import Tensor, nn

from torchrl.errors import SpecError, explain
from torchrl.functional.endings import next_row_follows
from torchrl.objectives.keys import MASK, read


class ReturnEstimator(nn.Module, ABC):
    """Write ``state_value``, ``advantage`` and ``value_target``, ``[*B, T, 1]`` each, into a batch ``[*B, T]``.

    They carry no gradient. Rows that ``("collector", "mask")`` excludes reach nothing and get 0. A subclass writes
    :meth:`estimate`.

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        gamma: discount γ.
    """

    def __init__(self, critic: TensorDictModuleBase, *, gamma: float) -> None:
        super().__init__()
        self.critic = critic
        self.gamma = gamma

    @abstractmethod
    def estimate(
        self, reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, cut: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute advantage and value target; every tensor is ``[*B, T, 1]``.

        Args:
            reward: received on entering t+1; finite on every row.
            value: V(s_t).
            next_value: V of the true successor of row t.
            terminated: the task was over on entering t+1.
            cut: row t+1 of the batch is not the successor of row t (an ending, the edge, a reset, a masked row).
        """

    @torch.no_grad()
    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        """Write the three keys into the batch and return it.

        Raises:
            KeyMissing: the batch lacks a key of the critic, the reward or a flag.
            SpecError: the batch has no time dimension, or an entry is not ``[*B, T, 1]``.
        """
        who = type(self).__name__
        value, next_value = next_values(self.critic, batch)
        terminated = read(batch, ("next", "terminated"), who=who)
        reward = _zero_masked(read(batch, ("next", "reward"), who=who), _mask(batch))
        advantage, target = self.estimate(reward, value, next_value, terminated, ~_follows(batch))
        batch.set("state_value", value)
        batch.set("advantage", _zero_masked(advantage, _mask(batch)))
        batch.set("value_target", _zero_masked(target, _mask(batch)))
        return batch


@torch.no_grad()
def next_values(critic: TensorDictModuleBase, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Compute V(s_t) and V of the true successor of every row, with few calls of the critic beyond one per row.

    The successor's value is that of row t+1 where row t+1 is the successor; the entries of ``"next"`` are evaluated
    only where it is not: at endings, at the edge, before a reset in mid-episode and before a masked row. Masked rows
    are never shown to the critic.

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key. The batch is not written to.
        batch: ``[*B, T]``, with the critic's in keys at the root and under ``"next"``, and both flags under ``"next"``.

    Returns:
        value and next value, ``[*B, T, 1]`` each, without gradient; 0 on masked rows.

    Raises:
        KeyMissing: the batch lacks a key of the critic or a flag.
        SpecError: the batch has no time dimension, or the critic's value is not ``[..., 1]``.
    """
    if not batch.batch_dims:
        raise SpecError(explain("next_values", expected="a batch [*B, T], time last", got="batch size []"))
    mask = batch.get(MASK, None)
    alone = ~_follows(batch).squeeze(-1)
    if mask is None:
        value = _evaluate(critic, batch)
    else:
        alone &= mask
        rows = _evaluate(critic, batch, rows=mask)
        value = rows.new_zeros(*mask.shape, 1)
        value[mask] = rows
    next_value = torch.cat([value[..., 1:, :], value[..., -1:, :]], dim=-2)
    next_value[alone] = _evaluate(critic, batch, under=("next",), rows=alone)
    return value, _zero_masked(next_value, _mask(batch))


def _evaluate(
    critic: TensorDictModuleBase, batch: TensorDictBase, *, under: tuple[str, ...] = (), rows: Tensor | None = None
) -> Tensor:
    """Run the critic on a container of its own: on the whole batch, ``[*B, T, 1]``, or on n chosen rows, ``[n, 1]``."""
    inputs = {}
    for key in critic.in_keys:
        value = read(batch, unravel_key((*under, key)), who="next_values")
        inputs[key] = value if rows is None else value[rows]
    batch_size = batch.batch_size if rows is None else [int(rows.sum())]
    value = critic(TensorDict(inputs, batch_size=batch_size)).get(critic.out_keys[0])
    if value.shape != (*batch_size, 1):
        expected = f"{critic.out_keys[0]!r} of shape {[*batch_size, 1]} from the critic"
        raise SpecError(explain("next_values", expected=expected, got=list(value.shape)))
    return value


def _follows(batch: TensorDictBase) -> Tensor:
    """Tell at which rows row t+1 of the batch is the successor, bool ``[*B, T, 1]``."""
    terminated, truncated = (read(batch, ("next", key), who="next_values") for key in ("terminated", "truncated"))
    return next_row_follows(terminated, truncated, is_init=batch.get("is_init", None), mask=_mask(batch))


def _mask(batch: TensorDictBase) -> Tensor | None:
    """Return the mask in the shape of rewards, bool ``[*B, T, 1]``."""
    mask = batch.get(MASK, None)
    return None if mask is None else mask.unsqueeze(-1)


def _zero_masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Put 0 where the mask is false, whatever stands there."""
    return x if mask is None else torch.where(mask, x, 0)
