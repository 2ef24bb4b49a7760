"""The layout of a batch: shape, dtype and device of each entry, and a sentence on how two layouts differ."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase

from torchrl.keys import Key, key_name

Form = tuple[tuple[int, ...], torch.dtype, torch.device | None]


def layout_of(tensordict: TensorDictBase, *, batch_dims: int = 0) -> dict[Key, Form]:
    """Return shape, dtype and device of each leaf by its key, without the first ``batch_dims`` dimensions.

    >>> layout_of(TensorDict({"reward": torch.zeros(8, 1)}, [8]), batch_dims=1)
    {'reward': (torch.Size([1]), torch.float32, device(type='cpu'))}
    """
    leaves = tensordict.items(include_nested=True, leaves_only=True)
    return {key: (leaf.shape[batch_dims:], leaf.dtype, leaf.device) for key, leaf in leaves}


def describe_differences(came: Mapping[Key, Form], due: Mapping[Key, Form]) -> str:
    """Return a sentence on how a layout differs from the expected one; an empty text where they are equal.

    >>> due = {"reward": ((1,), torch.float32, None)}
    >>> describe_differences({"reward": ((), torch.float32, None), "done": ((1,), torch.bool, None)}, due)
    "'done' is new; 'reward' is [] torch.float32 instead of [1] torch.float32"
    """
    differences = [f"{key_name(key)!r} is new" for key in came.keys() - due.keys()]
    differences += [f"{key_name(key)!r} is missing" for key in due.keys() - came.keys()]
    differences += [
        f"{key_name(key)!r} is {_describe(*came[key])} instead of {_describe(*due[key])}"
        for key in came.keys() & due.keys()
        if came[key] != due[key]
    ]
    return "; ".join(sorted(differences))


def _describe(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | None) -> str:
    return f"{list(shape)} {dtype}" + (f" on {device}" if device is not None else "")
