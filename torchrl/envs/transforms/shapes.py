"""Transforms that rearrange the dimensions of observations, never those of the batch, without changing values.

Dimensions are counted without those of the batch: of an image ``[*B, H, W, C]``, dimension 0 is H and -1 is C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import TensorSpec
from torchrl.envs.transforms.base import EnvSpecs
from torchrl.envs.transforms.observation import ObservationTransform
from torchrl.keys import Key


class _ShapeTransform(ObservationTransform):
    """Base of transforms that rearrange the dimensions of observations, by one function for tensors and for specs."""

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Rearrange observations of the outcome and of the root, each from its own tensors: the results are views."""
        self.reset(next_, None)
        self.reset(root, None)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec with its dimensions rearranged, bounds included."""
        return self.forward(leaf)

    def _at(self, dim: int) -> int:
        """Return the index of a dimension in the whole tensor: add the batch dimensions unless it is negative."""
        return dim if dim < 0 else dim + self._batch_dims


class Unsqueeze(_ShapeTransform):
    """Insert a dimension of size 1 into observations.

    >>> TransformedEnv(env, Unsqueeze(0)).observation_spec["observation"].shape  # of [2, 4]
    torch.Size([2, 1, 4])

    Args:
        dim: where, counted without the batch dimensions; -1 is behind the last.
        in_keys: which observations.

    Raises:
        SpecError: when wrapping: an observation has too few dimensions.
    """

    def __init__(self, dim: int, in_keys: Sequence[Key] = ("observation",)) -> None:
        super().__init__(in_keys)
        self.dim = dim
        self.expected = f"room for a dimension {dim}"

    def takes(self, leaf: TensorSpec) -> bool:
        num = len(self.features(leaf))
        return -num - 1 <= self.dim <= num

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return a view with one dimension more, ``[*B, ..., 1, ...]``."""
        return value.unsqueeze(self._at(self.dim))


class Squeeze(_ShapeTransform):
    """Remove a dimension of size 1 from observations.

    >>> TransformedEnv(env, Compose(Unsqueeze(0), Squeeze(0))).observation_spec["observation"].shape
    torch.Size([2, 4])

    Args:
        dim: which, counted without the batch dimensions.
        in_keys: which observations.

    Raises:
        SpecError: when wrapping: an observation lacks the dimension, or its size is not 1.
    """

    def __init__(self, dim: int, in_keys: Sequence[Key] = ("observation",)) -> None:
        super().__init__(in_keys)
        self.dim = dim
        self.expected = f"a dimension {dim} of size 1"

    def takes(self, leaf: TensorSpec) -> bool:
        shape = self.features(leaf)
        return self.dim in range(-len(shape), len(shape)) and shape[self.dim] == 1

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return a view with one dimension less, ``[*B, ...]``."""
        return value.squeeze(self._at(self.dim))


class Flatten(_ShapeTransform):
    """Join consecutive dimensions of observations into one; by default all of them. A scalar becomes a vector of one.

    >>> TransformedEnv(env, Compose(Unsqueeze(0), Flatten())).observation_spec["observation"].shape  # of [2, 1, 4]
    torch.Size([2, 4])

    Args:
        first: the first of them, counted without the batch dimensions.
        last: the last of them, included.
        in_keys: which observations.

    Raises:
        SpecError: when wrapping: an observation lacks a dimension, or ``first`` is behind ``last``.
    """

    def __init__(self, first: int = 0, last: int = -1, *, in_keys: Sequence[Key] = ("observation",)) -> None:
        super().__init__(in_keys)
        self.first = first
        self.last = last
        self.expected = f"dimensions {first} to {last}, in this order,"

    def takes(self, leaf: TensorSpec) -> bool:
        num = max(len(self.features(leaf)), 1)  # a scalar counts as a vector of one, as for torch.flatten
        has_both = all(dim in range(-num, num) for dim in (self.first, self.last))
        return has_both and self.first % num <= self.last % num

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the value with one dimension in place of several, or of none, ``[*B, ..., F, ...]``."""
        if value.ndim == self._batch_dims:
            return value.unsqueeze(-1)
        return value.flatten(self._at(self.first), self._at(self.last))

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec with the dimensions joined, bounds included."""
        if leaf.ndim == self._batch_dims:
            return leaf.unsqueeze(-1)
        first, last = (self._at(dim) % leaf.ndim for dim in (self.first, self.last))
        return leaf.reshape(*leaf.shape[:first], leaf.shape[first : last + 1].numel(), *leaf.shape[last + 1 :])


class Permute(_ShapeTransform):
    """Bring the dimensions of observations into another order, as ``Tensor.permute``.

    ``Permute((2, 0, 1), ["pixels"])`` turns ``[*B, H, W, C]`` into ``[*B, C, H, W]``.

    >>> TransformedEnv(env, Compose(Unsqueeze(0), Permute((1, 0)))).observation_spec["observation"].shape
    torch.Size([2, 4, 1])

    Args:
        dims: every dimension once, counted without the batch dimensions, in the order of the result.
        in_keys: which observations.

    Raises:
        SpecError: when wrapping: an observation has more or fewer dimensions.
    """

    def __init__(self, dims: Sequence[int], in_keys: Sequence[Key] = ("observation",)) -> None:
        super().__init__(in_keys)
        self.dims = tuple(dims)
        self.expected = f"the dimensions {list(dims)}, each once,"

    def takes(self, leaf: TensorSpec) -> bool:
        num = len(self.features(leaf))
        is_known = all(dim in range(-num, num) for dim in self.dims)
        return is_known and sorted(dim % num for dim in self.dims) == list(range(num))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return a view with the dimensions in their new order, ``[*B, ...]``."""
        return value.permute(self._order)

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations, and count the dimensions with those of the batch."""
        super().read_specs(env)
        batch_dims, num = self._batch_dims, len(self.dims)
        self._order = (*range(batch_dims), *(batch_dims + dim % num for dim in self.dims))
