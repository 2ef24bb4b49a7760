"""Descriptions of tensors: their shape, dtype, device and the values they may take.

A spec describes; it holds no data, encodes nothing and caches nothing. ``spec.shape`` includes the batch dimensions of
the environment: eight environments with four features have leaves of shape ``[8, 4]``,
in a ``Composite`` of shape ``[8]``.
"""

from torchrl.data.specs.base import TensorSpec
from torchrl.data.specs.composite import Composite
from torchrl.data.specs.continuous import Bounded, Unbounded
from torchrl.data.specs.discrete import Binary, Categorical, MultiCategorical
from torchrl.data.specs.one_hot import MultiOneHot, OneHot

__all__ = [
    "Binary",
    "Bounded",
    "Categorical",
    "Composite",
    "MultiCategorical",
    "MultiOneHot",
    "OneHot",
    "TensorSpec",
    "Unbounded",
]
