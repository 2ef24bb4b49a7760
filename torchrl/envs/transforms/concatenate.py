"""The transform that joins observations into one vector. No value changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs.base import Env
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.leaves import is_below, require_free, require_leaves, topmost_emptied, without
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key, key_list
from torchrl.unchecked import put


class CatTensors(Transform):
    """Concatenate observations along their last dimension; a scalar counts as one feature.

    >>> TransformedEnv(env, Compose(LastReward(), CatTensors())).observation_spec["observation"].shape  # [2, 4], [2, 1]
    torch.Size([2, 5])

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
        """Find the observations and check that they can be joined."""
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
        value = self._join(next_)
        self._replace(next_, value)
        self._replace(root, value)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Concatenate every row."""
        self._replace(root, self._join(root))

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec with the joined observation; bounded if all its parts are."""
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

    def _join(self, tensordict: TensorDict) -> torch.Tensor:
        return torch.cat([self._as_features(tensordict.get(key)) for key in self.in_keys], -1)

    def _as_features(self, value: torch.Tensor | TensorSpec) -> torch.Tensor | TensorSpec:
        return value if value.ndim > self._batch_dims else value.unsqueeze(-1)

    def _replace(self, tensordict: TensorDict, value: torch.Tensor) -> None:
        for key in self._gone:
            del tensordict[key]
        self._set(tensordict, self.out_key, value)


def _require_stackable(batch_dims: int, leaves: dict[Key, TensorSpec]) -> None:
    forms = {(leaf.shape[:-1] if leaf.ndim > batch_dims else leaf.shape, leaf.dtype) for leaf in leaves.values()}
    if len(forms) > 1:
        got = ", ".join(f"{key!r} of {list(leaf.shape)} {leaf.dtype}" for key, leaf in leaves.items())
        expected = "observations of one dtype that differ in nothing but the last dimension"
        hint = "Name those that go together: in_keys=[...]."
        raise SpecError(explain("CatTensors", expected=expected, got=got, hint=hint))
