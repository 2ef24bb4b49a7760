"""Record a run: loggers of its numbers, plots of them, and films. What is measured, and when, the agent decides."""

from torchrl.record.bootstrap import bootstrap_interval
from torchrl.record.csv import CSVLogger, copy_table, read_csv
from torchrl.record.fan_out import FanOut
from torchrl.record.logger import Logger
from torchrl.record.plots import learning_curve, spread_curve
from torchrl.record.tensorboard import TensorBoardLogger
from torchrl.record.video import require_video, video_writer

__all__ = [
    "CSVLogger",
    "FanOut",
    "Logger",
    "TensorBoardLogger",
    "bootstrap_interval",
    "copy_table",
    "learning_curve",
    "read_csv",
    "require_video",
    "spread_curve",
    "video_writer",
]
