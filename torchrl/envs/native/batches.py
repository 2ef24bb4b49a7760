"""Turn the ``num_envs`` argument of the native envs into their batch size."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch

from torchrl.errors import ConfigError, explain


def batch_shape(num_envs: int | Sequence[int] | None) -> torch.Size:
    """Return the batch size for ``num_envs``: ``[num_envs]`` for a number, itself for a list, ``[]`` for None.

    Raises:
        ConfigError: one of the numbers is no positive integer.
    """
    if num_envs is None:
        return torch.Size()
    numbers = num_envs if isinstance(num_envs, Sequence) else (num_envs,)
    if any(isinstance(number, bool) or not isinstance(number, Integral) or number < 1 for number in numbers):
        raise ConfigError(explain("num_envs", expected="positive integers, or None", got=repr(num_envs)))
    return torch.Size(numbers)
