"""A network whose first input, such as an image, goes through an encoder; other inputs join the features."""

from __future__ import annotations

import torch
from torch import nn


class Encoded(nn.Module):
    """Encode the first input, and call ``head`` on its features and the other inputs.

    >>> critic = Encoded(nn.Linear(9, 4), MLP(4 + 2, 1))  # of an observation and an action
    >>> critic(torch.zeros(8, 9), torch.zeros(8, 2)).shape
    torch.Size([8, 1])

    ``Encoded(ConvNet(4), MLP(3136 + 6, 1))`` is a critic of images and actions, its MLP joins the features and the
    action; without other inputs it is ``nn.Sequential(encoder, head)``. Inside a :class:`ValueEnsemble` every critic
    has an encoder of its own; :class:`ActorCriticOperator` shares one.

    Args:
        encoder: the first input to features ``[*B, F]``.
        head: takes the features, then the other inputs.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(first), *others)
