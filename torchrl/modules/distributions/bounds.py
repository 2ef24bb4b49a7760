"""The bounds of continuous actions, and the squashing of the real line into them."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple, Self

import torch

from torchrl.errors import ConfigError, explain

Bound = float | torch.Tensor


class Bounds(NamedTuple):
    """Finite bounds of actions, numbers or ``[A]``, with what distributions compute from them, such as the half-width.

    Attributes:
        low: lower bound.
        high: upper bound.
        middle: (low + high) / 2.
        half_width: (high - low) / 2.
        log_half_width: its logarithm.
        reach: max(|low|, |high|) / half-width, the factor by which mapping an action to [−1, 1] enlarges its rounding.
    """

    low: Bound
    high: Bound
    middle: Bound
    half_width: Bound
    log_half_width: Bound
    reach: Bound

    @classmethod
    def of(cls, low: Bound, high: Bound) -> Self:
        """Make bounds from ``low`` and ``high`` without checking them."""
        if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
            like = low if isinstance(low, torch.Tensor) else high
            low, high = torch.broadcast_tensors(*(torch.as_tensor(bound).to(like) for bound in (low, high)))
            half_width, largest = (high - low) / 2, torch.maximum(low.abs(), high.abs())
            return cls(low, high, (low + high) / 2, half_width, half_width.log(), largest / half_width)
        half_width, largest = (high - low) / 2, max(abs(low), abs(high))
        return cls(low, high, (low + high) / 2, half_width, math.log(half_width), largest / half_width)

    @classmethod
    def validate(cls, who: str, low: Bound, high: Bound) -> Self:
        """Make bounds from ``low`` and ``high`` after checking them; equal entries become one number, the fast case.

        Args:
            who: who asks, for the message.
            low: lower bound: a number, a tensor ``[A]``, or a tensor of any shape whose entries are equal.
            high: upper bound, of the same forms.

        Raises:
            ConfigError: a bound is infinite, not every ``low`` is below its ``high``, or they differ between rows.
        """
        lower, upper = (torch.as_tensor(bound, dtype=torch.float64) for bound in (low, high))
        if not (lower < upper).all() or not (lower.isfinite().all() and upper.isfinite().all()):
            got = f"low={lower.tolist()}, high={upper.tolist()}"
            raise ConfigError(explain(who, expected="finite bounds with low < high", got=got))
        low, high = _as_number(low), _as_number(high)
        if any(isinstance(bound, torch.Tensor) and bound.ndim > 1 for bound in (low, high)):
            got = [list(bound.shape) for bound in (lower, upper)]
            hint = "Take the bounds of one environment."
            raise ConfigError(explain(who, expected="numbers or [A]", got=got, hint=hint))
        return cls.of(low, high)

    def like(self, x: torch.Tensor) -> Bounds:
        """Return the bounds in the dtype and on the device of ``x``; bounds that are numbers as they are."""
        low = self.low
        if not isinstance(low, torch.Tensor) or (low.dtype == x.dtype and low.device == x.device):
            return self
        return Bounds.of(low.to(x), self.high.to(x))

    def require_same(self, who: str, other: Bounds) -> None:
        """Refuse other bounds whose numbers differ from these; the same object passes without a comparison.

        Raises:
            ConfigError: naming ``who`` and both bounds.
        """
        if other is self:
            return
        pairs = ((self.low, other.low), (self.high, other.high))
        if not all(_is_same(*pair) for pair in pairs):
            raise ConfigError(explain(who, expected="the same bounds", got=f"{self} and {other}"))

    def squash(self, u: torch.Tensor) -> torch.Tensor:
        """Return middle + half-width · tanh(u), never outside of the bounds."""
        y = torch.tanh(u)
        if _is_number(self.middle, 0.0):
            return y if _is_number(self.half_width, 1.0) else y * self.half_width
        # middle + half-width · 1 may round to a float outside the bounds, which a spec would refuse.
        return torch.clamp(self.middle + self.half_width * y, self.low, self.high)

    def unit(self, action: torch.Tensor) -> torch.Tensor:
        """Map an action linearly from [low, high] to [−1, 1]."""
        y = action if _is_number(self.middle, 0.0) else action - self.middle
        return y if _is_number(self.half_width, 1.0) else y / self.half_width

    def __str__(self) -> str:
        low, high = (bound.tolist() if isinstance(bound, torch.Tensor) else bound for bound in (self.low, self.high))
        return f"[{low}, {high}]"


class WithBounds:
    """Base of distributions between bounds, whose constructors take a keyword ``bounds``; :meth:`within` sets it."""

    __slots__ = ()

    @classmethod
    def within(cls, low: Bound, high: Bound) -> functools.partial[Self]:
        """Return the distribution class with its bounds filled in, for :class:`ProbabilisticActor`.

        Args:
            low: lower bound: a number, a tensor ``[A]``, or a tensor of any shape whose entries are equal. Tensors have
                the dtype of the network's output in the fast case.
            high: upper bound, of the same forms.

        Raises:
            ConfigError: a bound is infinite, not every ``low`` is below its ``high``, or they differ between rows.
        """
        return functools.partial(cls, bounds=Bounds.validate(f"{cls.__name__}.within", low, high))


def _is_number(value: Bound, number: float) -> bool:
    return not isinstance(value, torch.Tensor) and value == number


def _is_same(one: Bound, other: Bound) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return torch.equal(*(torch.as_tensor(bound, dtype=torch.float64) for bound in (one, other)))
    return one == other


def _as_number(bound: Bound) -> Bound:
    """Return a tensor of equal entries as the number that they are."""
    if isinstance(bound, torch.Tensor) and bound.numel() and (bound == bound.flatten()[0]).all():
        return bound.flatten()[0].item()
    return bound
