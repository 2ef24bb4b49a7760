"""Record a run: loggers of its numbers, plots of them, and films. What is measured, and when, the agent decides."""

from torchrl.record.bootstrap import bootstrap_interval
from torchrl.record.csv import CSVLogger, copy_table, read_csv
from torchrl.record.fan_out import FanOut
from torchrl.record.json_lines import JSONLinesLogger, read_json_lines
from torchrl.record.logger import Logger
from torchrl.record.ml_flow import MLflowLogger
from torchrl.record.plots import group_curves, learning_curve, spread_curve
from torchrl.record.tensorboard import TensorBoardLogger
from torchrl.record.trackers import Throttled, Tolerant
from torchrl.record.video import require_video, video_writer
from torchrl.record.weights_and_biases import WandbLogger
from torchrl.record.window import picture_window

__all__ = [
    "CSVLogger",
    "FanOut",
    "JSONLinesLogger",
    "Logger",
    "MLflowLogger",
    "TensorBoardLogger",
    "Throttled",
    "Tolerant",
    "WandbLogger",
    "bootstrap_interval",
    "copy_table",
    "group_curves",
    "learning_curve",
    "picture_window",
    "read_csv",
    "read_json_lines",
    "require_video",
    "spread_curve",
    "video_writer",
]
