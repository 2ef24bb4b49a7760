"""The normal distribution cut off at bounds, and renormalised between them."""

from __future__ import annotations

import functools
import math
from typing import Self

import torch
from torch.special import erfcx, log_ndtr, ndtri

from torchrl.modules.distributions.base import draw
from torchrl.modules.distributions.bounds import Bound, Bounds
from torchrl.modules.distributions.continuous import HALF_LOG_2PI, Normal

FAR = -30.0  # from here on the normal's own distribution function is inverted in logarithms; it underflows at −38
SQRT_2 = math.sqrt(2)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


class TruncatedNormal(Normal):
    """Draw every action dimension from its own normal, on condition that it lies between ``low`` and ``high``.

    ``loc`` and ``scale`` are those of the normal before it is cut, and ``loc`` may lie outside: all quantities hold
    however far out, since they are computed in float64 and, where it matters, in logarithms. With α and β the bounds in
    standard deviations from ``loc``, and Z = Φ(β) − Φ(α):

    - density: φ((x − loc) / scale) / (scale · Z) between the bounds, 0 (log-prob −inf) outside;
    - a sample is the quantile of a uniform number: one draw, no rejection. Its gradient is that of the quantile
      (Figurnov et al., "Implicit Reparameterization Gradients", 2018, equation 3), so that it is exact as well;
    - entropy, mean, and the divergence between two with the same bounds have closed forms.

    Args:
        loc: mean of the normal, ``[*B, A]``.
        scale: its standard deviation, positive, ``[*B, A]``.
        low: lower bound, a number or a tensor that broadcasts to ``[A]``.
        high: upper bound; :meth:`within` checks both.
        bounds: both at once, computed before, in the place of ``low`` and ``high``; :meth:`within` fills them in.

    Raises:
        SpecError: ``loc`` and ``scale`` differ in shape.
    """

    __slots__ = ("bounds",)

    def __init__(
        self,
        loc: torch.Tensor,
        scale: torch.Tensor,
        *,
        low: Bound = -1.0,
        high: Bound = 1.0,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__(loc, scale)
        self.bounds = (Bounds.of(low, high) if bounds is None else bounds).like(loc)

    @classmethod
    def within(cls, low: Bound, high: Bound) -> functools.partial[Self]:
        """Return the distribution class with its bounds filled in, for :class:`ProbabilisticActor`.

        Args:
            low: lower bound: a number, a tensor ``[A]``, or a tensor of any shape whose entries are equal.
            high: upper bound, alike.

        Raises:
            ConfigError: a bound is infinite, not every ``low`` is below its ``high``, or they differ between rows.
        """
        return functools.partial(cls, bounds=Bounds.checked(f"{cls.__name__}.within", low, high))

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw actions without gradient, ``[*B, A]``, in [low, high]."""
        with torch.no_grad():
            loc, scale, alpha, beta = self._standard()
            share = draw(torch.Tensor.uniform_, alpha, generator)
            return self._inside(loc + scale * _quantile(share, alpha, beta))

    def rsample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return an action, ``[*B, A]``, in [low, high], as a function of ``loc`` and ``scale``."""
        return self._quantile_action(draw(torch.Tensor.uniform_, self.loc.double(), generator))

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the log-density, ``[*B]``; −inf where a dimension is out of bounds.

        Args:
            action: ``[*B, A]``.

        Raises:
            SpecError: the action has another shape.
        """
        self._require_shape(action, self.loc.shape)
        loc, scale, alpha, beta = self._standard()
        z = (action.double() - loc) / scale
        log_density = torch.addcmul(_log_mass(alpha, beta) + scale.log(), z, z, value=0.5).neg() - HALF_LOG_2PI
        outside = (action < self.bounds.low) | (action > self.bounds.high)
        return log_density.masked_fill(outside, -math.inf).sum(-1).to(self.loc.dtype)

    def entropy(self) -> torch.Tensor:
        """Return Σ (log (scale · Z) + ½ log 2π + ½ E z²), where z = (x − loc) / scale, ``[*B]``."""
        _, scale, alpha, beta = self._standard()
        _, square = _moments(alpha, beta)
        return (scale.log() + _log_mass(alpha, beta) + HALF_LOG_2PI + 0.5 * square).sum(-1).to(self.loc.dtype)

    def kl(self, other: TruncatedNormal) -> torch.Tensor:
        """Return Σ (log (s₂ Z₂ / s₁ Z₁) + ½ E ((x − m₂) / s₂)² − ½ E ((x − m₁) / s₁)²), ``[*B]``.

        Raises:
            ConfigError: the bounds differ.
        """
        self._require_same_family(other)
        self.bounds.require_same("TruncatedNormal.kl", other.bounds)
        loc, scale, alpha, beta = self._standard()
        other_loc, other_scale, other_alpha, other_beta = other._standard()
        mean, square = _moments(alpha, beta)
        shift, ratio = (loc - other_loc) / other_scale, scale / other_scale
        other_square = shift.square() + 2 * shift * ratio * mean + ratio.square() * square
        log_masses = _log_mass(other_alpha, other_beta) - _log_mass(alpha, beta)
        return (log_masses - ratio.log() + 0.5 * (other_square - square)).sum(-1).to(self.loc.dtype)

    @property
    def mode(self) -> torch.Tensor:
        """``loc``, or the bound next to it, ``[*B, A]``."""
        return torch.clamp(self.loc, self.bounds.low, self.bounds.high)

    @property
    def mean(self) -> torch.Tensor:
        """The expected action, ``[*B, A]``."""
        loc, scale, alpha, beta = self._standard()
        mean, _ = _moments(alpha, beta)
        return self._inside(loc + scale * mean)

    @property
    def median(self) -> torch.Tensor:
        """The action with as much probability on either side, ``[*B, A]``."""
        return self._quantile_action(torch.full_like(self.loc, 0.5, dtype=torch.float64))

    def _standard(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loc, scale, and the bounds in standard deviations from loc, ``[*B, A]`` float64."""
        loc, scale, bounds = self.loc.double(), self.scale.double(), self.bounds
        return loc, scale, (bounds.low - loc) / scale, (bounds.high - loc) / scale

    def _inside(self, action: torch.Tensor) -> torch.Tensor:
        """Return a float64 action in the dtype of ``loc``, not moved out of bounds by rounding."""
        return torch.clamp(action, self.bounds.low, self.bounds.high).to(self.loc.dtype)

    def _quantile_action(self, share: torch.Tensor) -> torch.Tensor:
        """Return the action below which ``share`` of the probability lies, with its gradient.

        With F(z; α, β) = share held fixed, dz = ((1 − share) φ(α) dα + share φ(β) dβ) / φ(z).
        """
        loc, scale, alpha, beta = self._standard()
        with torch.no_grad():
            z = _quantile(share, alpha, beta)
            by_alpha = (1 - share) * _density_ratio(alpha, z)
            by_beta = share * _density_ratio(beta, z)
            action = self._inside(loc + scale * z)
        moved = by_alpha * (alpha - alpha.detach()) + by_beta * (beta - beta.detach())
        slope = loc + scale * (z + moved)
        return action + (slope - slope.detach()).to(action.dtype)


def _log_mass(alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """Return log Z = log (Φ(β) − Φ(α))."""
    a, b = _leftwards(alpha, beta)
    return log_ndtr(b) + torch.log(_share_between(a, b))


def _moments(alpha: torch.Tensor, beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return E z and E z² of the standard normal between α and β.

    In the mirrored interval E z = (φ(a) − φ(b)) / Z and E z² = 1 + (a φ(a) − b φ(b)) / Z. Both are written so that what
    nearly cancels, in a narrow interval as well as in a far one, is subtracted before it is rounded.
    """
    a, b = _leftwards(alpha, beta)
    hazard = SQRT_2_OVER_PI / erfcx(-b.clamp(max=-FAR) / SQRT_2)  # φ(b) / Φ(b); beyond FAR it is 0 anyway
    at_b = hazard / _share_between(a, b)
    mean = at_b * torch.expm1(0.5 * (b - a) * (b + a))
    square = 1 + a * mean - (b - a) * at_b
    return torch.where(alpha + beta > 0, -mean, mean), square


def _leftwards(alpha: torch.Tensor, beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the interval, mirrored where most of it lies right of zero: floats resolve the left tail."""
    mirrored = alpha + beta > 0
    return torch.where(mirrored, -beta, alpha), torch.where(mirrored, -alpha, beta)


def _share_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return 1 − Φ(a) / Φ(b), the share of what lies left of b."""
    return -torch.expm1(log_ndtr(a) - log_ndtr(b))


def _density_ratio(bound: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return φ(bound) / φ(z); never infinite, because what it is multiplied with may be 0."""
    return torch.exp((0.5 * (z - bound) * (z + bound)).clamp(max=700))


def _quantile(share: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """Return the z with Φ(z) = Φ(α) + share · (Φ(β) − Φ(α)), without gradient; all ``[*B, A]`` float64."""
    mirrored = alpha + beta > 0
    a, b = _leftwards(alpha, beta)
    share = torch.where(mirrored, 1 - share, share)
    near = ndtri(0.5 * torch.lerp(torch.erfc(-a / SQRT_2), torch.erfc(-b / SQRT_2), share))
    z = torch.where(b < FAR, _far_quantile(share, a, b), near)
    z = torch.minimum(torch.maximum(z, a), b)
    return torch.where(mirrored, -z, z)


def _far_quantile(share: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the same for bounds far left of zero, where Φ underflows.

    With Q(t) = Φ(−t), start = −b and t = start + d, it is the d at which log Q(t) − log Q(start) is ``log_ratio``. Were
    log Q(t) equal to −t²/2, a quadratic equation would give it; Newton's method mends the difference.
    """
    start = (-b).clamp(min=1)
    log_ratio = torch.log1p((share - 1) * _share_between(a, b)).clamp(min=-700)
    d = -2 * log_ratio / (start + torch.sqrt(start.square() - 2 * log_ratio))
    at_start = erfcx(start / SQRT_2)
    for _ in range(2):
        at_t = erfcx((start + d) / SQRT_2)
        excess = torch.log(at_t / at_start) - d * (start + 0.5 * d) - log_ratio
        d = d + excess * at_t / SQRT_2_OVER_PI
    return -(start + d)
