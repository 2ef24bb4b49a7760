"""TensorBoard event files, record by record. No thread, no torch; the library loads when the first logger is made."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, SupportsFloat

from torchrl.record.logger import Logger, as_floats, make_folder


class TensorBoardLogger(Logger):
    """Write an event file that ``tensorboard --logdir=<folder>`` shows.

    One call is one record, and on disk when it returns (under 0.1 ms for 15 numbers). TensorBoard leaves out a record
    that the end of the process cut short. A run that goes on in the same folder gets a file of its own.

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
        self._make_text = text_pb
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

    def close(self) -> None:
        """Close the event file."""
        self._records.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._make_event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()
