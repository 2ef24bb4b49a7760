"""Estimators: they read rewards, endings and values from a batch of time series and write advantages and targets."""

from torchrl.objectives.returns.advantages import GAE, TD0
from torchrl.objectives.returns.base import ReturnEstimator, next_values

__all__ = ["GAE", "TD0", "ReturnEstimator", "next_values"]
