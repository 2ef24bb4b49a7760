"""Policies and value functions: networks, the distributions over them, and the operators that read and write keys."""

from torchrl.modules.actor_critic import ActorValueOperator
from torchrl.modules.actors import Actor, ProbabilisticActor
from torchrl.modules.critics import ValueOperator
from torchrl.modules.distributions import Categorical, Distribution, Normal, TanhNormal
from torchrl.modules.exploration import ExplorationType, RandomPolicy, exploration_type, set_exploration_type
from torchrl.modules.models import MLP, NormalHead, StateDependentNormalHead, orthogonal_init_
from torchrl.modules.normalizer import ObservationNormalizer
from torchrl.modules.operator import Operator
from torchrl.modules.sequence import Sequence

__all__ = [
    "MLP",
    "Actor",
    "ActorValueOperator",
    "Categorical",
    "Distribution",
    "ExplorationType",
    "Normal",
    "NormalHead",
    "ObservationNormalizer",
    "Operator",
    "ProbabilisticActor",
    "RandomPolicy",
    "Sequence",
    "StateDependentNormalHead",
    "TanhNormal",
    "ValueOperator",
    "exploration_type",
    "orthogonal_init_",
    "set_exploration_type",
]
