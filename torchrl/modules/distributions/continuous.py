"""Distributions over real vectors, independent over the last dimension: ``log_prob`` of ``[*B, A]`` is ``[*B]``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from torchrl.errors import SpecError, explain
from torchrl.modules.distributions.base import Distribution, draw
from torchrl.modules.distributions.bounds import Bound, Bounds, WithBounds

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
LOG_2 = math.log(2)
# Gauss-Hermite nodes: E f(z) = Σ weight f(node) for z ~ N(0, 1), exact for polynomials up to degree 47.
NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
NODES, WEIGHTS = NODES.tolist(), (_WEIGHTS / _WEIGHTS.sum()).tolist()


class Normal(Distribution):
    """Draw every action dimension from its own normal; the field also calls it ``IndependentNormal``.

    >>> normal = Normal(torch.zeros(2, 3), torch.ones(2, 3))
    >>> normal.log_prob(torch.zeros(2, 3))  # -3 · ½ log 2π
    tensor([-2.7568, -2.7568])

    Args:
        loc: mean, ``[*B, A]``.
        scale: standard deviation, positive, ``[*B, A]``.

    Raises:
        SpecError: ``loc`` and ``scale`` differ in shape.
    """

    parameter_names = ("loc", "scale")
    noise_law = "normal"
    __slots__ = ("loc", "scale")

    def __init__(self, loc: torch.Tensor, scale: torch.Tensor) -> None:
        if loc.shape != scale.shape:
            got = f"loc {list(loc.shape)}, scale {list(scale.shape)}"
            hint = "Expand the scale: `scale.expand_as(loc)`."
            raise SpecError(explain(type(self).__name__, expected="loc and scale of one shape", got=got, hint=hint))
        self.loc = loc
        self.scale = scale

    def rsample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return loc + scale · ε with ε ~ N(0, 1), ``[*B, A]``."""
        return self._draw(generator)[0]

    def noise_like(self) -> torch.Tensor:
        """Return ``loc``, ``[*B, A]``."""
        return self.loc

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return loc + scale · noise, ``[*B, A]``."""
        return torch.addcmul(self.loc, self.scale, noise)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the log-density, ``[*B]``.

        Args:
            action: ``[*B, A]``.

        Raises:
            SpecError: the action has another shape.
        """
        self._require_shape(action, self.loc.shape)
        return self._log_density((action - self.loc) / self.scale).sum(-1)

    def rsample_and_log_prob(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw an action, ``[*B, A]``, and its log-density, ``[*B]``; the gradient of both passes through the draw."""
        action = self.rsample(generator)
        return action, self.log_prob(action)

    def entropy(self) -> torch.Tensor:
        """Return Σ (log scale + ½ log 2πe), ``[*B]``."""
        return self.scale.log().sum(-1) + self.loc.shape[-1] * (0.5 + HALF_LOG_2PI)

    def kl(self, other: Normal) -> torch.Tensor:
        """Return Σ (log s₂/s₁ + (s₁² + (m₁ − m₂)²) / 2 s₂² − ½), ``[*B]``."""
        self._require_same_family(other)
        ratio = (self.scale / other.scale).square()
        distance = ((self.loc - other.loc) / other.scale).square()
        return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)

    @property
    def mode(self) -> torch.Tensor:
        """``loc``, which is mode, mean and median at once."""
        return self.loc

    mean = median = mode

    def _draw(self, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a draw from the normal, and its distance from ``loc`` in standard deviations, both ``[*B, A]``."""
        z = draw(torch.Tensor.normal_, self.loc, generator)
        return torch.addcmul(self.loc, self.scale, z), z

    def _log_density(self, z: torch.Tensor) -> torch.Tensor:
        """Return the log-density of each dimension, ``[*B, A]``, at ``z`` standard deviations from ``loc``."""
        return torch.addcmul(self.scale.log().neg(), z, z, value=-0.5) - HALF_LOG_2PI


class TanhNormal(WithBounds, Normal):
    """Draw u from a normal and squash it: action = middle + half-width · tanh(u), between ``low`` and ``high``.

    >>> family = TanhNormal.within(0.0, 2.0)
    >>> family(torch.zeros(1), torch.ones(1)).mode  # the middle
    tensor([1.])

    **The log-prob belongs to the stored action.** tanh rounds: beyond |u| ≈ 8.3 float32 results are ±1 or their
    neighbour, and u cannot be told from the action. So :meth:`log_prob` is a function of the action alone, and
    :meth:`sample_and_log_prob` returns that same function of the action that it draws: the collector stores what the
    learner recomputes, and PPO's ratio is 1 for unchanged weights. Inside, it is the density at
    u = atanh(action on [−1, 1]). An action within two roundings of a bound (or, from another source, outside) counts as
    the bound, and its log-prob is the logarithm of the *probability* of the normal's tail beyond atanh of the last
    action inside: the likelihood of what was seen. It is finite, its gradient is finite and vanishes for a policy that
    is saturated for good, where the density at a clamped u would push back with (loc − 8.3) / scale². Such a
    probability must not be compared with densities of other actions, but may be with another policy's in a ratio.
    A loss that draws its own actions and differentiates through them calls :meth:`rsample_and_log_prob`, which computes
    the plain density from u itself, exact everywhere.

    Entropy and mean have no closed form; both are computed by Gauss-Hermite quadrature with 24 nodes: deterministic,
    differentiable, without random numbers. Largest error per dimension for |loc| ≤ 6: about 2e-6 at scale 1, 1e-3 at
    2, 1e-2 at 3 and 5e-2 at 5. ``mode`` is the squashed ``loc`` (exactly the median): the density of a wide
    TanhNormal peaks at the bounds, which is no useful action.

    A ``loc`` that must not run off to where tanh is flat is squashed by the network before, to ±5 ("upscale") by
    ``NormalHead(A, loc_mapping=bounded(5.0))``.

    Args:
        loc: mean of u, ``[*B, A]``.
        scale: standard deviation of u, positive, ``[*B, A]``.
        low: lower bound, a number or a tensor that broadcasts to ``[A]``.
        high: upper bound. Numbers are the fast case; :meth:`within` checks bounds and prefers numbers.
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

    def rsample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw an action, ``[*B, A]``, in [low, high], as a differentiable function of ``loc`` and ``scale``."""
        return self.bounds.squash(self._draw(generator)[0])

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return loc + scale · noise, squashed between ``low`` and ``high``, ``[*B, A]``."""
        return self.bounds.squash(super().from_noise(noise))

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return the log-prob of a stored action, ``[*B]``: a density, or a probability at the bounds (see the class).

        Args:
            action: ``[*B, A]``.

        Raises:
            SpecError: the action has another shape.
        """
        self._require_shape(action, self.loc.shape)
        bounds = self.bounds
        y = bounds.unit(action)
        limit = 1 - torch.finfo(y.dtype).eps * bounds.reach  # the largest |y| that can be told from a bound
        inside = y.clamp(-limit, limit)
        z = (torch.atanh(inside) - self.loc) / self.scale
        # 1 − y² as (1 + y)(1 − y): near the bounds, squaring first would round away what is left.
        log_slope = torch.log1p(inside) + torch.log1p(-inside)
        log_density = (
            torch.addcmul(self.scale.log().neg(), z, z, value=-0.5) - log_slope - (bounds.log_half_width + HALF_LOG_2PI)
        )
        log_tail = torch.special.log_ndtr(torch.sign(y).neg() * z)
        return torch.where(y.eq(inside), log_density, log_tail).sum(-1)

    def rsample_and_log_prob(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw an action with gradient, and its log-density computed from the value before tanh: exact near bounds too.

        Returns:
            action ``[*B, A]`` and log-density ``[*B]``. The latter is not bit for bit what :meth:`log_prob` says of the
            action: for losses that use both at once, not to be stored.
        """
        u, z = self._draw(generator)
        log_density = self._log_density(z) - _log_slope(u) - self.bounds.log_half_width
        return self.bounds.squash(u), log_density.sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy of u plus E log |d action / d u|, the latter by quadrature, ``[*B]``."""
        log_slope = self._expectation(_log_slope) + self.bounds.log_half_width
        return super().entropy() + log_slope.sum(-1)

    def kl(self, other: TanhNormal) -> torch.Tensor:
        """Return the divergence of the two normals before squashing, which squashing with the same bounds preserves.

        Raises:
            ConfigError: the bounds differ.
        """
        self._require_same_family(other)
        self.bounds.require_same("TanhNormal.kl", other.bounds)
        return super().kl(other)

    @property
    def mode(self) -> torch.Tensor:
        """The squashed ``loc``, which is also the median."""
        return self.bounds.squash(self.loc)

    median = mode

    @property
    def mean(self) -> torch.Tensor:
        """The expected action by quadrature."""
        return self.bounds.middle + self.bounds.half_width * self._expectation(torch.tanh)

    def _expectation(self, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return E function(u) of each dimension, ``[*B, A]``, by Gauss-Hermite quadrature."""
        nodes, weights = self.loc.new_tensor(NODES), self.loc.new_tensor(WEIGHTS)
        return function(torch.addcmul(self.loc.unsqueeze(-1), self.scale.unsqueeze(-1), nodes)) @ weights


def _log_slope(u: torch.Tensor) -> torch.Tensor:
    """Return log d tanh(u) / du = log(1 − tanh²u), in the form that neither overflows nor cancels for any u."""
    return 2 * (LOG_2 - u - F.softplus(-2 * u))
