"""The only module that touches tensordict's unchecked fast paths.

In a loop that builds thousands of small containers a second, tensordict's checks cost more than the work (a checked
``set`` takes 0.6 to 1.3 µs, an unchecked one 0.1). Callers vouch for shapes and devices; whoever hands data to a user
checks once.
"""

from __future__ import annotations

from operator import attrgetter

import torch
from tensordict import TensorDict, TensorDictBase


def new_tensordict(source: dict, batch_size: torch.Size) -> TensorDict:
    """Wrap a dict of tensors (or TensorDicts) with string keys; the dict becomes the container's own."""
    return TensorDict._new_unsafe(source, batch_size=batch_size)


def put(tensordict: TensorDictBase, key: str, value: torch.Tensor | TensorDictBase) -> None:
    """Set one entry without comparing its shape or device with the container's."""
    tensordict._set_str(key, value, validated=True, inplace=False, non_blocking=False)


class Row:
    """One step of a pre-allocated batch: views to copy transitions into that have exactly its layout.

    ``TensorDict.update_`` plans anew at each call which leaf goes where, drops keys that it does not know, broadcasts
    and casts. This plans once, and compares keys, shapes and dtypes on the way, which costs a tenth of the copy.

    Args:
        views: the step, ``[*B]``; every leaf is written through.
        like: another row of the same batch, whose plan serves here too.
    """

    __slots__ = ("views", "_leaves", "_plan", "_forms")

    def __init__(self, views: TensorDict, like: Row | None = None) -> None:
        self.views = views
        self._plan = _plan_of(views) if like is None else like._plan
        self._leaves: list[torch.Tensor] = []
        _gather(views, self._plan, self._leaves)
        self._forms = list(map(_form_of, self._leaves)) if like is None else like._forms

    def update_(self, transition: TensorDict) -> bool:
        """Copy a transition if it has the row's keys, shapes and dtypes; else answer False and copy nothing."""
        values: list[torch.Tensor] = []
        try:
            is_whole = _gather(transition, self._plan, values)
        except (KeyError, AttributeError):  # a key is missing, or a level is none
            return False
        if not is_whole or list(map(_form_of, values)) != self._forms:
            return False
        torch._foreach_copy_(self._leaves, values)
        return True


_form_of = attrgetter("dtype", "shape")


def _plan_of(tensordict: TensorDict) -> tuple[list[str], list[tuple[str, tuple]]]:
    """Keys of the leaves of a level, and of the levels below it with their own plans."""
    entries = tensordict._tensordict
    below = {key: value for key, value in entries.items() if isinstance(value, TensorDict)}
    return [key for key in entries if key not in below], [(key, _plan_of(value)) for key, value in below.items()]


def _gather(tensordict: TensorDict, plan: tuple, values: list[torch.Tensor]) -> bool:
    """Add the leaves to ``values``; answer whether there is nothing beside them."""
    keys, below = plan
    entries = tensordict._tensordict
    values.extend([entries[key] for key in keys])
    is_whole = len(entries) == len(keys) + len(below)
    for key, inner in below:
        is_whole &= _gather(entries[key], inner, values)
    return is_whole


def shallow(tensordict: TensorDict) -> TensorDict:
    """Return a new container over the same tensors; entries set in one do not appear in the other."""
    return TensorDict._new_unsafe(dict(tensordict._tensordict), batch_size=tensordict.batch_size)
