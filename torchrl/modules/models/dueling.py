"""Dueling heads: the value of a state and the advantages of its actions as two streams, joined again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from torchrl.modules.models.arguments import positive, sizes
from torchrl.modules.models.mlp import MLP


class DuelingHead(nn.Module):
    """Turn features into action values by ``Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')``.

    >>> DuelingHead(64, num_actions=3)(torch.zeros(8, 64)).shape
    torch.Size([8, 3])

    Wang et al., "Dueling Network Architectures for Deep Reinforcement Learning" (2016),
    https://arxiv.org/abs/1511.06581, equation 9; with K numbers per action the equation holds for each k alone, as in
    Hessel et al., "Rainbow" (2018), https://arxiv.org/abs/1710.02298.

    ``nn.Sequential(ConvNet(4), DuelingHead(3136, 6))`` is the paper's network for images.

    Shapes: ``[*B, F]`` to ``[*B, A]``, or with ``num_outputs`` to ``[*B, A, K]``.

    Args:
        in_features: F.
        num_actions: A.
        num_outputs: K, for a distributional actor; None gives one value per action.
        num_cells: sizes of the hidden layers of each stream.
        activation: builds the module between the layers.
        linear: builds a linear layer from its two sizes; :class:`NoisyLinear` explores.

    Raises:
        ConfigError: a size is not a positive integer.
    """

    def __init__(
        self,
        in_features: int,
        num_actions: int,
        *,
        num_outputs: int | None = None,
        num_cells: Sequence[int] = (512,),
        activation: Callable[[], nn.Module] = nn.ReLU,
        linear: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        self.num_actions = positive("DuelingHead(num_actions=...)", num_actions)
        self.num_outputs = None if num_outputs is None else positive("DuelingHead(num_outputs=...)", num_outputs)
        common = {"num_cells": num_cells, "activation": activation, "linear": linear}
        width = self.num_outputs or 1
        self.value = MLP(in_features, width, **common)
        self.advantage = MLP(in_features, num_actions * width, **common)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        advantage = self.advantage(features)
        if self.num_outputs is None:
            return self.value(features) + advantage - advantage.mean(-1, keepdim=True)
        advantage = advantage.unflatten(-1, (self.num_actions, self.num_outputs))
        return self.value(features).unsqueeze(-2) + advantage - advantage.mean(-2, keepdim=True)


class DuelingMLP(nn.Module):
    """Compute the values of all actions from a state vector, by hidden layers that end in a :class:`DuelingHead`.

    >>> DuelingMLP(4, num_actions=3, num_outputs=51)(torch.zeros(8, 4)).shape
    torch.Size([8, 3, 51])

    Shapes: ``[*B, F]`` to ``[*B, A]``, or with ``num_outputs`` to ``[*B, A, K]``.

    Args:
        in_features: F.
        num_actions: A.
        num_outputs: K, for a distributional actor; None gives one value per action.
        num_cells: sizes of the hidden layers, the last that of each stream; at least one.
        activation: builds the module after each hidden layer.
        linear: builds a linear layer of the streams from its two sizes.

    Raises:
        ConfigError: a size is not a positive integer, or there is none.
    """

    def __init__(
        self,
        in_features: int,
        num_actions: int,
        *,
        num_outputs: int | None = None,
        num_cells: Sequence[int] = (256, 256),
        activation: Callable[[], nn.Module] = nn.ReLU,
        linear: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        *trunk, stream = sizes("DuelingMLP(num_cells=...)", num_cells) or (0,)
        positive("DuelingMLP(num_cells=...)", stream)
        layers: list[nn.Module] = []
        size = in_features
        if trunk:
            *cells, size = trunk
            layers = [MLP(in_features, size, num_cells=cells, activation=activation), activation()]
        head = DuelingHead(
            size, num_actions, num_outputs=num_outputs, num_cells=(stream,), activation=activation, linear=linear
        )
        self.layers = nn.Sequential(*layers, head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
