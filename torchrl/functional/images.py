"""Random changes of images as pure functions of tensors, with what is random given: windows and colours.

Images are ``[N, ..., H, W]``, so that all frames of a row are changed alike. What draws the numbers is
:mod:`torchrl.data.augmentation`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchrl.errors import SpecError, explain

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def cut_images(images: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    """Cut one window out of the images of each row; a window beyond the edge sees the nearest pixels of the image.

    >>> image = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8)  # [1, 2, 2]
    >>> cut_images(image, torch.tensor([[0, 1]]), 2, 2).tolist()  # one pixel to the right
    [[[2, 2], [4, 4]]]

    A window of the image's own size is a shift, as in Kostrikov, Yarats and Fergus, "Image Augmentation Is All You
    Need" (2020), https://arxiv.org/abs/2004.13649, section 3.1, who pad by the pixels of the edge and crop.

    Args:
        images: any dtype, ``[N, ..., H, W]``; what stands between N and H, frames or channels, is cut alike.
        corners: first row and first column of the window, int64 ``[N, 2]``; they may be negative.
        height: of the window, in pixels.
        width: the same.

    Returns:
        ``[N, ..., height, width]``, a copy.

    Raises:
        SpecError: the images have no rows, or there is not one corner for each row.
    """
    if images.ndim < 3 or corners.shape != (len(images), 2):
        got = f"images {list(images.shape)} and corners {list(corners.shape)}"
        raise SpecError(explain("cut_images", expected="images [N, ..., H, W] and corners [N, 2]", got=got))
    *front, old_height, old_width = images.shape
    num, num_alike = front[0], math.prod(front[1:])
    rows = torch.arange(height, device=images.device) + corners[:, :1]
    columns = torch.arange(width, device=images.device) + corners[:, 1:]
    rows, columns = rows.clamp_(0, old_height - 1), columns.clamp_(0, old_width - 1)
    pixels = (rows.unsqueeze(-1) * old_width + columns.unsqueeze(-2)).view(num, 1, height * width)
    flat = images.reshape(num, num_alike, old_height * old_width)
    return flat.gather(-1, pixels.expand(-1, num_alike, -1)).view(*front, height, width)


def jitter_colors(
    images: Tensor,
    *,
    brightness: Tensor | None = None,
    contrast: Tensor | None = None,
    saturation: Tensor | None = None,
    hue: Tensor | None = None,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of the images of each row, in this order.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> jitter_colors(red, hue=torch.tensor([1 / 3])).flatten().round(decimals=4).abs()  # a third of the circle: green
    tensor([0., 1., 0.])

    Laskin et al., "Reinforcement Learning with Augmented Data" (2020), https://arxiv.org/abs/2004.14990, section 4.
    With g the grey of a pixel, ``0.299 R + 0.587 G + 0.114 B``, and m the mean grey of an image, a factor f makes of a
    pixel x: ``f x`` (brightness), ``f x + (1 - f) m`` (contrast), ``f x + (1 - f) g`` (saturation); each result is
    clipped to the range of colours.

    Args:
        images: uint8, or floats from 0 to 1, ``[N, ..., C, H, W]``; C is 3 times the number of stacked frames, each
            with red, green and blue.
        brightness: factors, ``[N]``; None leaves it, as with the others.
        contrast: factors, ``[N]``.
        saturation: factors, ``[N]``.
        hue: shares of the circle of colours to turn by, ``[N]``.

    Returns:
        images of the same shape and dtype; uint8 is rounded.

    Raises:
        SpecError: the channels are no frames of three colours, a wrong dtype, or not one number for each row.
    """
    _require_colors(images, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    is_bytes = images.dtype == torch.uint8
    x = images.to(torch.float32).div_(255) if is_bytes else images.clone()
    x = x.reshape(len(images), -1, 3, *images.shape[-2:])  # [N, frames, 3, H, W]

    def per_row(factor: Tensor) -> Tensor:
        return factor.to(x).view(-1, 1, 1, 1, 1)

    if brightness is not None:
        x.mul_(per_row(brightness)).clamp_(0, 1)
    if contrast is not None:
        factor, mean = per_row(contrast), _grey(x).mean((-2, -1), keepdim=True)
        x.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)
    if saturation is not None:
        factor, grey = per_row(saturation), _grey(x)
        x.mul_(factor).add_(grey.mul_(1 - factor)).clamp_(0, 1)
    if hue is not None:
        _turn_hue_(x, per_row(hue).squeeze(2))
    if is_bytes:
        x = x.mul_(255).round_().to(torch.uint8)
    return x.reshape(images.shape)


def _require_colors(images: Tensor, **factors: Tensor | None) -> None:
    who = "jitter_colors"
    is_color = images.ndim >= 4 and images.shape[-3] % 3 == 0
    if not is_color or not (images.dtype == torch.uint8 or images.is_floating_point()):
        hint = "Keep the colours: --no-grayscale, or no GrayScale()."
        got = f"{list(images.shape)}, {images.dtype}"
        raise SpecError(explain(who, expected="images [N, ..., 3 k, H, W] of uint8 or floats", got=got, hint=hint))
    for name, factor in factors.items():
        if factor is not None and factor.shape != images.shape[:1]:
            expected = f"{name} of shape {[len(images)]}"
            raise SpecError(explain(who, expected=expected, got=list(factor.shape)))


def _grey(x: Tensor) -> Tensor:
    red, green, blue = x.split(1, dim=2)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _turn_hue_(x: Tensor, turn: Tensor) -> None:
    """Turn the hue of images ``[N, frames, 3, H, W]`` by shares of the circle ``[N, 1, 1, 1]``; value and chroma stay.

    By the hexagon of HSV: its six corners are red, yellow, green, cyan, blue and magenta.
    """
    red, green, blue = x.unbind(2)
    value, low = x.amax(2), x.amin(2)
    chroma = value - low
    divisor = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(value == green, (blue - red).div_(divisor).add_(2), (red - green).div_(divisor).add_(4))
    sixths = torch.where(value == red, (green - blue).div_(divisor), sixths).add_(6 * turn)
    for channel, corner in zip((red, green, blue), (5, 3, 1), strict=True):
        at = (sixths + corner).remainder_(6)
        weight = torch.minimum(at, 4 - at).clamp_(0, 1)
        torch.sub(value, weight.mul_(chroma), out=channel)
