"""Functions with which transforms find, check and set observations by their keys, and compute their specs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Composite, TensorSpec, Unbounded
from torchrl.envs.vector.building import RESERVED
from torchrl.errors import ConfigError, KeyMissing, explain, nearest
from torchrl.keys import Key, as_key, as_path, key_name
from torchrl.unchecked import put


def require_leaves(who: str, spec: Composite, keys: Sequence[Key]) -> tuple[Key, ...]:
    """Return ``keys`` in the spec's own form, a string or a tuple each; refuse a key that is no observation.

    Raises:
        KeyMissing: naming the keys there are.
    """
    known = {as_path(key): key for key, _ in spec.leaves()}
    for key in keys:
        if as_path(key) not in known:
            near = nearest(key_name(key), names := {key_name(path): key for path, key in known.items()})
            raise KeyMissing(
                explain(
                    who,
                    expected=f"an environment with the observation {key!r}",
                    got=f"one with the observations {list(known.values())}",
                    hint=f"Did you mean {names[near]!r}?" if near else "",
                )
            )
    return tuple(known[as_path(key)] for key in keys)


def leaves_at(who: str, spec: Composite, keys: Sequence[Key]) -> tuple[Key, ...]:
    """Return the keys of all observation leaves at or below ``keys``, each once.

    Raises:
        KeyMissing: naming the keys there are.
    """
    found = {}
    for key in keys:
        path = as_path(key)
        below = [leaf for leaf, _ in spec.leaves() if as_path(leaf)[: len(path)] == path]
        found.update(dict.fromkeys(below or require_leaves(who, spec, [key])))
    return tuple(found)


def require_free(who: str, spec: Composite, key: Key) -> None:
    """Refuse a key for a new observation that another observation or the environment uses already.

    Args:
        who: the transform.
        spec: the observations that stay.
        key: where the new one goes.

    Raises:
        ConfigError: naming the keys that are taken.
    """
    path = as_path(key)
    staying = [leaf for leaf, _ in spec.leaves()]
    if path[0] in RESERVED:
        expected = f"a key that covers no name of the environment, such as {list(RESERVED)}"
        raise ConfigError(explain(who, expected=expected, got=repr(key)))
    if any(_is_within(path, as_path(leaf)) or _is_within(as_path(leaf), path) for leaf in staying):
        expected = f"a key that covers no observation that stays, such as {staying}"
        raise ConfigError(explain(who, expected=expected, got=repr(key)))


def levels_to_delete(spec: Composite, keys: Sequence[Key]) -> tuple[Key, ...]:
    """Return the keys to delete in order to remove ``keys`` and all nested levels that become empty."""
    going = [as_path(key) for key in keys]
    staying = [as_path(key) for key, _ in spec.leaves() if as_path(key) not in going]

    def top_of(path: tuple[str, ...]) -> tuple[str, ...]:
        levels = (path[:depth] for depth in range(1, len(path) + 1))
        return next(level for level in levels if not any(_is_within(other, level) for other in staying))

    return tuple(dict.fromkeys(as_key(top_of(path)) for path in going))


def drop_keys(spec: Composite, keys: Sequence[Key]) -> Composite:
    """Return a copy of a spec without ``keys``, which may be leaves or nested levels."""
    spec = spec.clone()
    for key in keys:
        del spec[key]
    return spec


def is_below(key: Key, levels: Sequence[Key]) -> bool:
    """Answer whether ``key`` is one of ``levels`` or lies below one."""
    return any(_is_within(as_path(key), as_path(level)) for level in levels)


def set_leaf(tensordict: TensorDict, key: Key, value: torch.Tensor) -> None:
    """Set one entry of a TensorDict, at any depth, without checks (for speed); the levels above it must exist."""
    if not isinstance(key, str):
        *above, key = key
        for level in above:
            tensordict = tensordict.get(level)
    put(tensordict, key, value)


def is_number(leaf: TensorSpec) -> bool:
    """Answer whether an observation's spec describes numbers, not choices or flags."""
    return isinstance(leaf, (Bounded, Unbounded)) and leaf.dtype != torch.bool


def map_spec(
    leaf: TensorSpec,
    function: Callable[[torch.Tensor], torch.Tensor],
    limits: tuple[float, float] | None = None,
) -> TensorSpec:
    """Return the spec of a monotone function's results, given the spec of its inputs.

    Args:
        leaf: the spec of the inputs.
        function: monotone in each element.
        limits: the least and the largest result for inputs without bounds; None if results then have no bounds.
    """
    if isinstance(leaf, Bounded):
        ends = function(leaf.low), function(leaf.high)
        return Bounded(torch.minimum(*ends), torch.maximum(*ends), ends[0].shape, ends[0].dtype, leaf.device)
    zero = function(leaf.zero())
    if limits is None:
        return Unbounded(zero.shape, zero.dtype, leaf.device)
    return Bounded(*limits, zero.shape, zero.dtype, leaf.device)


def _is_within(path: tuple[str, ...], level: tuple[str, ...]) -> bool:
    return path[: len(level)] == level
