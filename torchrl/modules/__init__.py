"""Policies and value functions: networks, distributions of actions, and the operators that read and write keys."""

from torchrl.modules.actor_critic import ActorCriticOperator, ActorCriticWrapper, ActorValueOperator
from torchrl.modules.actors import Actor, ProbabilisticActor
from torchrl.modules.attention import Transformer
from torchrl.modules.critics import ValueOperator
from torchrl.modules.curiosity import CuriosityModule, IntrinsicCuriosity, RandomNetworkDistillation
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
from torchrl.modules.explorers import AdditiveGaussian, EGreedy, OrnsteinUhlenbeck
from torchrl.modules.gsde import GSDEHead, GSDEMarginal, GSDENormal, GSDETanhNormal
from torchrl.modules.lazy import initialise_lazy_
from torchrl.modules.memory import Memory
from torchrl.modules.models import (
    MLP,
    BatchRenorm,
    CenterCrop,
    ConvNet,
    Detached,
    DuelingHead,
    DuelingMLP,
    Encoded,
    NoisyLinear,
    NormalHead,
    ParallelHeads,
    ResidualConvNet,
    StateDependentNormalHead,
    TanhHead,
    orthogonal_init_,
)
from torchrl.modules.normalizer import ObservationNormalizer
from torchrl.modules.operator import Operator
from torchrl.modules.options import Options, PerOption, no_option
from torchrl.modules.projection import Projected
from torchrl.modules.q_values import DistributionalQValueActor, QuantileQValueActor, QValueActor, ValueEnsemble
from torchrl.modules.recurrent import GRU, LSTM
from torchrl.modules.replaying import replay_policy
from torchrl.modules.sequence import Sequence

__all__ = [
    "Actor",
    "ActorCriticOperator",
    "ActorCriticWrapper",
    "ActorValueOperator",
    "AdditiveGaussian",
    "AnnealedExploration",
    "BatchRenorm",
    "Bernoulli",
    "Categorical",
    "CenterCrop",
    "CompositeDistribution",
    "ConvNet",
    "CuriosityModule",
    "Delta",
    "Detached",
    "Distribution",
    "DistributionalQValueActor",
    "DuelingHead",
    "DuelingMLP",
    "EGreedy",
    "Encoded",
    "Ensemble",
    "ExplorationType",
    "GRU",
    "GSDEHead",
    "GSDEMarginal",
    "GSDENormal",
    "GSDETanhNormal",
    "IntrinsicCuriosity",
    "LSTM",
    "MLP",
    "MaskedCategorical",
    "MaskedOneHotCategorical",
    "Memory",
    "MultiCategorical",
    "NoisyLinear",
    "Normal",
    "NormalHead",
    "ObservationNormalizer",
    "OneHotCategorical",
    "Operator",
    "Options",
    "OrnsteinUhlenbeck",
    "ParallelHeads",
    "PerOption",
    "ProbabilisticActor",
    "Projected",
    "QValueActor",
    "QuantileQValueActor",
    "RandomNetworkDistillation",
    "RandomPolicy",
    "ResidualConvNet",
    "Sequence",
    "StateDependentNormalHead",
    "TanhDelta",
    "TanhHead",
    "TanhNormal",
    "Transformer",
    "TruncatedNormal",
    "ValueEnsemble",
    "ValueOperator",
    "exploration_type",
    "initialise_lazy_",
    "no_option",
    "orthogonal_init_",
    "replay_policy",
    "set_exploration_type",
]
