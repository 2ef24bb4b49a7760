"""Write pictures, one after another, into an mp4 file (H.264). It does not draw them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.extras import require
from torchrl.files import write_whole
from torchrl.record.pictures import as_picture

if TYPE_CHECKING:
    import torch


def require_video() -> ModuleType:
    """Import and return PyAV, which encodes films, or raise an error that names the extra to install.

    >>> require_video().__name__
    'av'

    Raises:
        MissingExtraError: the extra ``video`` is not installed.
    """
    return require("av", extra="video", purpose="A video")


@contextmanager
def video_writer(path: str | os.PathLike, *, fps: int = 30) -> Iterator[Callable[[np.ndarray | torch.Tensor], None]]:
    """Yield a function that adds pictures to a film; the file appears when the ``with`` block ends without an error.

    H.264 in an mp4 file. Pictures are encoded as they come, so a film takes no memory. An odd height or width, which
    the format does not know, gets one more row or column like the last.

    >>> with video_writer(folder / "film.mp4", fps=30) as add:
    ...     for shade in range(0, 250, 50):
    ...         add(np.full((64, 96, 3), shade, dtype=np.uint8))
    >>> (folder / "film.mp4").exists()
    True

    Args:
        path: of the file; its folder is made.
        fps: pictures a second.

    Raises:
        ConfigError: ``fps`` is not positive.
        SpecError: from the function, what it is given is no picture, uint8 ``[H, W, 3]``, of the size of the first; at
            the end, there was none.
        MissingExtraError: the extra ``video`` is not installed.
    """
    if fps < 1:
        raise ConfigError(explain("video_writer", expected="fps of at least 1", got=fps))
    av = require_video()
    with write_whole(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"
        shape: tuple[int, ...] | None = None

        def add(picture: np.ndarray | torch.Tensor) -> None:
            nonlocal shape
            pixels = as_picture(picture, "video_writer", shape)
            height, width, _ = pixels.shape
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if shape is None:
                shape = (height, width, 3)
                stream.height, stream.width = pixels.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))

        yield add
        if shape is None:
            raise SpecError(explain("video_writer", expected="at least one picture", got="none"))
        container.mux(stream.encode(None))
