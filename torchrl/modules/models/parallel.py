"""A module that calls several heads on the same features, for actions of several parts."""

from __future__ import annotations

import torch
from torch import nn

from torchrl.errors import ConfigError, explain


class ParallelHeads(nn.Module):
    """Call several heads on the same inputs and return all that they return, in one tuple, in their order.

    >>> steer, gas = ParallelHeads(nn.Linear(4, 3), nn.Linear(4, 1))(torch.zeros(8, 4))
    >>> steer.shape, gas.shape
    (torch.Size([8, 3]), torch.Size([8, 1]))

    So a network gives the parameters of a :class:`~torchrl.modules.CompositeDistribution`, here those of
    ``of(steer=Categorical, gas=TanhNormal)``: ``("steer", "logits")``, ``("gas", "loc")``, ``("gas", "scale")``::

        nn.Sequential(
            MLP(F, 64), nn.Tanh(), ParallelHeads(nn.Linear(64, 3), nn.Sequential(nn.Linear(64, 1), NormalHead(1)))
        )

    Args:
        heads: modules that return a tensor or a tuple of tensors.

    Raises:
        ConfigError: there is no head.
    """

    def __init__(self, *heads: nn.Module) -> None:
        super().__init__()
        if not heads:
            raise ConfigError(explain("ParallelHeads", expected="at least one head", got="none"))
        self.heads = nn.ModuleList(heads)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results: list[torch.Tensor] = []
        for head in self.heads:
            result = head(*inputs)
            results.extend((result,) if isinstance(result, torch.Tensor) else result)
        return tuple(results)
