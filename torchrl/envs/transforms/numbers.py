"""Transforms of observations that are no float32 numbers yet into such, which networks take: the space decides how.

A choice becomes a one-hot vector, a bit 0.0 or 1.0, an integer its place between its bounds. None of them guesses from
a dtype or a shape alone: what a leaf is, its spec says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.data.specs import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    TensorSpec,
    Unbounded,
)
from torchrl.envs.base import Env
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.choices import choices_per_entry
from torchrl.envs.transforms.leaves import mapped_spec, refuse_mask, require_leaves, set_leaf
from torchrl.errors import SpecError, explain
from torchrl.keys import Key, as_path, key_list

WIDEST = 2**24  # float32 tells all integers apart up to here


class _NumberTransform(Transform):
    """Replace observations of one kind by float32 numbers. A subclass says which kind, and how.

    Args:
        in_keys: which observations, each a key or a tuple of keys; None takes every one of the kind, but for the mask
            of legal actions.
    """

    expected: str

    def __init__(self, in_keys: Sequence[Key] | None = None) -> None:
        super().__init__()
        self.in_keys = None if in_keys is None else tuple(key_list(type(self).__name__, in_keys))

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        """Say whether an observation is of the kind."""
        raise NotImplementedError

    def _encoder(self, leaf: TensorSpec) -> Callable[[Tensor], Tensor]:
        """Return the function of values, ``[*B, ...]``; it gives new tensors."""
        raise NotImplementedError

    def _encoded(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec of the numbers."""
        raise NotImplementedError

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Find the observations.

        Raises:
            KeyMissing: there is no such observation.
            SpecError: one is of another kind, or is the mask of legal actions.
        """
        super().read_specs(env)
        who, spec, mask_key = type(self).__name__, env.observation_spec, env.action_mask_key
        self._batch_dims = len(env.batch_size)
        if self.in_keys is None:
            masks = () if mask_key is None else (as_path(mask_key),)
            self.in_keys = tuple(key for key, leaf in spec.leaves() if self.takes(leaf) and as_path(key) not in masks)
        self.in_keys = require_leaves(who, spec, self.in_keys)
        for key in self.in_keys:
            refuse_mask(who, key, mask_key)
            if not self.takes(spec[key]):
                raise SpecError(explain(who, expected=f"{self.expected} in {key!r}", got=spec[key]))
        self._encoders = {key: self._encoder(spec[key]) for key in self.in_keys}

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Replace the observations in both containers."""
        for key, encode in self._encoders.items():
            value = encode(next_.get(key))
            set_leaf(next_, key, value)
            set_leaf(root, key, value)

    def reset(self, root: TensorDict, mask: Tensor | None) -> None:
        """Replace the observations of every row."""
        for key, encode in self._encoders.items():
            set_leaf(root, key, encode(root.get(key)))

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec with the leaves of the numbers."""
        spec = spec.clone()
        for key in self.in_keys:
            spec[key] = self._encoded(spec[key])
        return spec


class OneHotObservation(_NumberTransform):
    """Write choices that are observed as one-hot vectors: a number says nothing of how near two choices are.

    A choice ``[*B]`` of ``n`` becomes ``[*B, n]``; several at once, ``[*B, ...]``, become their vectors one after the
    other, ``[*B, n_1 + ... + n_A]``; float32. ``OneHotObservation()`` makes FrozenLake's ``Discrete(16)`` 16 numbers.

    Args:
        in_keys: which observations; None takes every choice, but for the mask of legal actions.

    Raises:
        SpecError: when wrapping: an observation is no choice, or the rows choose among different numbers.
    """

    expected = "choices (Categorical, MultiCategorical)"

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        """Say whether an observation is a choice, or several."""
        return isinstance(leaf, (Categorical, MultiCategorical)) and leaf.dtype is not torch.bool

    def _nvec(self, leaf: TensorSpec) -> list[int]:
        if isinstance(leaf, Categorical):
            return [leaf.n] * leaf.shape[self._batch_dims :].numel()
        return choices_per_entry(leaf, self._batch_dims)

    def _encoder(self, leaf: TensorSpec) -> Callable[[Tensor], Tensor]:
        nvec = self._nvec(leaf)
        choice = torch.cat([torch.arange(n, dtype=leaf.dtype, device=leaf.device) for n in nvec])
        if len(nvec) == 1:
            return partial(_one_hot, (*leaf.shape[: self._batch_dims], 1), choice)
        entry = torch.repeat_interleave(torch.tensor(nvec, device=leaf.device))
        return partial(_one_hots, (*leaf.shape[: self._batch_dims], len(nvec)), entry, choice)

    def _encoded(self, leaf: TensorSpec) -> TensorSpec:
        nvec = self._nvec(leaf)
        shape = (*leaf.shape[: self._batch_dims], sum(nvec))
        if len(nvec) == 1:
            return OneHot(nvec[0], shape, torch.float32, leaf.device)
        return MultiOneHot(nvec, shape, torch.float32, leaf.device)


class BitsToFloat(_NumberTransform):
    """Write flags, and bits of any integer dtype, as 0.0 and 1.0, float32; shapes stay.

    Args:
        in_keys: which observations; None takes every one of bits, but for the mask of legal actions.

    Raises:
        SpecError: when wrapping: an observation is no bits.
    """

    expected = "flags, or bits of an integer dtype (Binary, MultiOneHot)"

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        """Say whether an observation is of entries that are 0 or 1, and not in floats."""
        is_bits = isinstance(leaf, (Binary, MultiOneHot)) and not leaf.dtype.is_floating_point
        return is_bits or leaf.dtype is torch.bool

    def _encoder(self, leaf: TensorSpec) -> Callable[[Tensor], Tensor]:
        return Tensor.float

    def _encoded(self, leaf: TensorSpec) -> TensorSpec:
        is_one_hot = isinstance(leaf, MultiOneHot)
        return leaf.to(torch.float32) if is_one_hot else Binary(leaf.shape, torch.float32, leaf.device)


class ScaleByBounds(_NumberTransform):
    """Write integers as their place between their bounds, from 0.0 at the lower to 1.0 at the upper; float32.

    A number without bounds is written as it is: an integer space has none where they lie further apart than 2^24, up
    to which float32 tells all integers apart. Where both bounds are the same, it is 0.

    Args:
        in_keys: which observations, each of integers; None takes every one, but for the mask of legal actions.

    Raises:
        SpecError: when wrapping: an observation is of something else.
    """

    expected = "integers (Bounded, Unbounded)"

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        """Say whether an observation is of integers that are no choices and no bits."""
        is_number = isinstance(leaf, (Bounded, Unbounded))
        return is_number and not leaf.dtype.is_floating_point and leaf.dtype is not torch.bool

    def _encoder(self, leaf: TensorSpec) -> Callable[[Tensor], Tensor]:
        if isinstance(leaf, Unbounded):
            return Tensor.float
        low = leaf.low.double()
        width = leaf.high.double() - low
        has_bounds = width <= WIDEST
        if not bool(has_bounds.any()):
            return Tensor.float
        return partial(_scaled, torch.where(has_bounds, low, 0.0), torch.where(has_bounds & (width > 0), width, 1.0))

    def _encoded(self, leaf: TensorSpec) -> TensorSpec:
        return mapped_spec(leaf, self._encoder(leaf))


def _one_hot(column: tuple[int, ...], choice: Tensor, value: Tensor) -> Tensor:
    return (value.reshape(column) == choice).float()


def _one_hots(entries: tuple[int, ...], entry: Tensor, choice: Tensor, value: Tensor) -> Tensor:
    return (value.reshape(entries).index_select(-1, entry) == choice).float()


def _scaled(low: Tensor, width: Tensor, value: Tensor) -> Tensor:
    return value.double().sub_(low).div_(width).float()  # in between, float32 would lose integers far from 0
