"""V-trace: targets for one policy from actions of another, by clipped importance weights. Others: ``returns.py``.

Shapes, endings, masks, coefficients and gradients are as described in ``functional/returns.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.functional.returns import reverse_scan
from torchrl.functional.steps import Steps, importance_weight


def vtrace(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    log_weight: Tensor,
    *,
    gamma: float | Tensor,
    rho_clip: float | None = 1.0,
    c_clip: float | None = 1.0,
    lambda_: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the advantages ``ρ_t (r_{t+1} + γ v_{t+1} - V(s_t))`` and the value targets ``v_t`` of V-trace.

    >>> reward, value, never = torch.ones(2, 1), torch.full((2, 1), 8.0), torch.zeros(2, 1, dtype=torch.bool)
    >>> log_weight = torch.tensor([[0.5], [1.0]]).log()  # the policy takes the first action half as often
    >>> vtrace(reward, value, value, never, never, log_weight, gamma=0.5)[1].squeeze(-1).tolist()  # δ = -1½ and -3
    [5.75, 5.0]

    ``v_t = V(s_t) + δ_t + γ c_t (v_{t+1} - V(s_{t+1}))`` with ``δ_t = ρ_t (r_{t+1} + γ V(s_{t+1}) - V(s_t))``,
    ``ρ_t = min(ρ̄, π/μ)`` and ``c_t = λ min(c̄, π/μ)``. Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with
    Importance Weighted Actor-Learner Architectures" (2018), https://arxiv.org/abs/1802.01561, equation 1, its recursive
    form and λ in the remarks below it, the advantage in section 4.2. Where step t+1 is not the successor, ``v_{t+1}``
    is ``next_value``, and 0 where the task was over. With π = μ and both clips at least 1, the targets are those of
    :func:`td_lambda` with the same λ.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        value: V(s_t), ``[*B, T, R]``.
        next_value: V of the true successor of step t (at an ending too), ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        log_weight: log π - log μ of the action of step t, ``[*B, T, 1]``.
        gamma: discount γ.
        rho_clip: ρ̄, which decides whose values the targets estimate: the larger, the nearer to those of π; without
            limit (None), those of π itself. 1 is usual.
        c_clip: c̄, which decides how far corrections reach back; None is no limit, 1 is usual.
        lambda_: decay λ of the trace.
        mask: step t is valid, bool ``[*B, T, 1]``.

    Returns:
        advantage and value target, ``[*B, T, R]`` each.

    Raises:
        ConfigError: ``rho_clip`` is less than ``c_clip``, which the paper rules out, or one is not positive.
        SpecError: the shapes are others, or a flag is no bool; nothing is broadcast.
    """
    require_clips("vtrace", rho_clip, c_clip)
    given = {"value": value, "next_value": next_value, "log_weight": log_weight, "mask": mask}
    steps = Steps("vtrace", reward, terminated, truncated, gamma=gamma, lambda_=lambda_, **given)
    rho = importance_weight(steps.weight, clip=rho_clip)
    c = rho if c_clip == rho_clip else importance_weight(steps.weight, clip=c_clip)
    delta = rho * (steps.reward + steps.gamma * steps.next_value - steps.value)
    target = steps.value + reverse_scan(delta, steps.where_followed(c * steps.lambda_ * steps.gamma))
    after = torch.cat([target[..., 1:, :], target[..., -1:, :]], dim=-2)
    after = torch.where(steps.follows, after, steps.next_value)
    return rho * (steps.reward + steps.gamma * after - steps.value), target


def require_clips(who: str, rho_clip: float | None, c_clip: float | None) -> None:
    """Refuse clips of importance weights that are not positive, or a ρ̄ below c̄; None is no limit.

    Raises:
        ConfigError: naming both.
    """
    rho, c = (float("inf") if clip is None else clip for clip in (rho_clip, c_clip))
    if not 0 < c <= rho:
        expected = "0 < c_clip <= rho_clip (None is no limit)"
        raise ConfigError(explain(who, expected=expected, got=f"c_clip {c_clip}, rho_clip {rho_clip}"))
