"""The hot loop, and the checks that let it run unchecked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.envs.base import Env
from torchrl.errors import SpecError, explain
from torchrl.unchecked import Row, new_tensordict

CONTIGUOUS = torch.contiguous_format


def collect(env: Env, policy: Callable, root: TensorDict, rows: Sequence[Row]) -> TensorDict:
    """Fill one pre-allocated rollout, row by row; return the root to continue from.

    Args:
        env: the environment, ``[*B]``.
        policy: maps a root to the same root with ``action``.
        root: the root to start from, ``[*B]``.
        rows: the steps of a ``[*B, T]`` TensorDict with the layout of a transition. Nothing is checked here: see
            :func:`require_same_layout`.
    """
    for row in rows:
        transition, next_root = env.step_and_reset(policy(root))
        row.update_(transition)
        root = next_root
    return root


def allocate(transition: TensorDictBase, num_steps: int) -> tuple[TensorDict, list[Row]]:
    """Make a zeroed ``[*B, T]`` TensorDict with the layout of a ``[*B]`` transition, and its rows.

    In memory time comes first, so that each row is one block and cheap to write; :func:`contiguous_copy` hands the
    batch out in the usual order.
    """
    batch_size = transition.batch_size
    dims = len(batch_size)
    batch = transition.apply(
        lambda leaf: leaf.new_zeros((num_steps, *batch_size, *leaf.shape[dims:])).movedim(0, dims),
        batch_size=(*batch_size, num_steps),
    )
    return batch, [Row(views) for views in batch.unbind(dims)]


def contiguous_copy(batch: TensorDict) -> TensorDict:
    """Copy a batch whose memory is written again, contiguous whatever the order of the original."""
    entries = {
        key: contiguous_copy(value) if isinstance(value, TensorDict) else value.clone(memory_format=CONTIGUOUS)
        for key, value in batch.items()
    }
    return new_tensordict(entries, batch.batch_size)


def require_same_layout(transition: TensorDictBase, row: TensorDictBase) -> None:
    """Refuse a transition whose keys, shapes, dtypes or devices are not those of the row it would be copied into.

    ``update_`` does not look at unknown keys, truncates floats into integers and broadcasts shapes.

    Raises:
        SpecError: naming each difference.
    """
    came, due = _layout(transition), _layout(row)
    if came == due:
        return
    differences = [f"{_name(key)} is new" for key in came.keys() - due.keys()]
    differences += [f"{_name(key)} is missing" for key in due.keys() - came.keys()]
    differences += [
        f"{_name(key)} is {_describe(came[key])} instead of {_describe(due[key])}"
        for key in came.keys() & due.keys()
        if came[key] != due[key]
    ]
    raise SpecError(
        explain(
            "Collector",
            expected="every transition with the keys, shapes, dtypes and devices of the first one",
            got="; ".join(sorted(differences)),
            hint="Write the same entries at every step; state that goes under 'next' goes into the root, too.",
        )
    )


def _layout(tensordict: TensorDictBase) -> dict:
    leaves = tensordict.items(include_nested=True, leaves_only=True)
    return {key: (value.shape, value.dtype, value.device) for key, value in leaves}


def _name(key: str | tuple) -> str:
    return repr(key if isinstance(key, str) else "/".join(key))


def _describe(layout: tuple[torch.Size, torch.dtype, torch.device]) -> str:
    shape, dtype, device = layout
    return f"{list(shape)} {dtype} on {device}"
