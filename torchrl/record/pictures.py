"""Pictures and histograms as loggers keep them: checked, as PNG, as counts between edges. Nothing is drawn here."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from torchrl.errors import SpecError, explain

if TYPE_CHECKING:
    import torch

NUM_BINS = 30
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def as_picture(picture: np.ndarray | torch.Tensor, who: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return a picture as a numpy array, or refuse what is none, or one of another size than ``shape``.

    Args:
        picture: uint8 ``[H, W, 3]``.
        who: the caller's name, for the message.
        shape: that it must have; None takes any.

    Raises:
        SpecError: it is no picture, or of another size.
    """
    pixels = as_array(picture)
    is_picture = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.size
    if not is_picture or shape not in (None, pixels.shape):
        size = "[H, W, 3]" if shape is None else f"{[*shape]}, the size of the first"
        got = f"{pixels.dtype} of shape {[*pixels.shape]}"
        raise SpecError(explain(who, expected=f"a picture, uint8 {size}", got=got))
    return pixels


def as_png(pixels: np.ndarray) -> bytes:
    """Return a picture, uint8 ``[H, W, 3]``, as the bytes of a PNG file (W3C, Portable Network Graphics, 2003)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each row begins with its filter: 0 is none
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, red green blue
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def as_histogram(values: np.ndarray | torch.Tensor, who: str) -> tuple[np.ndarray, np.ndarray]:
    """Count values between equally spaced edges.

    Args:
        values: at least one number, all of them finite, in any shape.
        who: the caller's name, for the message.

    Returns:
        counts ``[30]``, integers, and edges ``[31]``, of which the last belongs to the bin before it.

    Raises:
        SpecError: there is no value, or one that is not finite.
    """
    values = as_array(values).astype(float).ravel()
    if not values.size or not np.isfinite(values).all():
        got = "none" if not values.size else f"{int((~np.isfinite(values)).sum())} that are not, of {values.size}"
        raise SpecError(explain(f"{who}.log_histogram", expected="finite numbers, at least one", got=got))
    return np.histogram(values, bins=NUM_BINS)


def as_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return numbers as a numpy array, a tensor's without its graph and from whatever device."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
