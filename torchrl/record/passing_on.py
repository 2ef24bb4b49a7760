"""The base of loggers that write nothing themselves, but pass on what they are given."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, SupportsFloat

from torchrl.record.logger import Logger

if TYPE_CHECKING:
    import numpy as np
    import torch


class PassingOn(Logger):
    """Base class of loggers that pass everything on to others: a subclass says how one call is passed on."""

    @abstractmethod
    def pass_on(self, method: str, *arguments: object) -> None:
        """Call a method of the loggers behind this one.

        Args:
            method: its name.
            arguments: of the call.
        """

    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Pass numbers on."""
        self.pass_on("log_scalars", metrics, step)

    def log_text(self, name: str, text: str, step: int) -> None:
        """Pass a text on."""
        self.pass_on("log_text", name, text, step)

    def log_config(self, config: Mapping[str, object]) -> None:
        """Pass the settings on."""
        self.pass_on("log_config", config)

    def log_summary(self, summary: Mapping[str, object], step: int) -> None:
        """Pass the results on."""
        self.pass_on("log_summary", summary, step)

    def log_histogram(self, name: str, values: np.ndarray | torch.Tensor, step: int) -> None:
        """Pass values on."""
        self.pass_on("log_histogram", name, values, step)

    def log_picture(self, name: str, picture: np.ndarray | torch.Tensor, step: int) -> None:
        """Pass a picture on."""
        self.pass_on("log_picture", name, picture, step)

    def log_video(self, name: str, path: str | os.PathLike, step: int) -> None:
        """Pass a film on."""
        self.pass_on("log_video", name, path, step)

    def close(self) -> None:
        """Close the loggers behind this one."""
        self.pass_on("close")
