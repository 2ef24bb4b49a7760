"""Find numbers in plain attributes of users' transforms, to warn if they change: only buffers are saved."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from gymnasium.wrappers.utils import RunningMeanStd
from torch import nn

OF_MODULES = frozenset(vars(nn.Module()))


def plain_numbers(module: nn.Module, *, skip: frozenset[str]) -> dict[str, str]:
    """Return, by name, the plain attributes of a user's transform that hold numbers, each as text.

    Return nothing for a class of this package, or one that saves its attributes itself by ``get_extra_state``.

    Args:
        module: a user's transform.
        skip: names of attributes of the base class.
    """
    kind = type(module)
    if kind.__module__.startswith("torchrl.") or kind.get_extra_state is not nn.Module.get_extra_state:
        return {}
    plain = {name: _numbers_in(value) for name, value in vars(module).items() if name not in skip | OF_MODULES}
    return {name: repr(value) for name, value in plain.items() if value is not None}


def _numbers_in(value: object) -> object:
    """Convert numbers, arrays and tensors, also inside lists and dicts, to Python numbers; None for everything else."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple, deque)):
        return [_numbers_in(item) for item in value]
    if isinstance(value, (dict, RunningMeanStd)):
        items = value if isinstance(value, dict) else vars(value)
        return {name: _numbers_in(item) for name, item in items.items()}
    return value if isinstance(value, (int, float)) else None
