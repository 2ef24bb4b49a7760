"""All that a run says of itself as lines of JSON, ``progress.jsonl``, for programs. Nothing is merged or averaged."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from torchrl.errors import TorchRLError, explain
from torchrl.record.logger import STEP, Logger, as_file_name, as_floats, make_folder
from torchrl.record.pictures import as_histogram, as_picture, as_png

if TYPE_CHECKING:
    import numpy as np
    import torch


class JSONLinesLogger(Logger):
    """Write ``progress.jsonl``: one object a line, whose first key is ``frames`` and whose second says what it is.

    Every line goes to the file at once and in one piece, so that it can be read while the run writes it; a last line
    that the end of the process cut short is left out by :func:`read_json_lines` and by a new logger, which goes on in a
    file that the folder holds already. JSON knows no NaN and no infinity: they are written as ``"nan"``, ``"inf"`` and
    ``"-inf"``, which ``float`` reads. Pictures become PNG files in ``pictures/``, of which the line holds the path,
    as that of a film does.

    >>> with JSONLinesLogger(folder) as logger:
    ...     logger.log_config({"lr": 0.001})
    ...     logger.log_scalars({"train/episode_return": 20.0, "loss": float("nan")}, step=128)
    >>> print((folder / "progress.jsonl").read_text())
    {"frames": 0, "config": {"lr": 0.001}}
    {"frames": 128, "scalars": {"train/episode_return": 20.0, "loss": "nan"}}
    <BLANKLINE>

    Args:
        folder: where the files go; made if it is missing.

    Raises:
        ConfigError: the folder cannot be made, or not be written to.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.path = make_folder(folder, "JSONLinesLogger") / "progress.jsonl"
        self._file: int | None = None
        if self.path.exists() and (whole := _whole_lines(self.path)) != self.path.stat().st_size:
            os.truncate(self.path, whole)

    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Write one line with these metrics."""
        self._write(step, "scalars", as_floats(metrics, "JSONLinesLogger"))

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text."""
        self._write(step, "text", {"name": name, "text": text})

    def log_config(self, config: Mapping[str, object]) -> None:
        """Write the settings, at 0 frames."""
        self._write(0, "config", config)

    def log_summary(self, summary: Mapping[str, object], step: int) -> None:
        """Write the results."""
        self._write(step, "summary", summary)

    def log_histogram(self, name: str, values: np.ndarray | torch.Tensor, step: int) -> None:
        """Write counts of 30 bins, and their 31 edges."""
        counts, edges = as_histogram(values, "JSONLinesLogger")
        self._write(step, "histogram", {"name": name, "counts": counts.tolist(), "edges": edges.tolist()})

    def log_picture(self, name: str, picture: np.ndarray | torch.Tensor, step: int) -> None:
        """Write a picture to ``pictures/<name>_<frames>.png``, and its path."""
        path = Path("pictures", f"{as_file_name(name)}_{int(step):09d}.png")
        png = as_png(as_picture(picture, "JSONLinesLogger.log_picture"))
        (self.path.parent / path).parent.mkdir(exist_ok=True)
        (self.path.parent / path).write_bytes(png)
        self._write(step, "picture", {"name": name, "path": str(path)})

    def log_video(self, name: str, path: str | os.PathLike, step: int) -> None:
        """Write the path of a film, from the folder on."""
        self._write(step, "video", {"name": name, "path": os.path.relpath(path, self.path.parent)})

    def close(self) -> None:
        """Close the file; a later line would open it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, step: int, kind: str, content: Mapping[str, object]) -> None:
        line = json.dumps({STEP: int(step), kind: _as_json(content)}, allow_nan=False) + "\n"
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        num_written = os.write(self._file, line.encode())
        if num_written < len(line):  # a full disk: a later line must not go on in this one
            os.ftruncate(self._file, os.fstat(self._file).st_size - num_written)
            raise OSError(f"only {num_written} of the {len(line)} bytes of a line could be written to {self.path}")


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read the lines that :class:`JSONLinesLogger` wrote, also while they are being written.

    >>> with JSONLinesLogger(folder) as logger:
    ...     logger.log_scalars({"loss": float("inf")}, step=128)
    >>> read_json_lines(folder / "progress.jsonl")
    [{'frames': 128, 'scalars': {'loss': inf}}]

    Args:
        path: of the file.

    Returns:
        one dict for each whole line; the numbers of ``scalars`` are floats again, also those that JSON cannot write.

    Raises:
        FileNotFoundError: there is no such file.
        TorchRLError: a line is no JSON object.
    """
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
    try:
        records = [json.loads(line) for line in lines]
        for record in records:
            if STEP in record.keys() and "scalars" in record:
                record["scalars"] = {name: float(value) for name, value in record["scalars"].items()}
    except (ValueError, TypeError, AttributeError) as error:
        got = f"{error} in {os.fspath(path)}"
        raise TorchRLError(explain("read_json_lines", expected="a JSON object in every line", got=got)) from None
    return records


def _as_json(value: object) -> object:
    """Return what JSON can hold of a value: numbers that it does not know, and all it has no form for, as text."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def _whole_lines(path: Path) -> int:
    """Return the number of bytes up to the end of the last whole line."""
    return path.read_bytes().rfind(b"\n") + 1
