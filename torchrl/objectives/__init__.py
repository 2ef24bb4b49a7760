"""What is optimised: estimators of returns write targets into a batch, losses turn the batch into scalars."""

from torchrl.data import Reward2Go
from torchrl.objectives.costs.actor_critic import ActorCriticLoss
from torchrl.objectives.costs.base import Coefficient, Loss, total_loss
from torchrl.objectives.costs.behaviour_cloning import BehaviourCloningLoss
from torchrl.objectives.costs.curiosity import ICMLoss, RNDLoss
from torchrl.objectives.costs.ddpg import DDPGLoss, TD3Loss
from torchrl.objectives.costs.dqn import ActionValueLoss, DistributionalDQNLoss, DQNLoss, QuantileDQNLoss
from torchrl.objectives.costs.joint import JointLoss
from torchrl.objectives.costs.policy_gradient import A2CLoss, PolicyGradientLoss, ReinforceLoss
from torchrl.objectives.costs.policy_objectives import (
    ClippedSurrogate,
    PenalizedSurrogate,
    PolicyGradient,
    PolicyObjective,
    PolicyRows,
    Surrogate,
)
from torchrl.objectives.costs.ppo import ClipPPOLoss, KLPenaltyPPOLoss, PPOLoss
from torchrl.objectives.costs.sac import DiscreteSACLoss, REDQLoss, SACLoss
from torchrl.objectives.costs.targets import HardUpdate, SoftUpdate, target_copy
from torchrl.objectives.costs.temporal_difference import TDLoss, call_frozen
from torchrl.objectives.costs.termination import TerminationLoss
from torchrl.objectives.returns.advantages import GAE, TD0, NStepReturn, TDLambda
from torchrl.objectives.returns.base import ReturnEstimator, next_values
from torchrl.objectives.returns.monte_carlo import DiscountedReturn
from torchrl.objectives.returns.off_policy import VTrace

__all__ = [
    "GAE",
    "TD0",
    "A2CLoss",
    "ActionValueLoss",
    "ActorCriticLoss",
    "BehaviourCloningLoss",
    "ClipPPOLoss",
    "ClippedSurrogate",
    "Coefficient",
    "DDPGLoss",
    "DQNLoss",
    "DiscountedReturn",
    "DiscreteSACLoss",
    "DistributionalDQNLoss",
    "HardUpdate",
    "ICMLoss",
    "JointLoss",
    "KLPenaltyPPOLoss",
    "Loss",
    "NStepReturn",
    "PPOLoss",
    "PenalizedSurrogate",
    "PolicyGradient",
    "PolicyGradientLoss",
    "PolicyObjective",
    "PolicyRows",
    "QuantileDQNLoss",
    "REDQLoss",
    "RNDLoss",
    "ReinforceLoss",
    "ReturnEstimator",
    "Reward2Go",
    "SACLoss",
    "SoftUpdate",
    "Surrogate",
    "TD3Loss",
    "TDLoss",
    "TDLambda",
    "TerminationLoss",
    "VTrace",
    "call_frozen",
    "next_values",
    "target_copy",
    "total_loss",
]
