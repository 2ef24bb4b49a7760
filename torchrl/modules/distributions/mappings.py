"""Functions from a network's free output to a positive standard deviation, or to a bounded mean. Nothing is learned.

Pass the function, not its name: ``StateDependentNormalHead(scale_mapping=softplus)``.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import softplus

__all__ = ["biased_softplus", "bounded", "exp", "expln", "inverse_softplus", "softplus"]

exp = torch.exp


def inverse_softplus(y: float) -> float:
    """Return the x with softplus(x) = y, for y > 0."""
    return y + math.log(-math.expm1(-y))


class biased_softplus:  # noqa: N801 -- a function with an argument; a class so that it pickles and compares
    """Map x to softplus(x + bias), the bias chosen so that 0 becomes ``at_zero``.

    Args:
        at_zero: the standard deviation of a network whose output is 0, positive.
    """

    def __init__(self, at_zero: float = 1.0) -> None:
        self.bias = inverse_softplus(at_zero)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return softplus(x + self.bias)


def expln(x: torch.Tensor) -> torch.Tensor:
    """Return exp(x) where x ≤ 0 and 1 + log(1 + x) above: positive, smooth, and without exp's explosion.

    Rückstieß et al., "State-dependent exploration for policy gradient methods" (2008), section 3.
    """
    return torch.where(x > 0, torch.log1p(x.clamp(min=0)) + 1, torch.exp(x.clamp(max=0)))


class bounded:  # noqa: N801 -- as above
    """Map x smoothly into (−limit, limit), with slope 1 at 0: limit · tanh(x / limit).

    For the ``loc`` of a :class:`TanhNormal`: with ``bounded(5.0)`` the policy cannot run off to where tanh is flat.

    Args:
        limit: positive.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.limit * torch.tanh(x / self.limit)
