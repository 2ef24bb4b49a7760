"""Action distributions, lean enough to be built at every step, and the mappings that make their scales positive."""

from torchrl.modules.distributions.base import Distribution
from torchrl.modules.distributions.continuous import Normal, TanhNormal
from torchrl.modules.distributions.discrete import Categorical

__all__ = ["Categorical", "Distribution", "Normal", "TanhNormal"]
