"""Checks and preparation of the arguments of returns: shapes, coefficients, weights, padding. Computes no return.

**The rule on shapes.** Time is the last batch dimension, and rewards have R dimensions, nearly always one:

- rewards and values are ``[*B, T, R]``, all of one shape;
- facts about a step (flags, mask, weight) are ``[*B, T, 1]``, whatever R is;
- a coefficient (γ, λ) is a number, a 0-d tensor, a ``[R]`` tensor, one per reward dimension, or a tensor of the
  reward's shape, one per step: that of step t acts between step t and what follows it.

Everything else is refused, so nothing else is ever broadcast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.endings import bootstraps, next_step_follows
from torchrl.shapes import require_same_shape


class Steps:
    """Check the arguments of a call such as ``gae(...)``, and hold them, cleaned, as attributes for its formula.

    Masked steps are set to 0, and ``next_value`` to 0 where the task was over; ``follows`` tells where step t+1 is the
    successor of step t, bool ``[*B, T, 1]``.

    Args:
        who: the function that was called, for errors.
        reward: received on entering t+1, ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool, ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool, ``[*B, T, 1]``.
        gamma: discount γ.
        lambda_: decay λ.
        value: V(s_t), the reward's shape; may be None.
        next_value: V of the true successor of step t, the reward's shape; may be None.
        mask: step t is valid, bool ``[*B, T, 1]``; may be None.
        weight: ``weight=ρ`` or ``log_weight=log ρ``, whichever the function takes, ``[*B, T, 1]``; may be None.

    Raises:
        SpecError: an argument breaks the rule on shapes, the reward is no float, or a flag no bool.
    """

    __slots__ = ("reward", "value", "next_value", "weight", "gamma", "lambda_", "follows")

    def __init__(
        self,
        who: str,
        reward: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        *,
        gamma: float | Tensor,
        lambda_: float | Tensor = 1.0,
        value: Tensor | None = None,
        next_value: Tensor | None = None,
        mask: Tensor | None = None,
        **weight: Tensor | None,
    ) -> None:
        facts = {"terminated": terminated, "truncated": truncated, "mask": mask, **weight}
        require_steps(who, {"reward": reward, "value": value, "next_value": next_value}, facts)
        if reward.ndim < 2:
            raise SpecError(explain(who, expected="a reward [*B, T, R], time before last", got=list(reward.shape)))
        follows = next_step_follows(terminated, truncated, mask=mask)
        counts = bootstraps(terminated)
        gamma = coefficient(who, "gamma", gamma, reward)
        lambda_ = coefficient(who, "lambda_", lambda_, reward)
        (rho,) = weight.values()
        if mask is not None:
            counts = counts & mask
            reward, value, rho = (_zero_unless(mask, x) for x in (reward, value, rho))
            gamma, lambda_ = (_zero_unless(mask, x) if _is_per_step(x) else x for x in (gamma, lambda_))
        self.reward = reward
        self.value = value
        self.next_value = _zero_unless(counts, next_value)
        self.weight = rho
        self.gamma = gamma
        self.lambda_ = lambda_
        self.follows = follows

    def where_followed(self, factor: float | Tensor) -> Tensor:
        """Expand a factor to the reward's shape, with 0 at steps whose next entry is not the successor."""
        if isinstance(factor, Tensor):
            factor = torch.where(self.follows, factor, 0)
        else:
            factor = self.follows.to(self.reward.dtype) * factor
        return factor.expand_as(self.reward)


def require_steps(who: str, values: dict[str, Tensor | None], facts: dict[str, Tensor | None]) -> None:
    """Refuse rewards and values not of one shape ``[*B, T, R]``, and flags, masks and weights not ``[*B, T, 1]``.

    Args:
        who: the function that was called.
        values: by name, ``"reward"`` among them; None is skipped.
        facts: by name; None is skipped.

    Raises:
        SpecError: naming the shapes.
    """
    require_same_shape(who, **{name: value for name, value in values.items() if value is not None})
    reward = values["reward"]
    if not reward.is_floating_point():
        raise SpecError(explain(who, expected="a reward of a floating dtype", got=reward.dtype))
    due = (*reward.shape[:-1], 1)
    for name, fact in facts.items():
        if fact is not None and fact.shape != due:
            got = f"{name} {list(fact.shape)} beside reward {list(reward.shape)}"
            hint = "Flags, masks and weights end with 1, rewards and values with the number of rewards."
            raise SpecError(explain(who, expected=f"{name} of shape {list(due)}", got=got, hint=hint))


def coefficient(who: str, name: str, x: float | Tensor, reward: Tensor) -> float | Tensor:
    """Check the shape of a coefficient such as γ; return a number as it is, and a tensor in the dtype of the reward.

    Args:
        who: the function that was called.
        name: the argument.
        x: a number or a tensor ``[]``, ``[R]`` or ``[*B, T, R]``.
        reward: ``[*B, T, R]``.

    Raises:
        SpecError: a tensor of another shape.
    """
    if not isinstance(x, Tensor):
        return x
    if x.ndim and x.shape != reward.shape and x.shape != reward.shape[-1:]:
        expected = f"{name} as a number or of shape [], {list(reward.shape[-1:])} or {list(reward.shape)}"
        raise SpecError(explain(who, expected=expected, got=list(x.shape), hint="Nothing is broadcast."))
    return x.to(reward.dtype)


def importance_weight(log_weight: Tensor, *, clip: float | None = None) -> Tensor:
    """Compute ``ρ = min(clip, π(a|s) / μ(a|s))`` from ``log π - log μ``.

    >>> importance_weight(torch.tensor([0.0, 1.0]), clip=1.0).tolist()
    [1.0, 1.0]

    The logarithm is clipped, so that neither the weight nor its gradient overflows; a clipped weight has gradient 0.

    Args:
        log_weight: log π(a_t|s_t) - log μ(a_t|s_t), any shape.
        clip: the largest weight; None for no limit.

    Returns:
        same shape.

    Raises:
        ConfigError: ``clip`` is not positive.
    """
    require_clip("importance_weight", clip)
    return log_weight.exp() if clip is None else log_weight.clamp(max=math.log(clip)).exp()


def require_clip(who: str, clip: float | None) -> None:
    """Refuse a clip of importance weights that is not positive; None is no limit.

    Raises:
        ConfigError: naming it.
    """
    if clip is not None and not clip > 0:
        raise ConfigError(explain(who, expected="a positive clip of weights or None", got=clip))


def _is_per_step(x: float | Tensor) -> bool:
    return isinstance(x, Tensor) and x.ndim > 1


def _zero_unless(counts: Tensor, x: Tensor | None) -> Tensor | None:
    """Return ``x`` with 0 where ``counts`` is false, also in the place of a NaN; None if ``x`` is None."""
    return None if x is None else torch.where(counts, x, 0)
