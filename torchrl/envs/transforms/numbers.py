"""Transforms that convert observations to float32 for networks, by the kind of their spec.

A choice becomes a one-hot vector, a bit 0.0 or 1.0, an integer is scaled from its bounds to [0, 1], a float64 becomes
the nearest float32. The spec decides what an observation is, not its dtype or shape alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase
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
from torchrl.envs.base import action_of
from torchrl.envs.transforms.action import choices_per_entry
from torchrl.envs.transforms.base import EnvSpecs
from torchrl.envs.transforms.leaves import is_number, map_spec
from torchrl.envs.transforms.observation import ObservationTransform
from torchrl.keys import Key
from torchrl.unchecked import put

WIDEST = 2**24  # float32 tells all integers apart up to here


class _ToFloat32(ObservationTransform):
    """Base of transforms that convert observations of one kind to float32: those in ``in_keys``, or all (None)."""

    def __init__(self, in_keys: Sequence[Key] | None = None) -> None:
        super().__init__(in_keys)


class OneHotObservation(_ToFloat32):
    """Replace observations that are indices of choices by one-hot vectors of float32.

    A choice ``[*B]`` of ``n`` becomes ``[*B, n]``; several at once, ``[*B, ...]``, become their vectors one after the
    other, ``[*B, n_1 + ... + n_A]``. FrozenLake's ``Discrete(16)`` becomes 16 numbers.

    >>> TransformedEnv(GymEnv("FrozenLake-v1"), OneHotObservation()).observation_spec["observation"].shape
    torch.Size([16])

    Args:
        in_keys: which observations; None takes all choices, except the mask of legal actions.

    Raises:
        SpecError: when wrapping: an observation is no choice, or rows have different numbers of choices.
    """

    expected = "choices (Categorical, MultiCategorical)"

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        return isinstance(leaf, (Categorical, MultiCategorical)) and leaf.dtype is not torch.bool

    def _nvec(self, leaf: TensorSpec) -> list[int]:
        if isinstance(leaf, Categorical):
            return [leaf.n] * self.features(leaf).numel()
        return choices_per_entry(leaf, self._batch_dims)

    def function_of(self, leaf: TensorSpec) -> Callable[[Tensor], Tensor]:
        nvec = self._nvec(leaf)
        choice = torch.cat([torch.arange(n, dtype=leaf.dtype, device=leaf.device) for n in nvec])
        if len(nvec) == 1:
            return partial(_one_hot, self._batch_dims, choice)
        entry = torch.repeat_interleave(torch.tensor(nvec, device=leaf.device))
        return partial(_one_hots, self._batch_dims, entry, choice)

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        nvec = self._nvec(leaf)
        shape = (*leaf.shape[: self._batch_dims], sum(nvec))
        if len(nvec) == 1:
            return OneHot(nvec[0], shape, torch.float32, leaf.device)
        return MultiOneHot(nvec, shape, torch.float32, leaf.device)


class BitsToFloat(_ToFloat32):
    """Replace observations of flags or bits, bool or of any integer dtype, by 0.0 and 1.0, float32, of the same shape.

    >>> BitsToFloat.takes(Binary((3,), torch.int8)), BitsToFloat.takes(Unbounded((3,)))
    (True, False)

    Args:
        in_keys: which observations; None takes all observations of bits, except the mask of legal actions.

    Raises:
        SpecError: when wrapping: an observation is not of bits.
    """

    expected = "flags, or bits of an integer dtype (Binary, MultiOneHot)"

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        is_bits = isinstance(leaf, (Binary, MultiOneHot)) and not leaf.dtype.is_floating_point
        return is_bits or leaf.dtype is torch.bool

    def function_of(self, leaf: TensorSpec) -> Callable[[Tensor], Tensor]:
        return Tensor.float

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        is_one_hot = isinstance(leaf, MultiOneHot)
        return leaf.to(torch.float32) if is_one_hot else Binary(leaf.shape, torch.float32, leaf.device)


class ScaleByBounds(_ToFloat32):
    """Scale integer observations from the bounds of their spec to ``[0, 1]``, float32.

    A number without bounds, or with bounds further apart than 2^24 (up to which float32 is exact), is converted
    without scaling. Where both bounds are the same, the result is 0.

    >>> ScaleByBounds().function_of(Bounded(0, 8, (3,), torch.uint8))(torch.tensor([0, 2, 8]))
    tensor([0.0000, 0.2500, 1.0000])

    Args:
        in_keys: which observations, all of integers; None takes every such one, except the mask of legal actions.

    Raises:
        SpecError: when wrapping: an observation is not of integers.
    """

    expected = "integers (Bounded, Unbounded)"

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        return is_number(leaf) and not leaf.dtype.is_floating_point

    def function_of(self, leaf: TensorSpec) -> Callable[[Tensor], Tensor]:
        if isinstance(leaf, Unbounded):
            return Tensor.float
        low = leaf.low.double()
        width = leaf.high.double() - low
        has_bounds = width <= WIDEST
        if not bool(has_bounds.any()):
            return Tensor.float
        return partial(_scale, torch.where(has_bounds, low, 0.0), torch.where(has_bounds & (width > 0), width, 1.0))

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return map_spec(leaf, self.function_of(leaf))


class DoubleToFloat(_ToFloat32):
    """Convert float64 observations and rewards to float32 for the policy, and its float32 actions back to float64.

    Observations in float16 become float32 as well. Envs over simulators convert float64 themselves, so they need this
    transform for float16 only; environments written in torch may need it for float64.

    >>> DoubleToFloat.takes(Unbounded((3,), torch.float64)), DoubleToFloat.takes(Unbounded((3,)))
    (True, False)

    Args:
        in_keys: which observations; None takes every one in float64 or float16.

    Raises:
        SpecError: when wrapping: an observation in ``in_keys`` has another dtype.
    """

    expected = "float64 or float16"

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        return leaf.dtype in (torch.float64, torch.float16)

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations in float64 or float16, and whether reward and action are float64."""
        super().read_specs(env)
        self._has_double_reward = _is_double(env.reward_spec)
        self._action_below = env.action_spec
        self._has_double_action = self.action_spec(env.action_spec) != env.action_spec

    def function_of(self, leaf: TensorSpec) -> Callable[[Tensor], Tensor]:
        return Tensor.float

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return map_spec(leaf, Tensor.float)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Convert observations and reward to float32."""
        super().step(next_, root)
        if self._has_double_reward:
            put(next_, "reward", next_.get("reward").float())

    def inverse(self, inputs: TensorDict) -> None:
        """Convert the policy's float32 action to the float64 that the environment takes."""
        if self._has_double_action:
            put(inputs, "action", _as_double(action_of(inputs), self._action_below))

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        return self.transform_spec(spec) if _is_double(spec) else spec

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the action's spec in float32; bounds are rounded so that no float32 action exceeds the old bounds."""
        if isinstance(spec, Composite):
            return Composite({key: self.action_spec(part) for key, part in spec.items()}, spec.shape)
        if not _is_double(spec):
            return spec
        if not isinstance(spec, Bounded):
            return self.transform_spec(spec)
        low, high = (_round(bound, towards) for bound, towards in ((spec.low, torch.inf), (spec.high, -torch.inf)))
        return Bounded(low, high, spec.shape, torch.float32, spec.device)


