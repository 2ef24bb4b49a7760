"""The settings of networks and of noise on their actions, as data: parts as in :mod:`torchrl.recipes.parts`.

Those of networks that remember are in :mod:`torchrl.recipes.memory_parts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchrl.envs.transforms import GSDENoise
from torchrl.modules import MLP, AdditiveGaussian, NormalHead, OrnsteinUhlenbeck
from torchrl.modules.distributions.mappings import biased_softplus
from torchrl.recipes.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Real
from torchrl.recipes.value_types import default_of


@dataclass(frozen=True)
class Networks:
    """The sizes and the activation of the hidden layers of every network.

    >>> Networks(num_cells=(64,)).activation
    'relu'
    """

    num_cells: tuple[PositiveInt, ...] = (256, 256)
    "units of each hidden layer, of actor and critics alike"
    activation: Literal["elu", "relu", "tanh"] = "relu"
    "activation between the layers"
    encoder: Literal["drq", "impala", "nature"] = "nature"
    """convolutions for pictures: those of Mnih et al. (2015), the residual ones of IMPALA, or the fine ones of DrQ;
    needs pictures"""
    encoder_width: PositiveFloat = 1.0
    "multiply the channels of these convolutions; needs pictures"


@dataclass(frozen=True)
class StateDependentNoise:
    """Exploration by generalised state-dependent noise (gSDE), Raffin et al. (2022).

    >>> StateDependentNoise(gsde=True).gsde_every is None  # kept for an episode
    True
    """

    gsde: bool = False
    "explore by noise that depends on the state and stays for a while (continuous actions)"
    gsde_every: PositiveInt | None = default_of(GSDENoise, "resample_every")
    "frames after which the noise of --gsde is redrawn; none keeps it for an episode"


@dataclass(frozen=True)
class ActorCriticNetworks(StateDependentNoise, Networks):
    """The networks of a probabilistic actor and of a critic of the state's value.

    >>> ActorCriticNetworks().activation, ActorCriticNetworks().orthogonal_init
    ('tanh', True)
    """

    num_cells: tuple[PositiveInt, ...] = default_of(MLP, "num_cells")
    activation: Literal["elu", "relu", "tanh"] = "tanh"
    distribution: Literal["normal", "tanh_normal", "truncated_normal"] = "normal"
    """of continuous actions: normal is clipped for the simulator only, the others stay within the bounds; needs
    continuous actions"""
    init_log_std: Real = default_of(NormalHead, "init_log_std")
    "initial log standard deviation of continuous actions; needs continuous actions"
    norm_observations: bool = False
    "normalise observations by running statistics, inside the networks"
    orthogonal_init: bool = True
    "begin with orthogonal weights, small ones in the last layers"
    shared_mapping: bool = False
    "let actor and critic share the hidden layers"


@dataclass(frozen=True)
class SquashedNetworks(StateDependentNoise, Networks):
    """The networks of an actor whose continuous actions stay within bounds, and of critics of observation and action.

    >>> SquashedNetworks(num_cells=(400, 300)).distribution
    'tanh_normal'
    """

    distribution: Literal["tanh_normal", "truncated_normal"] = "tanh_normal"
    "of continuous actions; needs continuous actions"
    init_std: PositiveFloat = default_of(biased_softplus, "at_zero")
    """standard deviation before squashing where the network's output is 0; needs continuous actions and --no-gsde"""
    tanh_loc: bool = False
    "keep the mean before squashing within ±5, by a tanh; needs continuous actions and --no-gsde"
    gsde_log_std: Real = -3.0
    "initial log standard deviation of each entry of the noise; needs continuous actions and --gsde"
    share_encoder: bool = False
    "let actor and critics share the convolutions, which the critics' loss alone trains; needs pictures"
    image_features: PositiveInt = 50
    """numbers that shared convolutions are reduced to by a linear layer, LayerNorm and tanh, one for the actor and one
    for the critics; needs --share_encoder"""


@dataclass(frozen=True)
class ActionNoise:
    """Exploration by noise that is added to the actions of a deterministic actor.

    >>> ActionNoise(noise_start=0.3).noise_end
    0.1
    """

    noise_start: NonNegativeFloat = default_of(AdditiveGaussian, "start")
    "noise on actions at the beginning, in units of half their range; needs --exploration_type=random"
    noise_end: NonNegativeFloat = default_of(AdditiveGaussian, "end")
    "noise on actions in the end, in units of half their range; needs --exploration_type=random"
    annealing_frames: PositiveInt = 1_000_000
    "frames from --noise_start to --noise_end; needs --exploration_type=random"
    ou_exploration: bool = False
    "noise that drifts (Ornstein-Uhlenbeck); needs --exploration_type=random"
    ou_theta: NonNegativeFloat = default_of(OrnsteinUhlenbeck, "theta")
    "how fast that noise returns to zero; needs --ou_exploration"
    ou_sigma: NonNegativeFloat = default_of(OrnsteinUhlenbeck, "sigma")
    "how much that noise is moved at random in a unit of time; needs --ou_exploration"
