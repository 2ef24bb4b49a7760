"""Transforms that rename observations, leave them out, or join them into one. No value changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl.data.specs import Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.leaves import (
    drop_keys,
    is_below,
    leaves_at,
    levels_to_delete,
    require_free,
    require_leaves,
)
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key, as_key, as_path, key_list
from torchrl.unchecked import put


class _KeyTransform(Transform):
    """Base of transforms that change which keys observations have; this class deletes keys.

    A subclass sets ``_gone`` when wrapping: the keys to delete, of leaves or nested levels.
    """

    _gone: tuple[Key, ...]

    def edit(self, tensordict: TensorDict) -> None:
        """Delete the keys of one TensorDict, in place."""
        for key in self._gone:
            del tensordict[key]

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Edit the outcome and the next root by :meth:`edit`."""
        self.edit(next_)
        self.edit(root)

    def reset(self, root: TensorDict, mask: Tensor | None) -> None:
        """Edit the root by :meth:`edit`."""
        self.edit(root)

    def observation_spec(self, spec: Composite) -> Composite:
        return drop_keys(spec, self._gone)

    def action_mask_key(self, key: Key | None) -> Key | None:
        """Return the mask's key; None if the transform removes the mask, so that all actions count as legal above."""
        return None if key is None or is_below(key, self._gone) else key


class Exclude(_KeyTransform):
    """Remove observations by key, and nested levels that become empty.

    If the mask of legal actions is removed, random actions may be illegal.

    >>> chain = Compose(StepCounter(), LastAction(), Exclude(["observation"]))
    >>> list(TransformedEnv(env, chain).observation_spec.keys())
    ['step_count', 'last_action']

    Args:
        keys: of the observations, each a key or a tuple of keys; the key of a nested level removes all below it.

    Raises:
        ConfigError: ``keys`` is empty.
        KeyMissing: when wrapping: there is no such observation.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        super().__init__()
        who = type(self).__name__
        if not keys:
            raise ConfigError(explain(who, expected="a list of at least one key", got=repr(keys)))
        self.keys = tuple(key_list(who, keys))

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations to remove."""
        super().read_specs(env)
        spec = env.observation_spec
        self._gone = levels_to_delete(spec, self.to_leave_out(spec, leaves_at(type(self).__name__, spec, self.keys)))

    def to_leave_out(self, spec: Composite, named: Sequence[Key]) -> Sequence[Key]:
        """Return the observations to remove, given those in ``keys``."""
        return named


class Select(Exclude):
    """Keep only the observations in ``keys``, and remove all others; the opposite of :class:`Exclude`.

    >>> chain = Compose(StepCounter(), LastAction(), Select(["observation"]))
    >>> list(TransformedEnv(env, chain).observation_spec.keys())
    ['observation']

    Args:
        keys: of the observations to keep, each a key or a tuple of keys; that of a nested level keeps all below it.
    """

    def to_leave_out(self, spec: Composite, named: Sequence[Key]) -> Sequence[Key]:
        return [key for key, _ in spec.leaves() if key not in named]


