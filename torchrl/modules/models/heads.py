"""Heads, last modules of networks: the parameters of a distribution, or an action within bounds. They know no keys."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from torchrl.errors import SpecError, explain
from torchrl.modules.distributions.bounds import Bound, Bounds
from torchrl.modules.distributions.mappings import biased_softplus

Mapping = Callable[[torch.Tensor], torch.Tensor]


class NormalHead(nn.Module):
    """Return a network's output as the mean, with a learned standard deviation that does not depend on the state.

    >>> loc, scale = NormalHead(3)(torch.zeros(8, 3))
    >>> scale[0].tolist()
    [1.0, 1.0, 1.0]

    ``nn.Sequential(MLP(F, A), NormalHead(A))`` gives ``(loc, scale)``, both ``[*B, A]``. The parameter is ``log_std``,
    ``[A]``.

    Args:
        num_actions: A.
        init_log_std: initial value of every ``log_std``.
        loc_mapping: applied to the incoming ``loc``, for example ``bounded(5.0)`` before a TanhNormal; None keeps it.
    """

    def __init__(self, num_actions: int, *, init_log_std: float = 0.0, loc_mapping: Mapping | None = None) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((num_actions,), float(init_log_std)))
        self.loc_mapping = loc_mapping

    def forward(self, loc: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.loc_mapping is not None:
            loc = self.loc_mapping(loc)
        return loc, self.log_std.exp().expand_as(loc)


class StateDependentNormalHead(nn.Module):
    """Split a network's output ``[*B, 2 A]`` into ``loc`` and a positive ``scale``, both ``[*B, A]``.

    >>> loc, scale = StateDependentNormalHead()(torch.zeros(8, 6))
    >>> loc.shape, scale[0].tolist()
    (torch.Size([8, 3]), [1.0, 1.0, 1.0])

    Args:
        scale_mapping: makes the second half positive; see ``distributions.mappings``.
        min_scale: lower bound of the scale, so that no log-density explodes.
        loc_mapping: applied to the first half; None keeps it.

    Raises:
        SpecError: from a call, if the last dimension is odd.
    """

    def __init__(
        self,
        *,
        scale_mapping: Mapping = biased_softplus(1.0),  # noqa: B008 -- without state
        min_scale: float = 1e-4,
        loc_mapping: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.scale_mapping = scale_mapping
        self.min_scale = min_scale
        self.loc_mapping = loc_mapping

    def forward(self, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if output.shape[-1] % 2:
            who, hint = type(self).__name__, "The network before it needs 2 × num_actions outputs."
            raise SpecError(explain(who, expected="an even last dimension", got=list(output.shape), hint=hint))
        loc, scale = output.chunk(2, -1)
        if self.loc_mapping is not None:
            loc = self.loc_mapping(loc)
        return loc, self.scale_mapping(scale).clamp(min=self.min_scale)


class TanhHead(nn.Module):
    """Squash a network's output onto an interval: ``middle + half-width · tanh(x)``; for deterministic actors.

    >>> TanhHead(0.0, 2.0)(torch.tensor([-99.0, 0.0]))
    tensor([0., 1.])

    Shapes: ``[*B, A]`` to ``[*B, A]``.

    Args:
        low: lower bound, a number or a tensor ``[A]``.
        high: upper bound, of the same forms.

    Raises:
        ConfigError: a bound is infinite, or not every ``low`` is below its ``high``.
    """

    def __init__(self, low: Bound, high: Bound) -> None:
        super().__init__()
        self.bounds = Bounds.validate("TanhHead", low, high)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bounds.like(x).squash(x)

    def extra_repr(self) -> str:
        return str(self.bounds)
