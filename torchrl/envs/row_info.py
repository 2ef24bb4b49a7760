"""What a caller sets for each row: what the policy reads and what the worlds are reset with. Not what they observe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.errors import SpecError, explain


def checked_info(
    name: str, info: TensorDictBase, before: TensorDict | None, *, batch_size: torch.Size, device: torch.device
) -> TensorDict:
    """Return a copy of what was set for each row, ``[*B]``, on a device.

    Args:
        name: names it in messages.
        info: tensors, ``[*B, ...]`` each.
        before: what was set last, whose keys, shapes and dtypes it must have; None at the first time.
        batch_size: ``[*B]``.
        device: where the environment's tensors live.

    Raises:
        SpecError: it is no TensorDict of tensors, or has another batch size or form.
    """
    who = f"set_info_, {name}"
    expected = f"a TensorDict of batch size {list(batch_size)}"
    if not isinstance(info, TensorDictBase):
        raise SpecError(explain(who, expected=expected, got=type(info).__name__))
    if info.batch_size != batch_size:
        hint = "Give one entry for each row: TensorDict({...}, batch_size=env.batch_size)."
        raise SpecError(explain(who, expected=expected, got=f"one of {list(info.batch_size)}", hint=hint))
    form = _form(who, info)
    if not form:
        raise SpecError(explain(who, expected="at least one tensor", got="none"))
    if before is not None and form != _form(who, before):
        hint = "Other values may follow, but not another form: it is that of recorded rows."
        raise SpecError(explain(who, expected=f"the form it had before, {_form(who, before)}", got=form, hint=hint))
    return info.detach().to_tensordict().to(device).clear_device_()


def options_of(env_info: TensorDict, batch_size: torch.Size) -> list[dict]:
    """Return the options of each row's resets: a Python scalar for a leaf ``[*B]``, a numpy array for others."""
    num = batch_size.numel()
    columns = {}
    for key, value in env_info.items():
        if isinstance(value, TensorDictBase):
            columns[key] = options_of(value, batch_size)
        else:
            column = value.cpu().numpy().reshape(num, *value.shape[len(batch_size) :])
            columns[key] = column.tolist() if column.ndim == 1 else list(column)
    return [{key: column[row] for key, column in columns.items()} for row in range(num)]


def own_copy(options: dict | None) -> dict | None:
    """Copy the options of one reset, which a world may keep and write to."""
    return None if options is None else {key: _own(value) for key, value in options.items()}


def put_info_(root: TensorDictBase, info: TensorDictBase) -> None:
    """Put what was set into a root, ``[*B]``; the tensors that were there stay as they are."""
    for path, leaf in _leaves("apply_info_", info, ()):
        root.set(path, leaf.clone())


def _own(value: Any) -> Any:
    if isinstance(value, dict):
        return own_copy(value)
    return value.copy() if isinstance(value, np.ndarray) else value


def _form(who: str, info: TensorDictBase) -> dict[str, tuple[list[int], torch.dtype]]:
    return {"/".join(path): (list(leaf.shape), leaf.dtype) for path, leaf in _leaves(who, info, ())}


def _leaves(who: str, info: TensorDictBase, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    for key, value in info.items():
        if isinstance(value, TensorDictBase):
            yield from _leaves(who, value, (*above, key))
        elif isinstance(value, torch.Tensor):
            yield (*above, key), value
        else:
            got = f"{type(value).__name__} under {key!r}"
            raise SpecError(explain(who, expected="tensors", got=got))
