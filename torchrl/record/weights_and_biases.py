"""Weights & Biases, by its own library, which loads when the first logger is made. Without a login: files only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsFloat

from torchrl.errors import ConfigError, explain
from torchrl.extras import require
from torchrl.record.logger import STEP, Logger, as_file_name, as_floats, make_folder
from torchrl.record.pictures import as_histogram, as_picture

if TYPE_CHECKING:
    import numpy as np
    import torch


class WandbLogger(Logger):
    """Record a run with Weights & Biases (extra ``wandb``), by default offline: without login, question or network.

    Offline, all goes to ``<folder>/wandb``, and ``wandb sync <folder>/wandb/offline-run-...`` uploads it later. Curves
    are over the metric ``frames``, not over W&B's own steps, which must not fall: it would drop the numbers of an
    evaluation that ends later than it began. W&B adds the list of installed packages; it records nothing of the
    machine, the console, the code or git.

    >>> with WandbLogger(folder) as logger:  # doctest: +SKIP
    ...     logger.log_scalars({"train/episode_return": 20.0}, step=128)
    >>> [path.name[:11] for path in (folder / "wandb").glob("offline-run-*")]  # doctest: +SKIP
    ['offline-run']

    Args:
        folder: where its files go; made if it is missing.
        project: of the run.
        name: of the run; None takes the folder's.
        mode: ``"online"`` sends everything to the server of the login that ``wandb login`` has stored.

    Raises:
        ConfigError: the folder cannot be made, or not be written to; or ``"online"`` without a login.
        MissingExtraError: the extra ``wandb`` is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        project: str = "torchrl",
        name: str | None = None,
        mode: Literal["offline", "online"] = "offline",
    ) -> None:
        folder = make_folder(folder, "WandbLogger")
        self._library = wandb = require("wandb", extra="wandb", purpose="WandbLogger")
        if mode not in ("offline", "online"):
            raise ConfigError(explain("WandbLogger", expected='mode "offline" or "online"', got=repr(mode)))
        if mode == "online" and not wandb.login(prompt=False):
            hint = "Run `wandb login` once, or take the mode offline and `wandb sync` later."
            raise ConfigError(explain("WandbLogger", expected="a login", got="none", hint=hint))
        self._run = wandb.init(
            project=project,
            name=folder.resolve().name if name is None else name,
            dir=str(folder),
            mode=mode,
            reinit="create_new",  # several runs in one process, as a command with --seeds has them
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)

    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Record numbers; W&B writes them in a process of its own, within seconds."""
        self._run.log({STEP: int(step)} | as_floats(metrics, "WandbLogger"))

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text to ``<name>.md`` among the files of the run, in place of an earlier one."""
        path = Path(self._run.dir, f"{as_file_name(name)}.md")
        path.write_text(text, encoding="utf-8")
        self._run.save(str(path), base_path=self._run.dir, policy="end")

    def log_config(self, config: Mapping[str, object]) -> None:
        """Record the settings as those of the run."""
        self._run.config.update(dict(config), allow_val_change=True)

    def log_summary(self, summary: Mapping[str, object], step: int) -> None:
        """Record the results in the summary of the run."""
        self._run.summary.update(dict(summary))

    def log_histogram(self, name: str, values: np.ndarray | torch.Tensor, step: int) -> None:
        """Record counts of 30 bins."""
        histogram = self._library.Histogram(np_histogram=as_histogram(values, "WandbLogger"))
        self._run.log({STEP: int(step), name: histogram})

    def log_picture(self, name: str, picture: np.ndarray | torch.Tensor, step: int) -> None:
        """Record a picture."""
        pixels = as_picture(picture, "WandbLogger.log_picture")
        self._run.log({STEP: int(step), name: self._library.Image(pixels)})

    def log_video(self, name: str, path: str | os.PathLike, step: int) -> None:
        """Record a copy of a film."""
        self._run.log({STEP: int(step), name: self._library.Video(os.fspath(path), format="mp4")})

    def close(self) -> None:
        """End the run; online, wait until all is sent. Offline W&B's own process writes the rest within a moment."""
        self._run.finish()
