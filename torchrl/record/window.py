"""A window that shows pictures, where there is a display. Nothing is drawn here, and nothing kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from torchrl.record.pictures import as_picture

if TYPE_CHECKING:
    import torch


@contextmanager
def picture_window(title: str, *, fps: int = 30) -> Iterator[Callable[[np.ndarray | torch.Tensor], None] | None]:
    """Yield a function that shows a picture in a window for ``1 / fps`` seconds, or None where there is no display.

    A window that its user closes stays closed; pictures go on as fast as they come.

    >>> with picture_window("CartPole-v1") as show:
    ...     if show is not None:
    ...         show(np.zeros((64, 96, 3), np.uint8))

    Args:
        title: of the window.
        fps: pictures, uint8 ``[H, W, 3]``, that it shows in a second at most.
    """
    try:
        import tkinter  # of the standard library, which some systems install without it
    except ImportError:
        yield None
        return
    try:
        root = tkinter.Tk()
    except tkinter.TclError:  # there is no display
        yield None
        return
    root.title(title)
    label, is_open, shown = tkinter.Label(root), True, 0.0
    label.pack()

    def show(picture: np.ndarray | torch.Tensor) -> None:
        nonlocal is_open, shown
        if not is_open:
            return
        pixels = as_picture(picture, "picture_window", None)
        height, width, _ = pixels.shape
        time.sleep(max(0.0, shown + 1 / fps - time.perf_counter()))
        shown = time.perf_counter()
        try:
            label.image = tkinter.PhotoImage(data=b"P6 %d %d 255 " % (width, height) + pixels.tobytes())
            label.configure(image=label.image)
            root.update()
        except tkinter.TclError:  # its user has closed it
            is_open = False

    try:
        yield show
    finally:
        if is_open:
            root.destroy()
