"""What is optimised: estimators of returns write targets into a batch, losses turn the batch into scalars."""

from torchrl.objectives.costs import (
    A2CLoss,
    BehaviourCloningLoss,
    ClipPPOLoss,
    KLPenaltyPPOLoss,
    Loss,
    PolicyGradientLoss,
    PPOLoss,
    ReinforceLoss,
    total_loss,
)
from torchrl.objectives.returns import (
    GAE,
    TD0,
    DiscountedReturn,
    NStepReturn,
    ReturnEstimator,
    Reward2Go,
    TDLambda,
    VTrace,
    next_values,
)

__all__ = [
    "GAE",
    "TD0",
    "A2CLoss",
    "BehaviourCloningLoss",
    "ClipPPOLoss",
    "DiscountedReturn",
    "KLPenaltyPPOLoss",
    "Loss",
    "NStepReturn",
    "PPOLoss",
    "PolicyGradientLoss",
    "ReinforceLoss",
    "ReturnEstimator",
    "Reward2Go",
    "TDLambda",
    "VTrace",
    "next_values",
    "total_loss",
]
