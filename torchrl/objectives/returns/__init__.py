"""Estimators: they read rewards, endings and values from a batch of time series and write advantages and targets."""

from torchrl.data import Reward2Go
from torchrl.objectives.returns.advantages import GAE, TD0, NStepReturn, TDLambda
from torchrl.objectives.returns.base import ReturnEstimator, next_values
from torchrl.objectives.returns.monte_carlo import DiscountedReturn
from torchrl.objectives.returns.off_policy import VTrace

__all__ = [
    "GAE",
    "TD0",
    "DiscountedReturn",
    "NStepReturn",
    "ReturnEstimator",
    "Reward2Go",
    "TDLambda",
    "VTrace",
    "next_values",
]
