"""The terms of losses as pure functions of tensors. Keys and networks live in ``objectives/costs``.

Arguments of one function have one shape; ``N`` stands for any number of rows in any number of dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.shapes import require_same_shape

DISTANCES = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


def clipped_policy_objective(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip_epsilon: float | Tensor
) -> Tensor:
    """Compute PPO's clipped surrogate as a loss, ``-min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)`` with ρ = π(a|s) / π_old(a|s).

    Schulman et al., "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347, equation 7. The
    minimum binds on one side only, 1 + ε where A ≥ 0 and 1 - ε where A < 0, so it equals ``-min(ρ A, A + ε |A|)``,
    which is what is computed.

    Args:
        log_prob: log π(a|s) under the policy in training, ``[N]``.
        old_log_prob: log π_old(a|s) under the policy that acted, ``[N]``.
        advantage: A, ``[N]``.
        clip_epsilon: ε, a number or a 0-d tensor.

    Returns:
        the loss of each row, ``[N]``.
    """
    require_same_shape("clipped_policy_objective", log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    # As max(ρ · -A, -A - ε |A|): every sign is moved to the side without a gradient, where it costs no backward node.
    cost = -advantage
    return ((log_prob - old_log_prob).exp() * cost).clamp(min=cost - clip_epsilon * cost.abs())


def approx_kl(log_ratio: Tensor) -> Tensor:
    """Estimate ``KL(π_old ‖ π)`` from actions of π_old: the mean of ``(ρ - 1) - log ρ``, unbiased and never negative.

    Schulman, "Approximating KL Divergence" (2020), http://joschu.net/blog/kl-approx.html, estimator k3.

    Args:
        log_ratio: log ρ = log π(a|s) - log π_old(a|s) at the actions taken, ``[N]``.

    Returns:
        ``[]``, in nats.
    """
    return (log_ratio.expm1() - log_ratio).mean()


def clip_fraction(log_ratio: Tensor, *, clip_epsilon: float | Tensor) -> Tensor:
    """Measure the share of rows whose ratio left ``[1 - ε, 1 + ε]``.

    Args:
        log_ratio: log ρ = log π(a|s) - log π_old(a|s) at the actions taken, ``[N]``.
        clip_epsilon: ε, a number or a 0-d tensor.

    Returns:
        ``[]``, between 0 and 1.
    """
    return (log_ratio.expm1().abs() > clip_epsilon).mean(dtype=log_ratio.dtype)


def value_loss(
    value: Tensor,
    target: Tensor,
    *,
    old_value: Tensor | None = None,
    clip: float | None = None,
    distance: str = "l2",
) -> Tensor:
    """Compute ``d(V, target)``; with ``clip``, ``max(d(V, target), d(V_old + clip(V - V_old, ±clip), target))``.

    The distances carry no factor but the ½ inside ``smooth_l1`` (Huber with threshold 1). Clipping is not in the paper
    of PPO but in its first implementation; Andrychowicz et al., "What Matters In On-Policy Reinforcement Learning?"
    (2021), https://arxiv.org/abs/2006.05990, section 3.4, found it harmful.

    Args:
        value: V(s) of the critic in training, ``[N, 1]``.
        target: where it should be, same shape.
        old_value: V(s) when the batch was collected, same shape; needed by ``clip``.
        clip: how far V may move from ``old_value`` before it gains nothing, in units of the value; None for no limit.
        distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.

    Returns:
        the loss of each row, same shape.

    Raises:
        ConfigError: ``clip`` without ``old_value``, or an unknown distance.
    """
    require_same_shape("value_loss", value=value, target=target)
    if distance not in DISTANCES:
        raise ConfigError(explain("value_loss", expected=f"a distance out of {list(DISTANCES)}", got=repr(distance)))
    measure = DISTANCES[distance]
    loss = measure(value, target, reduction="none")
    if clip is None:
        return loss
    if old_value is None:
        raise ConfigError(explain("value_loss", expected="old_value, since clip is set", got=None))
    require_same_shape("value_loss", value=value, old_value=old_value)
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum(loss, measure(clipped, target, reduction="none"))


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Measure how much of the target the value predicts: ``1 - Var[target - V] / Var[target]``.

    1 is perfect, 0 as good as a constant, negative worse than that. Where the target does not vary there is nothing to
    explain: 0.

    Args:
        value: V(s), ``[N, 1]``.
        target: what it should predict, same shape.

    Returns:
        ``[]``.
    """
    require_same_shape("explained_variance", value=value, target=target)
    residual, target = (target - value).flatten(), target.flatten()
    residual, spread = residual - residual.mean(), target - target.mean()
    total = torch.dot(spread, spread)
    return torch.where(total > 0, 1 - torch.dot(residual, residual) / total, 0)


def standardize(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 over all rows: ``(x - mean) / sqrt(var + eps²)``.

    The variance is taken without Bessel's correction. A single row gives 0. (This is a layer norm over everything, and
    as one operation takes a third of the time of the formula written out.)

    Args:
        x: ``[N]`` or ``[N, 1]``.
        eps: keeps the division finite.

    Returns:
        same shape.
    """
    return F.layer_norm(x, x.shape, eps=eps**2)
