"""Terms of policy and value losses, and what is logged beside them, as pure functions. Keys: ``objectives/costs``.

Arguments of one function have one shape; ``[N]`` are N rows (transitions), in any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.shapes import require_same_shape

DISTANCES = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Compute the loss whose gradient is the policy gradient, ``-log π(a|s) · A``.

    >>> policy_gradient_loss(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, -1.0])).tolist()
    [3.0, -2.0]

    Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning" (1992),
    https://doi.org/10.1007/BF00992696, theorem 1, with A the return less a baseline; Mnih et al., "Asynchronous Methods
    for Deep Reinforcement Learning" (2016), https://arxiv.org/abs/1602.01783, section 4, with A = R - V(s). Its value
    means nothing, only its gradient does, and that only while π is the policy that acted.

    Args:
        log_prob: log π(a|s) of the actions taken, ``[N]``.
        advantage: A, or a return where there is no baseline, ``[N]``.

    Returns:
        the loss of each row, ``[N]``.

    Raises:
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    require_same_shape("policy_gradient_loss", log_prob=log_prob, advantage=advantage)
    return log_prob * -advantage


def weighted_policy_objective(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Compute PPO's surrogate loss without clip or penalty, ``-ρ A`` with ρ = π(a|s) / π_old(a|s).

    >>> now, before = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()  # ratios 1.5 and 0.5
    >>> weighted_policy_objective(now, before, torch.tensor([2.0, 2.0])).tolist()
    [-3.0, -1.0]

    Schulman et al., "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347, equation 6.
    Nothing keeps π near π_old.

    Args:
        log_prob: log π(a|s) under the policy in training, ``[N]``.
        old_log_prob: log π_old(a|s) under the policy that acted, ``[N]``.
        advantage: A, ``[N]``.

    Returns:
        the loss of each row, ``[N]``.

    Raises:
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    require_same_shape("weighted_policy_objective", log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    return (log_prob - old_log_prob).exp() * -advantage


def penalized_policy_objective(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, kl: Tensor, *, kl_coef: float | Tensor
) -> Tensor:
    """Compute PPO's surrogate loss with a penalty on the divergence, ``-ρ A + β KL(π_old ‖ π)``.

    >>> now, before, kl = torch.tensor([0.75]).log(), torch.tensor([0.5]).log(), torch.tensor([0.25])
    >>> penalized_policy_objective(now, before, torch.tensor([2.0]), kl, kl_coef=4.0).tolist()  # -1.5 · 2 + 4 · 0.25
    [-2.0]

    Schulman et al., "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347, equation 8.

    Args:
        log_prob: log π(a|s) under the policy in training, ``[N]``.
        old_log_prob: log π_old(a|s) under the policy that acted, ``[N]``.
        advantage: A, ``[N]``.
        kl: KL(π_old(·|s) ‖ π(·|s)) in nats, ``[N]``.
        kl_coef: β, a number or a 0-d tensor.

    Returns:
        the loss of each row, ``[N]``.

    Raises:
        SpecError: arguments of different shapes, or a coefficient that is not one number; nothing is broadcast.
    """
    require_same_shape("penalized_policy_objective", log_prob=log_prob, kl=kl)
    _require_one_number("penalized_policy_objective", "kl_coef", kl_coef)
    return weighted_policy_objective(log_prob, old_log_prob, advantage) + kl_coef * kl


def adapted_kl_coef(
    kl_coef: Tensor,
    kl: Tensor,
    *,
    target: float,
    increment: float = 2.0,
    decrement: float = 0.5,
    tolerance: float = 1.5,
) -> Tensor:
    """Return the next weight β of PPO's KL penalty: larger if ``kl`` is well above ``target``, smaller if well below.

    >>> beta = torch.tensor(3.0)
    >>> [adapted_kl_coef(beta, torch.tensor(kl), target=0.01).item() for kl in (0.02, 0.01, 0.005)]
    [6.0, 3.0, 1.5]

    ``β · increment`` if d > target · tolerance, ``β · decrement`` if d < target / tolerance, else β. Schulman et al.,
    "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347, section 4, where the numbers are
    those of the defaults.

    Args:
        kl_coef: β, ``[]``.
        kl: d, the mean divergence that one update of the policy brought about, in nats, ``[]``.
        target: what d should be, in nats.
        increment: factor above the target.
        decrement: factor below it.
        tolerance: how far off the target, as a factor, d may be without a change.

    Returns:
        the next β, ``[]``.

    Raises:
        SpecError: β or d is not one number.
    """
    require_same_shape("adapted_kl_coef", kl_coef=kl_coef, kl=kl)
    _require_one_number("adapted_kl_coef", "kl_coef", kl_coef)
    raised = torch.where(kl > target * tolerance, kl_coef * increment, kl_coef)
    return torch.where(kl < target / tolerance, kl_coef * decrement, raised)


def clipped_policy_objective(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip_epsilon: float | Tensor
) -> Tensor:
    """Compute PPO's clipped surrogate as a loss, ``-min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)`` with ρ = π(a|s) / π_old(a|s).

    >>> now, before = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()  # ratios 1.5 and 0.5
    >>> clipped_policy_objective(now, before, torch.tensor([2.0, 2.0]), clip_epsilon=0.25).tolist()  # 1.25 · 2, 0.5 · 2
    [-2.5, -1.0]

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

    Raises:
        SpecError: arguments of different shapes, or a coefficient that is not one number; nothing is broadcast.
    """
    require_same_shape("clipped_policy_objective", log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    _require_one_number("clipped_policy_objective", "clip_epsilon", clip_epsilon)
    # As max(ρ · -A, -A - ε |A|): every sign is moved to the side without a gradient, where it costs no backward node.
    cost = -advantage
    return ((log_prob - old_log_prob).exp() * cost).clamp(min=cost - clip_epsilon * cost.abs())


def approx_kl(log_ratio: Tensor) -> Tensor:
    """Estimate ``KL(π_old ‖ π)`` from actions of π_old: the mean of ``(ρ - 1) - log ρ``, unbiased and never negative.

    >>> round(approx_kl(torch.tensor([2.0, 0.5]).log()).item(), 4)  # (1 - log 2 - ½ + log 2) / 2
    0.25

    Schulman, "Approximating KL Divergence" (2020), http://joschu.net/blog/kl-approx.html, estimator k3.

    Args:
        log_ratio: log ρ = log π(a|s) - log π_old(a|s) at the actions taken, ``[N]``.

    Returns:
        ``[]``, in nats.
    """
    return (log_ratio.expm1() - log_ratio).mean()


def sampled_kl(log_ratio: Tensor) -> Tensor:
    """Estimate ``KL(π_old ‖ π)`` of each row from S actions of π_old: the mean over them of ``(ρ - 1) - log ρ``.

    >>> log_ratio = torch.tensor([[2.0, 1.0], [0.5, 1.0]]).log()  # two samples of each of two rows
    >>> [round(x, 4) for x in sampled_kl(log_ratio).tolist()]
    [0.25, 0.0]

    Unbiased and never negative; its gradient is unbiased too, since the actions do not depend on π. Schulman,
    "Approximating KL Divergence" (2020), http://joschu.net/blog/kl-approx.html, estimator k3.

    Args:
        log_ratio: log ρ = log π(a|s) - log π_old(a|s), samples first, ``[S, N]``.

    Returns:
        ``[N]``, in nats.
    """
    return (log_ratio.expm1() - log_ratio).mean(0)


def sampled_entropy(log_prob: Tensor) -> Tensor:
    """Estimate the entropy of each row from S actions of π: the mean of ``-log π(a|s)``, with an unbiased gradient.

    >>> sampled_entropy(torch.tensor([[-1.0, -2.0], [-3.0, -2.0]])).tolist()  # two samples of each of two rows
    [2.0, 2.0]

    The gradient of -log π at fixed actions has mean zero, whatever the entropy does. So the result has another
    gradient, the score-function estimate of ∇H = -E[log π ∇log π] (Williams 1992): the mean of ``-(log π(a_s) - b_s)
    ∇log π(a_s)``, the baseline b_s being the mean of log π over the other samples, or 0 if S is 1. Where actions are
    differentiable functions of the parameters, ``-log_prob.mean(0)`` has the right gradient already, with less noise.

    Args:
        log_prob: log π(a|s) of actions that carry no gradient, samples first, ``[S, N]``.

    Returns:
        ``[N]``, in nats.
    """
    value = log_prob.detach()
    num_samples = len(value)
    weight = value if num_samples == 1 else (value - value.mean(0)) * (num_samples / (num_samples - 1))
    return -(value + weight * (log_prob - value)).mean(0)


def effective_sample_size(log_ratio: Tensor) -> Tensor:
    """Return the effective sample size of N importance-weighted rows as a share of N: ``(Σ ρ)² / (N Σ ρ²)``.

    >>> effective_sample_size(torch.tensor([0.0, 0.0, -100.0, -100.0])).item()  # two of four rows count
    0.5

    Kish, "Survey Sampling" (1965). 1 where all weights are equal, 1/N where one outweighs all others.

    Args:
        log_ratio: log ρ = log π(a|s) - log π_old(a|s) at the actions taken, ``[N]``.

    Returns:
        ``[]``, between 0 and 1.
    """
    weight = (log_ratio - log_ratio.max()).exp()  # the ratios themselves may overflow, their squares soon do
    return weight.mean().square() / weight.square().mean()


def clip_fraction(log_ratio: Tensor, *, clip_epsilon: float | Tensor) -> Tensor:
    """Return the share of rows whose ratio ρ = π(a|s) / π_old(a|s) lies outside ``[1 - ε, 1 + ε]``.

    >>> clip_fraction(torch.tensor([1.5, 0.7, 1.1, 0.9]).log(), clip_epsilon=0.2).item()
    0.5

    Args:
        log_ratio: log ρ = log π(a|s) - log π_old(a|s) at the actions taken, ``[N]``.
        clip_epsilon: ε, a number or a 0-d tensor.

    Returns:
        ``[]``, between 0 and 1.

    Raises:
        SpecError: ε is not one number.
    """
    _require_one_number("clip_fraction", "clip_epsilon", clip_epsilon)
    return (log_ratio.expm1().abs() > clip_epsilon).mean(dtype=log_ratio.dtype)


def distance_loss(x: Tensor, target: Tensor, *, distance: str = "l2") -> Tensor:
    """Compute each entry's distance from its target: squared, absolute, or Huber's with threshold 1.

    >>> distance_loss(torch.tensor([1.5, 3.0]), torch.tensor([1.0, 0.0]), distance="smooth_l1").tolist()  # ½·½², 3 - ½
    [0.125, 2.5]

    ``"l2"`` is (x - target)², without a factor ½; ``"smooth_l1"`` has the ½ of Huber's definition.

    Args:
        x: any shape.
        target: same shape.
        distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.

    Returns:
        same shape.

    Raises:
        ConfigError: an unknown distance.
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    require_same_shape("distance_loss", x=x, target=target)
    return _measure("distance_loss", distance)(x, target, reduction="none")


