"""A table of the run, ``progress.csv``, for people and plots. One call is one row; nothing is merged or averaged."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import SupportsFloat, TextIO

from torchrl.errors import TorchRLError, explain
from torchrl.files import write_whole
from torchrl.record.logger import STEP, Logger, as_file_name, as_floats, as_lines, make_folder


class CSVLogger(Logger):
    """Write ``progress.csv``: the column ``frames``, then one column per metric, empty where a row has no value.

    Every row goes to the file at once and in one piece. When a metric comes up for the first time the table is
    rewritten with the new column, whole or not at all. A process killed at any moment thus leaves a table whose rows
    are complete, except perhaps a last line without a newline, which :func:`read_csv` and a new logger leave out. A
    table that the folder holds already is continued. Texts go to ``<name>.txt``; the last one of a name stays.

    >>> with CSVLogger(folder) as logger:
    ...     logger.log_scalars({"train/episode_return": 20.0}, step=128)
    ...     logger.log_scalars({"train/episode_return": 25.0, "time/fps": 9000}, step=256)
    >>> print((folder / "progress.csv").read_text())
    frames,train/episode_return,time/fps
    128,20.0,
    256,25.0,9000.0
    <BLANKLINE>

    Args:
        folder: where the files go; made if it is missing.

    Raises:
        ConfigError: the folder cannot be made, or not be written to.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.path = make_folder(folder, "CSVLogger") / "progress.csv"
        rows = _read_rows(self.path)
        self._columns = rows[0] if rows else []
        self._file: TextIO | None = None
        if rows:
            self._rewrite(rows)  # without a torn last line

    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Append one row with these metrics, and a column to the table for each new metric.

        Raises:
            SpecError: a value is not one number, or a metric is named ``frames``.
        """
        floats = as_floats(metrics, "CSVLogger")
        row = {STEP: str(int(step)), **{name: repr(value) for name, value in floats.items()}}
        new = [name for name in row if name not in self._columns]
        if new:
            rows = _read_rows(self.path)[1:]
            self._columns = [*self._columns, *new]
            self._rewrite([self._columns, *rows])
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="")
        self._file.write(_line(row.get(name, "") for name in self._columns))
        self._file.flush()

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text to ``<name>.txt``, in place of an earlier one; a slash in the name becomes an underscore."""
        with write_whole(self.path.with_name(f"{as_file_name(name)}.txt")) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def log_config(self, config: Mapping[str, object]) -> None:
        """Write ``config.txt``, unless the folder has one: a command writes its own, which it can read back."""
        if not self.path.with_name("config.txt").exists():
            self.log_text("config", as_lines(config), 0)

    def log_summary(self, summary: Mapping[str, object], step: int) -> None:
        """Write ``summary.json``, in place of an earlier one."""
        with write_whole(self.path.with_name("summary.json")) as temporary:
            temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Close the table; a later row would open it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self, rows: list[list[str]]) -> None:
        self.close()
        width = len(rows[0])
        with write_whole(self.path) as temporary:
            lines = (_line([*row, *[""] * (width - len(row))]) for row in rows)
            temporary.write_text("".join(lines), encoding="utf-8", newline="")


def read_csv(path: str | os.PathLike) -> dict[str, list[float]]:
    """Read a table that :class:`CSVLogger` wrote, also while it is being written.

    >>> with CSVLogger(folder) as logger:
    ...     logger.log_scalars({"loss": 0.5}, step=128)
    ...     logger.log_scalars({"loss": 0.25}, step=256)
    >>> read_csv(folder / "progress.csv")
    {'frames': [128.0, 256.0], 'loss': [0.5, 0.25]}

    Args:
        path: of the file.

    Returns:
        columns by name, ``frames`` first, all of one length; NaN where a row has no value.

    Raises:
        FileNotFoundError: there is no such file.
        TorchRLError: it is not such a table.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"read_csv: no file {os.fspath(path)}")
    rows = _read_rows(Path(path))
    if not rows:
        return {}
    try:
        values = [[float(cell) if cell else math.nan for cell in row] for row in rows[1:]]
    except ValueError as error:
        raise TorchRLError(explain("read_csv", expected="numbers in every row", got=f"{error} in {path}")) from None
    return {name: [row[index] for row in values] for index, name in enumerate(rows[0])}


def copy_table(source: str | os.PathLike, target: str | os.PathLike, *, until: int) -> None:
    """Copy the rows of a :class:`CSVLogger` table up to a step into a new file, for a run that resumes at that step.

    >>> with CSVLogger(folder) as logger:
    ...     logger.log_scalars({"loss": 0.5}, step=128)
    ...     logger.log_scalars({"loss": 0.25}, step=256)
    >>> copy_table(folder / "progress.csv", folder / "copy.csv", until=200)
    >>> read_csv(folder / "copy.csv")
    {'frames': [128.0], 'loss': [0.5]}

    Args:
        source: path of the table.
        target: path of the copy.
        until: frames of the last row that is copied.

    Raises:
        TorchRLError: it is not such a table.
    """
    head, *rows = _read_rows(Path(source)) or [[STEP]]
    with write_whole(target) as temporary:
        lines = (_line(row) for row in [head, *(row for row in rows if float(row[0]) <= until)])
        temporary.write_text("".join(lines), encoding="utf-8", newline="")


def _read_rows(path: Path) -> list[list[str]]:
    """Return the complete lines of a table, its header first; a last line without a newline was cut short."""
    if not path.exists():
        return []
    data = path.read_bytes()
    rows = list(csv.reader(io.StringIO(data[: data.rfind(b"\n") + 1].decode("utf-8"), newline="")))
    if any(len(row) != len(rows[0]) for row in rows) or (rows and rows[0][:1] != [STEP]):
        raise TorchRLError(
            explain("CSVLogger", expected=f"a table whose first column is {STEP}", got=str(path), hint="Move it away.")
        )
    return rows


def _line(cells: Iterable[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
