"""MLflow, by its client alone, which loads when the first logger is made. The database lies in the run's folder."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, SupportsFloat

from torchrl.extras import require
from torchrl.record.logger import Logger, as_file_name, as_floats, make_folder
from torchrl.record.pictures import as_picture, as_png

if TYPE_CHECKING:
    import numpy as np
    import torch

_MOST_PARAMETERS, _MOST_METRICS, _LONGEST_VALUE = 100, 1000, 6000  # of one call, and of a parameter's value
_NOT_IN_NAMES = re.compile(r"[^\w\s./:-]")


class MLflowLogger(Logger):
    """Record a run with MLflow (extra ``mlflow``), by default in a database of its own, ``<folder>/mlflow.db``.

    ``mlflow ui --backend-store-uri=sqlite:///<folder>/mlflow.db`` shows it (of the package ``mlflow``; the extra brings
    the client alone). A record takes tens of milliseconds: put :class:`~torchrl.record.Throttled` before it. MLflow
    itself keeps infinities as the largest float there, and takes names of letters, digits, spaces and ``_-./:``: other
    characters become underscores. Histograms are left out, since it has none.

    >>> with MLflowLogger(folder) as logger:  # doctest: +SKIP
    ...     logger.log_scalars({"train/episode_return": 20.0}, step=128)
    >>> (folder / "mlflow.db").exists()  # doctest: +SKIP
    True

    Args:
        folder: where database and files go; made if it is missing.
        uri: of another database or of a server, such as ``"http://localhost:5000"``.
        experiment: of the run; made if it is missing.
        name: of the run; None takes the folder's.

    Raises:
        ConfigError: the folder cannot be made, or not be written to.
        MissingExtraError: the extra ``mlflow`` is not installed.
    """

    def __init__(
        self, folder: str | os.PathLike, *, uri: str | None = None, experiment: str = "torchrl", name: str | None = None
    ) -> None:
        folder = make_folder(folder, "MLflowLogger").resolve()
        require("sqlalchemy", extra="mlflow", purpose="MLflowLogger")
        client = require("mlflow.tracking", extra="mlflow", purpose="MLflowLogger").MlflowClient
        self._entities = require("mlflow.entities", extra="mlflow", purpose="MLflowLogger")
        files = (folder / "mlflow").as_uri() if uri is None else None
        with _quiet("mlflow", "alembic"):  # of the database that they make, they tell every table
            self._client = client(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}" if uri is None else uri)
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self._client.create_experiment(experiment, files)
            run = self._client.create_run(number, run_name=folder.name if name is None else name)
        self._run: str = run.info.run_id
        self._is_open = True

    def log_scalars(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Record numbers."""
        now = int(time.time() * 1000)
        floats = as_floats(metrics, "MLflowLogger")
        rows = [self._entities.Metric(_as_name(name), value, now, int(step)) for name, value in floats.items()]
        for start in range(0, len(rows), _MOST_METRICS):
            self._client.log_batch(self._run, metrics=rows[start : start + _MOST_METRICS])

    def log_text(self, name: str, text: str, step: int) -> None:
        """Write a text to ``<name>.md`` among the files of the run, in place of an earlier one."""
        self._client.log_text(self._run, text, f"{as_file_name(name)}.md")

    def log_config(self, config: Mapping[str, object]) -> None:
        """Record the settings as parameters of the run; values of more than 6,000 characters are cut."""
        rows = [self._entities.Param(_as_name(name), str(value)[:_LONGEST_VALUE]) for name, value in config.items()]
        for start in range(0, len(rows), _MOST_PARAMETERS):
            self._client.log_batch(self._run, params=rows[start : start + _MOST_PARAMETERS])

    def log_summary(self, summary: Mapping[str, object], step: int) -> None:
        """Write the results to ``summary.json`` among the files, and record those that are numbers as metrics."""
        self._client.log_text(self._run, json.dumps(summary, indent=2, default=str), "summary.json")
        numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        self.log_scalars({f"summary/{name}": value for name, value in numbers.items()}, step)

    def log_picture(self, name: str, picture: np.ndarray | torch.Tensor, step: int) -> None:
        """Write a picture to ``pictures/<name>_<frames>.png`` among the files."""
        png = as_png(as_picture(picture, "MLflowLogger.log_picture"))
        with TemporaryDirectory() as folder:
            path = Path(folder, f"{as_file_name(name)}_{int(step):09d}.png")
            path.write_bytes(png)
            self._client.log_artifact(self._run, str(path), "pictures")

    def log_video(self, name: str, path: str | os.PathLike, step: int) -> None:
        """Write a copy of a film to ``<name>/`` among the files."""
        self._client.log_artifact(self._run, os.fspath(path), name)

    def close(self) -> None:
        """Mark the run as finished."""
        if self._is_open:
            self._is_open = False
            self._client.set_terminated(self._run)


def _as_name(name: str) -> str:
    """Return a name that MLflow takes."""
    return _NOT_IN_NAMES.sub("_", name)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Raise the level of libraries' loggers to that of warnings in the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
