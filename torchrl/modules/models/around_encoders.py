"""Wrappers around encoders of images: one keeps gradients out, one cuts images to size. No parameters of their own."""

from __future__ import annotations

import torch
from torch import nn

from torchrl.errors import SpecError, explain
from torchrl.modules.models.arguments import positive


class Detached(nn.Module):
    """Call a module without gradient, so that what reads its result trains neither it nor what comes before it.

    >>> encoder = nn.Linear(4, 2)
    >>> Detached(encoder)(torch.zeros(3, 4)).requires_grad
    False

    So an actor shares the encoder of its critic, whose loss alone trains it, as in Yarats et al., "Improving Sample
    Efficiency in Model-Free Reinforcement Learning from Images" (2021), https://arxiv.org/abs/1910.01741, section 4::

        encoder = ConvNet(9)
        actor = nn.Sequential(Detached(encoder), MLP(3136, 2))
        critics = Sequence(Operator(encoder, ...), ValueEnsemble(...), out_keys=["state_action_value"])

    Args:
        module: what another network or loss trains; it stays in ``parameters()``, so that copies of a policy have it.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @torch.no_grad()
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.module(*inputs)


class CenterCrop(nn.Module):
    """Cut the middle out of images ``[*B, C, H, W]``; images of the right size stay as they are.

    >>> CenterCrop(84)(torch.zeros(2, 3, 100, 100)).shape
    torch.Size([2, 3, 84, 84])

    So ``nn.Sequential(CenterCrop(84), ConvNet(3))`` acts on whole images, and learns from the windows that a
    :class:`~torchrl.data.RandomCrop` cut out of sampled ones. Where the border has an odd number of pixels, the bottom
    or right one is the wider.

    Args:
        height: of the middle, in pixels.
        width: the same; None makes it square.

    Raises:
        ConfigError: a size is not a positive integer.
        SpecError: from a call, an image is smaller.
    """

    def __init__(self, height: int, width: int | None = None) -> None:
        super().__init__()
        self.height = positive("CenterCrop(height=...)", height)
        self.width = positive("CenterCrop(width=...)", height if width is None else width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows, columns = images.shape[-2] - self.height, images.shape[-1] - self.width
        if min(rows, columns) < 0:
            expected = f"images of at least {self.height} × {self.width} pixels"
            raise SpecError(explain("CenterCrop", expected=expected, got=list(images.shape[-2:])))
        top, left = rows // 2, columns // 2
        return images[..., top : top + self.height, left : left + self.width]
