"""Policies and value functions: networks, the distributions over them, and the operators that read and write keys."""

from torchrl.modules.actor_critic import ActorCriticOperator, ActorCriticWrapper, ActorValueOperator
from torchrl.modules.actors import Actor, ProbabilisticActor
from torchrl.modules.critics import ValueOperator
from torchrl.modules.distributions import (
    Bernoulli,
    Categorical,
    CompositeDistribution,
    Delta,
    Distribution,
    MaskedCategorical,
    MaskedOneHotCategorical,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    TanhDelta,
    TanhNormal,
    TruncatedNormal,
)
from torchrl.modules.ensemble import Ensemble
from torchrl.modules.exploration import (
    AnnealedExploration,
    ExplorationType,
    RandomPolicy,
    exploration_type,
    set_exploration_type,
)
from torchrl.modules.gsde import GSDEHead, GSDENormal
from torchrl.modules.lazy import initialise_lazy_
from torchrl.modules.models import (
    MLP,
    BatchRenorm,
    ConvNet,
    NormalHead,
    ParallelHeads,
    StateDependentNormalHead,
    orthogonal_init_,
)
from torchrl.modules.normalizer import ObservationNormalizer
from torchrl.modules.operator import Operator
from torchrl.modules.projection import Projected
from torchrl.modules.sequence import Sequence

__all__ = [
    "MLP",
    "Actor",
    "ActorCriticOperator",
    "ActorCriticWrapper",
    "ActorValueOperator",
    "AnnealedExploration",
    "BatchRenorm",
    "Bernoulli",
    "Categorical",
    "CompositeDistribution",
    "ConvNet",
    "Delta",
    "Distribution",
    "Ensemble",
    "ExplorationType",
    "GSDEHead",
    "GSDENormal",
    "MaskedCategorical",
    "MaskedOneHotCategorical",
    "MultiCategorical",
    "Normal",
    "NormalHead",
    "ObservationNormalizer",
    "OneHotCategorical",
    "Operator",
    "ParallelHeads",
    "ProbabilisticActor",
    "Projected",
    "RandomPolicy",
    "Sequence",
    "StateDependentNormalHead",
    "TanhDelta",
    "TanhNormal",
    "TruncatedNormal",
    "ValueOperator",
    "exploration_type",
    "initialise_lazy_",
    "orthogonal_init_",
    "set_exploration_type",
]
