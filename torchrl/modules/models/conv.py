"""The convolutional network: images in, features out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.modules.models.arguments import factory, positive, sizes
from torchrl.modules.models.image_encoder import ImageEncoder


class ConvNet(ImageEncoder):
    """Apply convolutions, each followed by an activation, and flatten the result.

    >>> ConvNet(4)(torch.zeros(2, 4, 84, 84, dtype=torch.uint8)).shape
    torch.Size([2, 3136])

    The defaults are those of Mnih et al., "Human-level control through deep reinforcement learning" (2015), methods:
    from 84 × 84 pixels they make 3,136 features. No padding is added. Pixels may be uint8, as replay stores them, and
    are divided by 255 here; floats are not scaled.

    Shapes: ``[*B, C, H, W]``, any ``*B``, also none, to ``[*B, F]``; without ``flatten`` to ``[*B, C', H', W']``.

    ``layers`` is an ordinary :class:`~torch.nn.Sequential`, so the parameters are named ``layers.0.weight`` and so on.

    Args:
        in_channels: C; None finds it out at the first call (lazy parameters until then).
        num_cells: channels that each layer gives.
        kernel_sizes: of each layer, square.
        strides: of each layer.
        activation: builds the module after each convolution.
        norm: builds from a number of channels the module between a convolution and its activation, which normalises
            the last dimension; it is given the channels last, ``[n, H', W', C']``. LayerNorm so normalises each pixel,
            :class:`BatchRenorm` each channel over the batch and all pixels. None leaves it out.
        flatten: give one vector for each image.

    Raises:
        ConfigError: a size is not a positive integer, the sequences differ in length or are empty, or a module stands
            where a class is due.
        SpecError: from a call, the images have other channels, another dtype, or fewer pixels than the kernels need.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        *,
        num_cells: Sequence[int] = (32, 64, 64),
        kernel_sizes: Sequence[int] = (8, 4, 3),
        strides: Sequence[int] = (4, 2, 1),
        activation: Callable[[], nn.Module] = nn.ReLU,
        norm: Callable[[int], nn.Module] | None = None,
        flatten: bool = True,
    ) -> None:
        super().__init__(flatten=flatten)
        num_cells = sizes("ConvNet(num_cells=...)", num_cells)
        self.kernel_sizes = sizes("ConvNet(kernel_sizes=...)", kernel_sizes)
        self.strides = sizes("ConvNet(strides=...)", strides)
        lengths = len(num_cells), len(self.kernel_sizes), len(self.strides)
        if lengths[0] == 0 or len(set(lengths)) > 1:
            expected = "num_cells, kernel_sizes and strides with one entry per layer"
            raise ConfigError(explain("ConvNet", expected=expected, got=f"{lengths} entries"))
        factory("ConvNet(activation=...)", activation)
        makers = [] if norm is None else [factory("ConvNet(norm=...)", norm)]
        channels = None if in_channels is None else positive("ConvNet(in_channels=...)", in_channels)
        layers: list[nn.Module] = []
        for num, kernel_size, stride in zip(num_cells, self.kernel_sizes, self.strides, strict=True):
            convolution = nn.LazyConv2d if channels is None else nn.Conv2d
            front = () if channels is None else (channels,)
            layers.append(convolution(*front, num, kernel_size, stride))
            layers += [*(_ChannelsLast(make(num)) for make in makers), activation()]
            channels = num
        self.layers = nn.Sequential(*layers)

    @property
    def smallest(self) -> int:
        """The least height and width of images that the kernels fit into: 36 with the defaults."""
        size = 1
        for kernel_size, stride in zip(reversed(self.kernel_sizes), reversed(self.strides), strict=True):
            size = (size - 1) * stride + kernel_size
        return size

    def _size_after(self, size: int, image: tuple[int, int]) -> int:
        for kernel_size, stride in zip(self.kernel_sizes, self.strides, strict=True):
            if size < kernel_size:
                hint = "Take smaller kernels or strides, or larger images."
                expected = f"images that kernels {list(self.kernel_sizes)} with strides {list(self.strides)} fit into"
                raise SpecError(explain("ConvNet", expected=expected, got=f"{image[0]} × {image[1]} pixels", hint=hint))
            size = (size - kernel_size) // stride + 1
        return size


class _ChannelsLast(nn.Module):
    """Call a module on images ``[n, C, H, W]`` with the channels moved to the last dimension, and move them back."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x.movedim(1, -1)).movedim(-1, 1)
