"""Deterministic policies in the form of distributions: all probability on one action."""

from __future__ import annotations

import math

import torch

from torchrl.modules.distributions.base import Distribution
from torchrl.modules.distributions.bounds import Bound, Bounds, WithBounds


class Delta(Distribution):
    """Put all probability on one action, ``param``: a deterministic policy in the form of a distribution.

    >>> Delta(torch.tensor([0.5])).sample()
    tensor([0.5000])

    A point has no density: the log-prob is +inf at the action and −inf elsewhere, without gradient, and the difference
    of two is NaN. Give the actor ``log_prob_key=None``. There is neither an entropy nor a divergence, so that losses
    that need one refuse this family when they are built. What a loss may use is the action itself, which
    :meth:`rsample`, ``mode``, ``mean`` and ``median`` give with gradient: deterministic policy gradients do.

    Args:
        param: the action, ``[*B, A]``.
        atol: two actions are the same where all their entries differ by at most ``atol + rtol · |param|``.
        rtol: see ``atol``.
    """

    parameter_names = ("param",)
    __slots__ = ("param", "atol", "rtol")

    def __init__(self, param: torch.Tensor, *, atol: float = 1e-6, rtol: float = 1e-6) -> None:
        self.param = param
        self.atol = atol
        self.rtol = rtol

    def rsample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return the action with gradient, ``[*B, A]``; nothing is drawn."""
        return self.mode

    def from_noise(self, noise: torch.Tensor | None) -> torch.Tensor:
        """Return the action, ``[*B, A]``; it takes no noise."""
        return self.mode

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Return +inf where ``action`` is that of the distribution, up to the tolerance, and −inf elsewhere, ``[*B]``.

        Args:
            action: ``[*B, A]``.

        Raises:
            SpecError: the action has another shape.
        """
        mode = self.mode.detach()
        self._require_shape(action, mode.shape)
        is_same = torch.isclose(action.detach(), mode, rtol=self.rtol, atol=self.atol).all(-1)
        return torch.full_like(mode[..., 0], -math.inf).masked_fill(is_same, math.inf)

    @property
    def mode(self) -> torch.Tensor:
        """The action, ``[*B, A]``."""
        return self.param

    @property
    def mean(self) -> torch.Tensor:
        """The action, ``[*B, A]``."""
        return self.mode

    @property
    def median(self) -> torch.Tensor:
        """The action, ``[*B, A]``."""
        return self.mode


class TanhDelta(WithBounds, Delta):
    """Take the action middle + half-width · tanh(param), between ``low`` and ``high``; else like :class:`Delta`.

    >>> TanhDelta(torch.tensor([99.0]), low=-2.0, high=2.0).sample()
    tensor([2.])

    Args:
        param: the action before squashing, ``[*B, A]``.
        low: lower bound, a number or a tensor that broadcasts to ``[A]``.
        high: upper bound; :meth:`within` checks both.
        bounds: both at once, computed before, in the place of ``low`` and ``high``; :meth:`within` fills them in.
        atol: two actions are the same where all their entries differ by at most ``atol + rtol · |action|``.
        rtol: see ``atol``.
    """

    __slots__ = ("bounds",)

    def __init__(
        self,
        param: torch.Tensor,
        *,
        low: Bound = -1.0,
        high: Bound = 1.0,
        bounds: Bounds | None = None,
        atol: float = 1e-6,
        rtol: float = 1e-6,
    ) -> None:
        super().__init__(param, atol=atol, rtol=rtol)
        self.bounds = (Bounds.of(low, high) if bounds is None else bounds).like(param)

    @property
    def mode(self) -> torch.Tensor:
        """The squashed ``param``, ``[*B, A]``."""
        return self.bounds.squash(self.param)
