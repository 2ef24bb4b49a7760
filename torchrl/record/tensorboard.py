"""TensorBoard event files, record by record. No thread, no torch; the library loads when the first logger is made."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, SupportsFloat

from torchrl.record.logger import Logger, as_floats, make_folder
from torchrl.record.pictures import as_array, as_histogram, as_picture, as_png

if TYPE_CHECKING:
    import numpy as np
    import torch


class TensorBoardLogger(Logger):
    """Write an event file that ``tensorboard --logdir=<folder>`` shows.

    One call is one record, and on disk when it returns (under 0.1 ms for 15 numbers). TensorBoard leaves out a record
    that the end of the process cut short. A run that goes on in the same folder gets a file of its own. The config goes
    to the page of hyperparameters as well, where runs are compared. Numbers are kept as float32, as TensorBoard does;
    films are left out, since it cannot show them.

    >>> with TensorBoardLogger(folder) as logger:
    ...     logger.log_scalars({"train/episode_return": 20.0}, step=128)
    >>> [path.name[:10] for path in folder.iterdir()]
    ['events.out']

    Args:
        folder: where the event file goes; made if it is missing.

    Raises:
        ConfigError: the folder cannot be made, or not be written to.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._make_event, self._make_summary = event_pb2.Event, summary_pb2.Summary
        self._make_text, self._make_histogram = text_pb, summary_pb2.HistogramProto
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{now % 10**9}"
        self.path = make_folder(folder, "TensorBoardLogger") / name
        self._records = RecordWriter(self.path.open("xb"))
        self._write(file_version="brain.Event:2")

    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Write the numbers as one record."""
        floats = as_floats(metrics, "TensorBoardLogger")
        values = [self._make_summary.Value(tag=name, simple_value=value) for name, value in floats.items()]
        self._write(step=int(step), summary=self._make_summary(value=values))

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text, which TensorBoard shows as Markdown."""
        self._write(step=int(step), summary=self._make_text(name, text))

    def log_config(self, config: Mapping[str, object]) -> None:
        """Write the settings as a table, and as those of a session on the page of hyperparameters."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self.log_text("config", _as_table(config), 0)
        plain = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in config.items()}
        self._write(summary=hparams_pb(plain, trial_id=self.path.parent.name))

    def log_summary(self, summary: Mapping[str, object], step: int) -> None:
        """Write the results as a table."""
        self.log_text("summary", _as_table(summary), step)

    def log_histogram(self, name: str, values: np.ndarray | torch.Tensor, step: int) -> None:
        """Write counts of 30 bins."""
        counts, edges = as_histogram(values, "TensorBoardLogger")
        values = as_array(values).astype(float)
        histogram = self._make_histogram(
            min=values.min(),
            max=values.max(),
            num=values.size,
            sum=values.sum(),
            sum_squares=(values**2).sum(),
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )
        self._write_one(step, tag=name, histo=histogram)

    def log_picture(self, name: str, picture: np.ndarray | torch.Tensor, step: int) -> None:
        """Write a picture as PNG."""
        pixels = as_picture(picture, "TensorBoardLogger.log_picture")
        height, width, _ = pixels.shape
        image = self._make_summary.Image(height=height, width=width, colorspace=3, encoded_image_string=as_png(pixels))
        self._write_one(step, tag=name, image=image)

    def close(self) -> None:
        """Close the event file."""
        self._records.close()

    def _write_one(self, step: int, **fields: Any) -> None:
        self._write(step=int(step), summary=self._make_summary(value=[self._make_summary.Value(**fields)]))

    def _write(self, **fields: Any) -> None:
        self._records.write(self._make_event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


def _as_table(values: Mapping[str, object]) -> str:
    """Return settings or results as a table in Markdown."""
    rows = (f"| {name} | {value} |\n" for name, value in values.items())
    return "| name | value |\n|---|---|\n" + "".join(rows)