def _one_hot(batch_dims: int, choice: Tensor, value: Tensor) -> Tensor:
    return (value.reshape(*value.shape[:batch_dims], 1) == choice).float()


def _one_hots(batch_dims: int, entry: Tensor, choice: Tensor, value: Tensor) -> Tensor:
    return (value.reshape(*value.shape[:batch_dims], -1).index_select(-1, entry) == choice).float()


def _scale(low: Tensor, width: Tensor, value: Tensor) -> Tensor:
    return value.double().sub_(low).div_(width).float()  # in between, float32 would lose integers far from 0


def _round(bound: torch.Tensor, towards: float) -> torch.Tensor:
    """Convert a float64 bound to the nearest float32 on its inner side, towards ``towards``."""
    near = bound.float()
    is_beyond = near.double() < bound if towards > 0 else near.double() > bound
    return torch.where(is_beyond, torch.nextafter(near, torch.full_like(near, towards)), near)


def _as_double(action: torch.Tensor | TensorDictBase, spec: TensorSpec) -> torch.Tensor | TensorDictBase:
    """Return the action with float64 leaves where ``spec`` has float64; a nested action becomes a new TensorDict."""
    if not isinstance(spec, Composite):
        return action.double() if _is_double(spec) else action
    action = action.copy()
    for key, part in spec.items():
        value = action.get(key, None)
        if value is not None:  # a missing one is the environment's to refuse
            put(action, key, _as_double(value, part))
    return action


def _is_double(leaf: TensorSpec) -> bool:
    return leaf.dtype == torch.float64
