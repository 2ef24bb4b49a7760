"""One leaf of a TensorDict or a spec: found by key, set, and described after a function. Shared by the transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Composite, TensorSpec, Unbounded
from torchrl.errors import KeyMissing, explain, nearest
from torchrl.unchecked import put

Key = str | tuple[str, ...]


def require_leaves(who: str, spec: Composite, keys: Sequence[Key]) -> tuple[Key, ...]:
    """Return ``keys`` in their plain form, or refuse one that is no observation.

    Raises:
        KeyMissing: naming the keys there are.
    """
    known = {as_path(key): key for key, _ in spec.leaves()}
    for key in keys:
        if as_path(key) not in known:
            near = nearest("/".join(as_path(key)), names := {"/".join(path): key for path, key in known.items()})
            raise KeyMissing(
                explain(
                    who,
                    expected=f"an environment with the observation {key!r}",
                    got=f"one with the observations {list(known.values())}",
                    hint=f"Did you mean {names[near]!r}?" if near else "",
                )
            )
    return tuple(known[as_path(key)] for key in keys)


def as_path(key: Key) -> tuple[str, ...]:
    """Write a key as the tuple of the levels it goes through."""
    return (key,) if isinstance(key, str) else tuple(key)


def set_leaf(tensordict: TensorDict, key: Key, value: torch.Tensor) -> None:
    """Set one entry, at any depth, without checks; the levels above it exist."""
    if not isinstance(key, str):
        *above, key = key
        for level in above:
            tensordict = tensordict.get(level)
    put(tensordict, key, value)


def mapped_spec(leaf: TensorSpec, apply: Callable[[torch.Tensor], torch.Tensor]) -> TensorSpec:
    """Describe ``apply(value)`` for every value of a numeric leaf.

    Args:
        leaf: describes the values.
        apply: monotone in each element, and keeps the shape.
    """
    if isinstance(leaf, Bounded):
        ends = apply(leaf.low), apply(leaf.high)
        return Bounded(torch.minimum(*ends), torch.maximum(*ends), leaf.shape, ends[0].dtype, leaf.device)
    return Unbounded(leaf.shape, apply(leaf.zero()).dtype, leaf.device)
