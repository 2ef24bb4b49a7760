"""What networks of images have in common: any batch dimensions, pixels of bytes, and refusals; no layers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from torchrl.errors import SpecError, explain


class ImageEncoder(nn.Module, ABC):
    """Base of networks from images ``[*B, C, H, W]`` to features; a subclass has ``layers``, first a Conv2d.

    uint8 pixels are divided by 255; floats are not scaled.

    Args:
        flatten: give one vector for each image.
    """

    layers: nn.Sequential

    def __init__(self, *, flatten: bool = True) -> None:
        super().__init__()
        self.flatten = flatten

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self._require_images(images)
        x = images.reshape(-1, *images.shape[-3:])
        if x.dtype == torch.uint8:
            x = x.to(self.layers[0].weight.dtype).div_(255)
        x = self.layers(x)
        if self.flatten:
            x = x.flatten(1)
        return x.reshape(*images.shape[:-3], *x.shape[1:])

    def num_features(self, height: int, width: int) -> int:
        """Return F, the number of features that an image of this size becomes.

        Raises:
            SpecError: the image is too small for the kernels.
        """
        rows, columns = (self._size_after(size, (height, width)) for size in (height, width))
        convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        return convolutions[-1].out_channels * rows * columns

    @abstractmethod
    def _size_after(self, size: int, image: tuple[int, int]) -> int:
        """Return the height or width after all layers of an image whose height or width is ``size``.

        Raises:
            SpecError: the image is too small.
        """

    def _require_images(self, images: torch.Tensor) -> None:
        who = type(self).__name__
        if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
            raise SpecError(explain(who, expected="images of floats or uint8", got=images.dtype))
        channels = self.layers[0].in_channels  # 0 while the layer is lazy
        if images.ndim < 3 or (channels and images.shape[-3] != channels):
            expected = f"images [*B, {channels or 'C'}, H, W]"
            is_last = images.ndim >= 3 and images.shape[-1] == channels
            hint = "The channels come first: permute the observation." if is_last else ""
            raise SpecError(explain(who, expected=expected, got=list(images.shape), hint=hint))
        for size in images.shape[-2:]:
            self._size_after(size, tuple(images.shape[-2:]))
