"""Networks of tensors: perceptrons and the heads that end them."""

from torchrl.modules.models.heads import NormalHead, StateDependentNormalHead
from torchrl.modules.models.mlp import MLP, orthogonal_init_

__all__ = ["MLP", "NormalHead", "StateDependentNormalHead", "orthogonal_init_"]
