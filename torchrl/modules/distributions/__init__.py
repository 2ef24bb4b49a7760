"""Action distributions, lean enough to be built at every step, and the mappings that make their scales positive."""

from torchrl.modules.distributions.base import Distribution, draw
from torchrl.modules.distributions.bernoulli import Bernoulli
from torchrl.modules.distributions.composite import CompositeDistribution
from torchrl.modules.distributions.continuous import Normal, TanhNormal
from torchrl.modules.distributions.delta import Delta, TanhDelta
from torchrl.modules.distributions.discrete import Categorical
from torchrl.modules.distributions.masked import MaskedCategorical
from torchrl.modules.distributions.multi import MultiCategorical
from torchrl.modules.distributions.one_hot import MaskedOneHotCategorical, OneHotCategorical
from torchrl.modules.distributions.truncated import TruncatedNormal

__all__ = [
    "Bernoulli",
    "Categorical",
    "CompositeDistribution",
    "Delta",
    "Distribution",
    "MaskedCategorical",
    "MaskedOneHotCategorical",
    "MultiCategorical",
    "Normal",
    "OneHotCategorical",
    "TanhDelta",
    "TanhNormal",
    "TruncatedNormal",
    "draw",
]
