"""The residual convolutional network: images in, features out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from torchrl.modules.models.arguments import factory, positive, sizes
from torchrl.modules.models.image_encoder import ImageEncoder


class ResidualConvNet(ImageEncoder):
    """Apply sections of a convolution, a pooling that halves the image, and residual blocks, and flatten the result.

    >>> ResidualConvNet(3)(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 2048])

    The defaults are the deep network of Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with Importance Weighted
    Actor-Learner Architectures" (2018), https://arxiv.org/abs/1802.01561, figure 3, without its layers behind the
    convolutions: 97,600 parameters for three channels. Kernels are 3 × 3 with a border of zeros; the pooling takes the
    largest of 3 × 3 at every second pixel; a block adds to its input two convolutions, each behind an activation.
    Pixels may be uint8, and are divided by 255 here; floats are not scaled.

    Shapes: ``[*B, C, H, W]``, any ``*B``, also none, to ``[*B, F]``; without ``flatten`` to ``[*B, C', H', W']``.

    Args:
        in_channels: C.
        num_cells: channels of each section; wider networks have multiples of the defaults.
        num_blocks: residual blocks of each section.
        activation: builds the modules before the convolutions of a block, and the one behind the last section.
        flatten: give one vector for each image.

    Raises:
        ConfigError: a size is not a positive integer, or a module stands where a class is due.
        SpecError: from a call, the images have other channels or another dtype.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_cells: Sequence[int] = (16, 32, 32),
        num_blocks: int = 2,
        activation: Callable[[], nn.Module] = nn.ReLU,
        flatten: bool = True,
    ) -> None:
        super().__init__(flatten=flatten)
        factory("ResidualConvNet(activation=...)", activation)
        num_blocks = positive("ResidualConvNet(num_blocks=...)", num_blocks)
        channels = positive("ResidualConvNet(in_channels=...)", in_channels)
        layers: list[nn.Module] = []
        for num in sizes("ResidualConvNet(num_cells=...)", num_cells):
            layers += [nn.Conv2d(channels, num, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [_Residual(num, activation) for _ in range(num_blocks)]
            channels = num
        self.num_sections = len(layers) // (2 + num_blocks)
        self.layers = nn.Sequential(*layers, activation())

    def _size_after(self, size: int, image: tuple[int, int]) -> int:
        for _ in range(self.num_sections):
            size = (size + 1) // 2
        return size


class _Residual(nn.Module):
    """Add two convolutions, each behind an activation, to the input, ``[n, C, H, W]``."""

    def __init__(self, channels: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        self.layers = nn.Sequential(*(part for one in convolutions for part in (activation(), one)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)
