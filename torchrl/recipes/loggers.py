"""Build the loggers that a command's settings name. Which of them may fail is decided here."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torchrl.recipes.parts import Recording
from torchrl.record import (
    CSVLogger,
    FanOut,
    JSONLinesLogger,
    Logger,
    MLflowLogger,
    TensorBoardLogger,
    Throttled,
    Tolerant,
    WandbLogger,
)


def make_logger(settings: Recording, folder: Path) -> Logger:
    """Build one logger that writes to every kind of log that ``--loggers`` names.

    The table, from which curves are drawn and a resumed run goes on, must be written: its errors end the run. Those of
    the others do not, and the trackers that are slow are thinned out; see :class:`~torchrl.record.Tolerant` and
    :class:`~torchrl.record.Throttled`.
    """
    makers = {
        "csv": CSVLogger,
        "tensorboard": TensorBoardLogger,
        "jsonlines": JSONLinesLogger,
        "wandb": partial(WandbLogger, mode=settings.wandb_mode),
        "mlflow": partial(MLflowLogger, uri=settings.mlflow_uri),
    }
    loggers = {name: makers[name](folder) for name in dict.fromkeys(settings.loggers)}
    loggers |= {name: Throttled(loggers[name]) for name in ("wandb", "mlflow") if name in loggers}
    return FanOut(*(one if name == "csv" else Tolerant(one, name) for name, one in loggers.items()))