def value_loss(
    value: Tensor,
    target: Tensor,
    *,
    old_value: Tensor | None = None,
    clip: float | None = None,
    distance: str = "l2",
) -> Tensor:
    """Compute a critic's loss per row, ``d(V, target)``, or that of V clamped to ``old_value`` ± ``clip`` if larger.

    >>> value, target, old = torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([[0.0]])
    >>> value_loss(value, target).item(), value_loss(value, target, old_value=old, clip=0.5).item()  # (3 - ½)²
    (1.0, 6.25)

    Clipped it is ``max(d(V, target), d(V_old + clip(V - V_old, ±clip), target))``; the distances d are those of
    :func:`distance_loss`. Clipping is not in the paper of PPO but in its first implementation; Andrychowicz et al.,
    "What Matters In On-Policy Reinforcement Learning?" (2021), https://arxiv.org/abs/2006.05990, section 3.4, found it
    harmful.

    Args:
        value: V(s) of the critic in training, ``[N, 1]``.
        target: the value to learn, same shape.
        old_value: V(s) when the batch was collected, same shape; needed by ``clip``.
        clip: largest difference between V and ``old_value`` that can lower the loss, in units of the value; None for
            no limit.
        distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.

    Returns:
        the loss of each row, same shape.

    Raises:
        ConfigError: ``clip`` without ``old_value``, or an unknown distance.
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    require_same_shape("value_loss", value=value, target=target)
    measure = _measure("value_loss", distance)
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

    >>> target = torch.tensor([[0.0], [2.0], [4.0]])
    >>> explained_variance(target + 7, target).item(), explained_variance(torch.ones(3, 1), target).item()
    (1.0, 0.0)

    1 is perfect, 0 as good as a constant, negative worse than that. Where the target does not vary, but for the
    rounding of its mean, there is nothing to explain: 0.

    Args:
        value: V(s), ``[N, 1]``.
        target: what it should predict, same shape.

    Returns:
        ``[]``.

    Raises:
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    require_same_shape("explained_variance", value=value, target=target)
    residual, target = (target - value).flatten(), target.flatten()
    residual, spread = residual - residual.mean(), target - target.mean()
    total = torch.dot(spread, spread)
    rounding = (8 * torch.finfo(target.dtype).eps) ** 2 * torch.dot(target, target)
    return torch.where(total > rounding, 1 - torch.dot(residual, residual) / total, 0)


def standardize(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Shift and scale ``x`` to mean 0 and standard deviation 1 over all rows: ``(x - mean) / sqrt(var + eps²)``.

    >>> standardize(torch.tensor([1.0, 1.0, 3.0, 3.0])).round(decimals=4).tolist()
    [-1.0, -1.0, 1.0, 1.0]

    The variance is taken without Bessel's correction. A single row gives 0. (This is a layer norm over everything, and
    as one operation takes a third of the time of the formula written out.)

    Args:
        x: ``[N]`` or ``[N, 1]``.
        eps: keeps the division finite.

    Returns:
        same shape.
    """
    return F.layer_norm(x, x.shape, eps=eps**2)


def _require_one_number(who: str, name: str, x: float | Tensor) -> None:
    """Refuse a coefficient tensor that is not 0-d: a column ``[N, 1]`` times ``[N]`` would broadcast to ``[N, N]``."""
    if isinstance(x, Tensor) and x.ndim:
        hint = "Nothing is broadcast: weigh the rows yourself."
        raise SpecError(explain(who, expected=f"{name} as a number or of shape []", got=list(x.shape), hint=hint))


def _measure(who: str, distance: str) -> Callable[..., Tensor]:
    if distance not in DISTANCES:
        raise ConfigError(explain(who, expected=f"a distance out of {list(DISTANCES)}", got=repr(distance)))
    return DISTANCES[distance]
