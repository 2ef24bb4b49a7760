"""Transforms that turn images ``[*B, H, W, C]`` grey or resize them; channels come last, as simulators return them.

Use ``Permute((2, 0, 1), ["pixels"])`` behind them to move the channels to the front, as convolutions need.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from torchrl.counts import is_count
from torchrl.data.specs import TensorSpec
from torchrl.envs.transforms.leaves import is_number, map_spec
from torchrl.envs.transforms.observation import ObservationTransform
from torchrl.errors import ConfigError, explain
from torchrl.functional.images import LUMA
from torchrl.keys import Key

DTYPES = (torch.uint8, torch.float32, torch.float64)


class _ImageTransform(ObservationTransform):
    """Base of transforms that replace images by images of the same dtype."""

    expected = "images [H, W, C] of uint8, float32 or float64"

    def __init__(self, in_keys: Sequence[Key] = ("pixels",)) -> None:
        super().__init__(in_keys)

    def takes(self, leaf: TensorSpec) -> bool:
        return is_number(leaf) and leaf.dtype in DTYPES and len(self.features(leaf)) == 3

    def hint(self, leaf: TensorSpec) -> str:
        shape = self.features(leaf)
        is_first = len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3)
        return "The channels come last here: Permute afterwards." if is_first else ""

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec of the new image, applying the transform to the bounds: it averages pixels."""
        return map_spec(leaf, self.forward)


class GrayScale(_ImageTransform):
    """Replace colour images by grey ones, ``0.299 R + 0.587 G + 0.114 B`` (ITU-R BT.601); uint8 is rounded.

    Shapes: ``[*B, H, W, 3]`` to ``[*B, H, W, 1]``.

    >>> GrayScale()(torch.tensor([[[255, 0, 0], [0, 255, 0]]], dtype=torch.uint8)).flatten()
    tensor([ 76, 150], dtype=torch.uint8)

    Args:
        in_keys: which observations.

    Raises:
        SpecError: when wrapping: an observation is no image with three channels.
    """

    expected = "images [H, W, 3] of uint8, float32 or float64"

    def takes(self, leaf: TensorSpec) -> bool:
        return super().takes(leaf) and leaf.shape[-1] == 3

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the grey images, ``[*B, H, W, 1]``."""
        red, green, blue = (value[..., at, None] for at in range(3))
        luma = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
        return luma.round_().to(torch.uint8) if value.dtype == torch.uint8 else luma


class Resize(_ImageTransform):
    """Resize images by antialiased bilinear interpolation: each new pixel is a weighted mean of the old ones around it.

    The weights form a triangle two new pixels wide, so that no old pixel is skipped where an image shrinks
    (``antialias`` of :func:`torch.nn.functional.interpolate`). uint8 is rounded; a CPU also rounds between the passes
    over rows and columns, so a GPU's pixels may differ by 1. In a chain, resize before :class:`GrayScale`: ten times as
    fast.

    Shapes: ``[*B, H, W, C]`` to ``[*B, height, width, C]``.

    >>> Resize(84)(torch.zeros(210, 160, 3)).shape
    torch.Size([84, 84, 3])

    Args:
        height: of the new images, in pixels.
        width: the same; None makes them square.
        in_keys: which observations.

    Raises:
        ConfigError: a size is not positive.
        SpecError: when wrapping: an observation is no image.
    """

    def __init__(self, height: int, width: int | None = None, in_keys: Sequence[Key] = ("pixels",)) -> None:
        super().__init__(in_keys)
        self.size = (height, height if width is None else width)
        if not all(map(is_count, self.size)):
            raise ConfigError(explain("Resize", expected="at least one pixel each way", got=self.size))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the images in their new size, ``[*B, height, width, C]``."""
        images = value.reshape(-1, *value.shape[-3:]).movedim(-1, 1)
        is_exact = images.dtype != torch.uint8 or images.device.type == "cpu"  # elsewhere there is no kernel for uint8
        resized = functional.interpolate(
            images if is_exact else images.float(), self.size, mode="bilinear", antialias=True
        )
        if not is_exact:
            resized = resized.round_().to(torch.uint8)
        return resized.movedim(1, -1).reshape(*value.shape[:-3], *self.size, value.shape[-1])
