"""Networks of tensors: perceptrons, convolutions, their normalisation, and the heads that end them."""

from torchrl.modules.models.around_encoders import CenterCrop, Detached
from torchrl.modules.models.batch_renorm import BatchRenorm
from torchrl.modules.models.conv import ConvNet
from torchrl.modules.models.dueling import DuelingHead, DuelingMLP
from torchrl.modules.models.encoded import Encoded
from torchrl.modules.models.heads import NormalHead, StateDependentNormalHead, TanhHead
from torchrl.modules.models.mlp import MLP, orthogonal_init_
from torchrl.modules.models.noisy import NoisyLinear
from torchrl.modules.models.parallel import ParallelHeads
from torchrl.modules.models.residual import ResidualConvNet

__all__ = [
    "MLP",
    "BatchRenorm",
    "CenterCrop",
    "ConvNet",
    "Detached",
    "DuelingHead",
    "DuelingMLP",
    "Encoded",
    "NoisyLinear",
    "NormalHead",
    "ParallelHeads",
    "ResidualConvNet",
    "StateDependentNormalHead",
    "TanhHead",
    "orthogonal_init_",
]
