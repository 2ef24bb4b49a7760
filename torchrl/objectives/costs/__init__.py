"""Losses: modules that turn a batch into a TensorDict of scalars, of which ``loss_*`` are summed and differentiated."""

from torchrl.objectives.costs.base import Coefficient, Loss, total_loss
from torchrl.objectives.costs.behaviour_cloning import BehaviourCloningLoss
from torchrl.objectives.costs.ddpg import DDPGLoss, TD3Loss
from torchrl.objectives.costs.dqn import DistributionalDQNLoss, DQNLoss, QuantileDQNLoss
from torchrl.objectives.costs.policy_gradient import A2CLoss, PolicyGradientLoss, ReinforceLoss
from torchrl.objectives.costs.policy_objectives import (
    ClippedSurrogate,
    PenalizedSurrogate,
    PolicyGradient,
    PolicyObjective,
    Surrogate,
)
from torchrl.objectives.costs.ppo import ClipPPOLoss, KLPenaltyPPOLoss, PPOLoss
from torchrl.objectives.costs.sac import DiscreteSACLoss, REDQLoss, SACLoss
from torchrl.objectives.costs.targets import HardUpdate, SoftUpdate, target_copy

__all__ = [
    "Surrogate",
    "PolicyObjective",
    "PolicyGradient",
    "PenalizedSurrogate",
    "ClippedSurrogate",
    "A2CLoss",
    "BehaviourCloningLoss",
    "ClipPPOLoss",
    "Coefficient",
    "DDPGLoss",
    "DQNLoss",
    "DiscreteSACLoss",
    "DistributionalDQNLoss",
    "HardUpdate",
    "KLPenaltyPPOLoss",
    "Loss",
    "PPOLoss",
    "PolicyGradientLoss",
    "QuantileDQNLoss",
    "REDQLoss",
    "ReinforceLoss",
    "SACLoss",
    "SoftUpdate",
    "TD3Loss",
    "target_copy",
    "total_loss",
]
