"""Returns and advantages as pure functions of tensors. Keys, critics and batches live in ``objectives/returns``.

Time is the last batch dimension: every argument is ``[*B, T, 1]``, and all arguments of a function have one shape. Row
t
holds what was known at t (``value``) and what came of it (``reward``, ``terminated``, ``truncated``, ``next_value``:
received on entering t+1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl.functional.endings import bootstraps, next_row_follows
from torchrl.shapes import require_same_shape


def reverse_scan(x: Tensor, decay: Tensor) -> Tensor:
    """Solve ``y_t = x_t + decay_t · y_{t+1}`` backwards in time, with nothing after the last row.

    After the k-th of log2(T) rounds every row holds the sum over its next 2^k rows, and ``decay`` the product over as
    many (Hillis and Steele, "Data Parallel Algorithms", 1986). There is no Python loop over T, and it can be
    differentiated.

    Args:
        x: ``[*B, T, F]``.
        decay: same shape; ``decay_{T-1}`` is not used.

    Returns:
        y, same shape.
    """
    require_same_shape("reverse_scan", x=x, decay=decay)
    span, length = 1, x.shape[-2]
    while span < length:
        head = torch.addcmul(x[..., :-span, :], decay[..., : length - span, :], x[..., span:, :])
        x = torch.cat([head, x[..., -span:, :]], dim=-2)
        decay = decay[..., :-span, :] * decay[..., span:, :]
        span *= 2
    return x


def td0_target(reward: Tensor, next_value: Tensor, terminated: Tensor, *, gamma: float) -> Tensor:
    """Compute the one-step target ``r_{t+1} + γ · V(s_{t+1})``, without the value where the task was over.

    Sutton, "Learning to predict by the methods of temporal differences" (1988); Sutton and Barto (2018), equation 6.2.

    Args:
        reward: received on entering t+1, ``[*B, T, 1]``.
        next_value: value of the true successor of row t, same shape.
        terminated: the task was over on entering t+1, bool, same shape.
        gamma: discount γ.

    Returns:
        ``[*B, T, 1]``.
    """
    require_same_shape("td0_target", reward=reward, next_value=next_value, terminated=terminated)
    return reward + gamma * torch.where(bootstraps(terminated), next_value, 0)


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lambda_: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute generalised advantages ``A_t = δ_t + γ λ A_{t+1}`` and the value targets ``A_t + V(s_t)``.

    Here ``δ_t = r_{t+1} + γ V(s_{t+1}) - V(s_t)``. Schulman et al., "High-Dimensional Continuous Control Using
    Generalized Advantage Estimation" (2016), https://arxiv.org/abs/1506.02438, equation 16. The sum ends at endings, at
    the edge of the batch and next to a masked row; in these places the value of the true successor still counts, unless
    the task was over.

    Args:
        reward: received on entering t+1, ``[*B, T, 1]``.
        value: V(s_t), same shape.
        next_value: V of the true successor of row t (at an ending too), same shape.
        terminated: the task was over on entering t+1, bool, same shape.
        truncated: the episode was cut on entering t+1, bool, same shape.
        gamma: discount γ.
        lambda_: decay λ of the trace; 0 gives the one-step error, 1 the discounted return minus the value.
        mask: row t is valid, bool, same shape. Both results are 0 on other rows, whatever stands there (NaN too).

    Returns:
        advantage and value target, ``[*B, T, 1]`` each.
    """
    require_same_shape("gae", reward=reward, value=value, next_value=next_value)  # the flags: by the functions below
    if mask is not None:
        require_same_shape("gae", reward=reward, mask=mask)
        reward, value, next_value = (torch.where(mask, x, 0) for x in (reward, value, next_value))
    follows = next_row_follows(terminated, truncated, mask=mask)
    delta = td0_target(reward, next_value, terminated, gamma=gamma) - value
    advantage = reverse_scan(delta, follows.to(delta.dtype) * (gamma * lambda_))
    return advantage, advantage + value
