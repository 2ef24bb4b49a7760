"""Transforms that change which keys and dtypes there are, and no values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs import Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs.base import Env, action_of
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.leaves import is_below, mapped_spec, require_free, require_leaves, topmost_emptied, without
from torchrl.envs.transforms.observation import ObservationTransform
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key, key_list
from torchrl.unchecked import put


class CatTensors(Transform):
    """Concatenate observations along their last dimension; a scalar counts as one feature.

    Args:
        in_keys: which observations, in the order of the result; None takes all there are, in the order of the spec.
        out_key: the key of the result.
        delete: whether the observations themselves go, with the levels that become empty.

    Raises:
        KeyMissing: when wrapping: there is no such observation.
        SpecError: when wrapping: their dtypes or leading dimensions differ.
        ConfigError: ``out_key`` would cover an observation that stays, or a name of the environment such as ``reward``.
    """

    def __init__(
        self, in_keys: Sequence[Key] | None = None, out_key: Key = "observation", *, delete: bool = True
    ) -> None:
        super().__init__()
        if in_keys is not None and not in_keys:
            raise ConfigError(explain("CatTensors", expected="at least one key", got="none", hint="None takes all."))
        self.in_keys = None if in_keys is None else tuple(key_list("CatTensors", in_keys))
        self.out_key = out_key
        self.delete = delete
        self._set = put if isinstance(out_key, str) else TensorDict.set  # the checked one makes the levels it lacks

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Find the observations and see that they go together."""
        super().read_specs(env)
        spec = env.observation_spec
        keys = [key for key, _ in spec.leaves()] if self.in_keys is None else self.in_keys
        self.in_keys = require_leaves("CatTensors", spec, keys)
        self._batch_dims = len(env.batch_size)
        self._gone = topmost_emptied(spec, self.in_keys) if self.delete else ()
        _require_stackable(self._batch_dims, {key: spec[key] for key in self.in_keys})
        require_free("CatTensors, out_key", without(spec, self._gone), self.out_key)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Concatenate once, for both containers."""
        value = self._joined(next_)
        self._replace(next_, value)
        self._replace(root, value)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Concatenate every row."""
        self._replace(root, self._joined(root))

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec with the one leaf in place of the many; bounded if all of them are."""
        leaves = [self._as_features(spec[key]) for key in self.in_keys]
        if all(isinstance(leaf, Bounded) for leaf in leaves):
            low, high = (torch.cat([getattr(leaf, side) for leaf in leaves], -1) for side in ("low", "high"))
            joined: TensorSpec = Bounded(low, high, dtype=leaves[0].dtype, device=leaves[0].device)
        else:
            shape = (*leaves[0].shape[:-1], sum(leaf.shape[-1] for leaf in leaves))
            joined = Unbounded(shape, leaves[0].dtype, leaves[0].device)
        return without(spec, self._gone).set(self.out_key, joined)

    def action_mask_key(self, key: Key | None) -> Key | None:
        """Return the mask's key, or None if it went into the result."""
        return None if key is None or is_below(key, self._gone) else key

    def _joined(self, tensordict: TensorDict) -> torch.Tensor:
        return torch.cat([self._as_features(tensordict.get(key)) for key in self.in_keys], -1)

    def _as_features(self, value: torch.Tensor | TensorSpec) -> torch.Tensor | TensorSpec:
        return value if value.ndim > self._batch_dims else value.unsqueeze(-1)

    def _replace(self, tensordict: TensorDict, value: torch.Tensor) -> None:
        for key in self._gone:
            del tensordict[key]
        self._set(tensordict, self.out_key, value)


class DoubleToFloat(ObservationTransform):
    """Let the policy see float32 where the environment has float64: observations, reward and action.

    Observations in float16 become float32 as well. Simulators need it for those alone, since their float64 numbers
    become float32 at the border; environments written in torch may.

    Args:
        in_keys: which observations; None takes every one in float64 or float16.

    Raises:
        SpecError: when wrapping: an observation in ``in_keys`` is neither.
    """

    def __init__(self, in_keys: Sequence[Key] | None = None) -> None:
        super().__init__(() if in_keys is None else in_keys)
        self._takes_all = in_keys is None

    @staticmethod
    def takes(leaf: TensorSpec) -> bool:
        """Say whether an observation is of floats that are no float32."""
        return leaf.dtype in (torch.float64, torch.float16)

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Find what is in float64 or float16."""
        leaves = dict(env.observation_spec.leaves())
        if self._takes_all:
            self.in_keys = tuple(key for key, leaf in leaves.items() if self.takes(leaf))
        super().read_specs(env)
        for key in self.in_keys:
            if not self.takes(leaves[key]):
                expected = f"float64 or float16 in {key!r}"
                raise SpecError(explain("DoubleToFloat", expected=expected, got=leaves[key].dtype))
        self._has_double_reward = _is_double(env.reward_spec)
        self._action_below = env.action_spec
        self._has_double_action = self.action_spec(env.action_spec) != env.action_spec

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the value in float32."""
        return value.float()

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        """Return the spec in float32."""
        return mapped_spec(leaf, self.forward)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Convert observations and reward."""
        super().step(next_, root)
        if self._has_double_reward:
            put(next_, "reward", next_.get("reward").float())

    def inverse(self, inputs: TensorDict) -> None:
        """Give the environment its float64 action."""
        if self._has_double_action:
            put(inputs, "action", _doubled(action_of(inputs), self._action_below))

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the reward's spec in float32."""
        return self.transform_spec(spec) if _is_double(spec) else spec

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        """Return the action's spec in float32; bounds between two float32 numbers are rounded inwards."""
        if isinstance(spec, Composite):
            return Composite({key: self.action_spec(part) for key, part in spec.items()}, spec.shape)
        if not _is_double(spec):
            return spec
        if not isinstance(spec, Bounded):
            return self.transform_spec(spec)
        low, high = (_rounded(bound, towards) for bound, towards in ((spec.low, torch.inf), (spec.high, -torch.inf)))
        return Bounded(low, high, spec.shape, torch.float32, spec.device)


def _require_stackable(batch_dims: int, leaves: dict[Key, TensorSpec]) -> None:
    forms = {(leaf.shape[:-1] if leaf.ndim > batch_dims else leaf.shape, leaf.dtype) for leaf in leaves.values()}
    if len(forms) > 1:
        got = ", ".join(f"{key!r} of {list(leaf.shape)} {leaf.dtype}" for key, leaf in leaves.items())
        expected = "observations of one dtype that differ in nothing but the last dimension"
        hint = "Name those that go together: in_keys=[...]."
        raise SpecError(explain("CatTensors", expected=expected, got=got, hint=hint))


def _rounded(bound: torch.Tensor, towards: float) -> torch.Tensor:
    """Convert a float64 bound to the nearest float32 that is not beyond it."""
    near = bound.float()
    is_beyond = near.double() < bound if towards > 0 else near.double() > bound
    return torch.where(is_beyond, torch.nextafter(near, torch.full_like(near, towards)), near)


def _doubled(action: torch.Tensor | TensorDictBase, spec: TensorSpec) -> torch.Tensor | TensorDictBase:
    """Convert what is float64 below, at any level; in a container of ours."""
    if not isinstance(spec, Composite):
        return action.double() if _is_double(spec) else action
    action = action.copy()
    for key, part in spec.items():
        value = action.get(key, None)
        if value is not None:  # a missing one is the environment's to refuse
            put(action, key, _doubled(value, part))
    return action


def _is_double(leaf: TensorSpec) -> bool:
    return leaf.dtype == torch.float64