class Rename(_KeyTransform):
    """Rename observations: ``Rename({"pixels": "observation", ("body", "left"): ("arms", "left")})``.

    All are renamed at the same time, so keys can be swapped. Nested levels that become empty are removed.

    >>> list(TransformedEnv(env, Rename({"observation": "state"})).observation_spec.keys())
    ['state']

    Args:
        new_keys: from old to new key, each a key or a tuple of keys; a nested level moves with all below it.

    Raises:
        ConfigError: ``new_keys`` is empty; when wrapping: a new key is used already, by an observation that stays,
            another new key, or the environment (``reward`` and the like).
        KeyMissing: when wrapping: there is no such observation.
    """

    def __init__(self, new_keys: Mapping[Key, Key]) -> None:
        super().__init__()
        if not isinstance(new_keys, Mapping) or not new_keys:
            expected = "at least one pair {old key: new key}"
            raise ConfigError(explain("Rename", expected=expected, got=repr(new_keys)))
        self.new_keys = dict(new_keys)

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations, and check that their new keys are free."""
        super().read_specs(env)
        spec = env.observation_spec
        moves = [move for old, new in self.new_keys.items() for move in _moves(spec, old, new)]
        self._moves = dict(moves)
        if len(self._moves) < len(moves):
            expected = "each observation under one of the old keys"
            raise ConfigError(explain("Rename", expected=expected, got=list(self.new_keys)))
        self._gone = levels_to_delete(spec, list(self._moves))
        taken = drop_keys(spec, self._gone)
        for old, new in self._moves.items():
            require_free("Rename", taken, new)
            taken.set(new, spec[old])

    def edit(self, tensordict: TensorDict) -> None:
        """Rename the entries of one TensorDict, in place."""
        values = [tensordict.get(old) for old in self._moves]
        super().edit(tensordict)
        for new, value in zip(self._moves.values(), values, strict=True):
            if isinstance(new, str):
                put(tensordict, new, value)
            else:
                tensordict.set(new, value)  # makes the levels it lacks

    def action_mask_key(self, key: Key | None) -> Key | None:
        return None if key is None else self._moves.get(as_key(as_path(key)), key)

    def observation_spec(self, spec: Composite) -> Composite:
        renamed = super().observation_spec(spec)
        for old, new in self._moves.items():
            renamed.set(new, spec[old])
        return renamed


def _moves(spec: Composite, old: Key, new: Key) -> list[tuple[Key, Key]]:
    """List (old key, new key) of every leaf at or below ``old``."""
    depth = len(as_path(old))
    return [(leaf, as_key((*as_path(new), *as_path(leaf)[depth:]))) for leaf in leaves_at("Rename", spec, [old])]


class CatTensors(_KeyTransform):
    """Concatenate several observations into one along their last dimension; a scalar counts as one feature.

    Where they differ in more than the last dimension, as ``[*B, 8, 2]`` and ``[*B, 8]`` do, each is laid out as a
    vector first, ``[*B, 16]`` and ``[*B, 8]``.

    >>> TransformedEnv(env, Compose(LastReward(), CatTensors())).observation_spec["observation"].shape  # [2, 4], [2, 1]
    torch.Size([2, 5])

    Args:
        in_keys: which observations, in the order of the result; None takes all, in the order of the spec.
        out_key: the key of the result.
        delete: whether to remove the joined observations, and nested levels that become empty.

    Raises:
        KeyMissing: when wrapping: there is no such observation.
        SpecError: when wrapping: their dtypes differ.
        ConfigError: an observation that stays, or the environment (``reward`` and the like), uses ``out_key`` already.
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

    def read_specs(self, env: EnvSpecs) -> None:
        """Find the observations and check that they can be joined."""
        super().read_specs(env)
        spec = env.observation_spec
        keys = [key for key, _ in spec.leaves()] if self.in_keys is None else self.in_keys
        self.in_keys = require_leaves("CatTensors", spec, keys)
        self._batch_dims = len(env.batch_size)
        self._gone = levels_to_delete(spec, self.in_keys) if self.delete else ()
        leaves = {key: spec[key] for key in self.in_keys}
        _require_one_dtype(leaves)
        self._is_flattened = len({leaf.shape[self._batch_dims :][:-1] for leaf in leaves.values()}) > 1
        require_free("CatTensors, out_key", drop_keys(spec, self._gone), self.out_key)

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Concatenate the observations of the outcome, and put the result into the outcome and the next root."""
        value = self._join(next_)
        self._replace(next_, value)
        self._replace(root, value)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Concatenate the observations of every row of the root."""
        self._replace(root, self._join(root))

    def observation_spec(self, spec: Composite) -> Composite:
        leaves = [self._as_features(spec[key]) for key in self.in_keys]
        if all(isinstance(leaf, Bounded) for leaf in leaves):
            low, high = (torch.cat([getattr(leaf, side) for leaf in leaves], -1) for side in ("low", "high"))
            joined: TensorSpec = Bounded(low, high, dtype=leaves[0].dtype, device=leaves[0].device)
        else:
            shape = (*leaves[0].shape[:-1], sum(leaf.shape[-1] for leaf in leaves))
            joined = Unbounded(shape, leaves[0].dtype, leaves[0].device)
        return super().observation_spec(spec).set(self.out_key, joined)

    def _join(self, tensordict: TensorDict) -> torch.Tensor:
        return torch.cat([self._as_features(tensordict.get(key)) for key in self.in_keys], -1)

    def _as_features(self, value: torch.Tensor | TensorSpec) -> torch.Tensor | TensorSpec:
        if value.ndim == self._batch_dims:
            return value.unsqueeze(-1)
        if not self._is_flattened:
            return value
        return value.reshape(*value.shape[: self._batch_dims], value.shape[self._batch_dims :].numel())

    def _replace(self, tensordict: TensorDict, value: torch.Tensor) -> None:
        self.edit(tensordict)
        self._set(tensordict, self.out_key, value)


def _require_one_dtype(leaves: dict[Key, TensorSpec]) -> None:
    if len({leaf.dtype for leaf in leaves.values()}) > 1:
        got = ", ".join(f"{key!r} of {list(leaf.shape)} {leaf.dtype}" for key, leaf in leaves.items())
        hint = "Name those that go together: in_keys=[...]."
        raise SpecError(explain("CatTensors", expected="observations of one dtype", got=got, hint=hint))
