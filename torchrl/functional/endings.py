"""What ``terminated`` and ``truncated`` mean for values and traces; no other module combines the two flags.

================  ==========  =========  ====  =====================  =================
event             terminated  truncated  done  bootstrap from next    λ-trace goes on
================  ==========  =========  ====  =====================  =================
ordinary step     0           0          0     yes                    yes
task over         1           0          1     no                     no
time limit        0           1          1     yes                    no
both              1           1          1     no                     no
edge of a batch   0           0          0     yes                    ends with the data
================  ==========  =========  ====  =====================  =================

A time limit says nothing about the world, so the value of the true successor still counts: Pardo et al., "Time Limits
in Reinforcement Learning" (2018), https://arxiv.org/abs/1712.00378, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl.errors import SpecError, explain
from torchrl.shapes import require_same_shape


def is_done(terminated: Tensor, truncated: Tensor) -> Tensor:
    """Tell where an episode ended, by termination or by truncation.

    >>> terminated, truncated = torch.tensor([[False], [True], [False]]), torch.tensor([[False], [False], [True]])
    >>> is_done(terminated, truncated).squeeze(-1).tolist()
    [False, True, True]

    Args:
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]`` (any shape).
        truncated: the episode was cut on entering t+1, bool, same shape.

    Returns:
        bool, same shape.
    """
    _require_flags("is_done", terminated=terminated, truncated=truncated)
    return terminated | truncated


def bootstraps(terminated: Tensor) -> Tensor:
    """Tell where a target includes the value of the next state: everywhere but where the task was over.

    >>> bootstraps(torch.tensor([[False], [True]])).squeeze(-1).tolist()
    [True, False]

    Args:
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]`` (any shape).

    Returns:
        bool, same shape.
    """
    _require_flags("bootstraps", terminated=terminated)
    return ~terminated


def trace_goes_on(terminated: Tensor, truncated: Tensor) -> Tensor:
    """Tell where a λ-trace may run on into the next step: everywhere but at an ending.

    >>> terminated, truncated = torch.tensor([[False], [True], [False]]), torch.tensor([[False], [False], [True]])
    >>> trace_goes_on(terminated, truncated).squeeze(-1).tolist()
    [True, False, False]

    Args:
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]`` (any shape).
        truncated: the episode was cut on entering t+1, bool, same shape.

    Returns:
        bool, same shape.
    """
    return ~is_done(terminated, truncated)


def next_step_follows(
    terminated: Tensor, truncated: Tensor, *, is_init: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Tell at which steps the entry at t+1 is the true successor: not at an ending, a reset, a masked step or the edge.

    >>> terminated, truncated = torch.tensor([[False], [True], [False]]), torch.zeros(3, 1, dtype=torch.bool)
    >>> next_step_follows(terminated, truncated).squeeze(-1).tolist()  # an ending, and the edge
    [True, False, False]

    A user may reset in mid-episode: no flag is set then, but ``is_init`` is.

    Args:
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool, same shape.
        is_init: step t is the first of an episode, bool, same shape.
        mask: step t is valid, bool, same shape.

    Returns:
        bool ``[*B, T, 1]``.
    """
    follows = trace_goes_on(terminated, truncated)
    if is_init is not None:
        _require_flags("next_step_follows", flags=follows, is_init=is_init)
        follows[..., :-1, :] &= ~is_init[..., 1:, :]
    if mask is not None:
        _require_flags("next_step_follows", flags=follows, mask=mask)
        follows &= mask
        follows[..., :-1, :] &= mask[..., 1:, :]
    follows[..., -1:, :] = False
    return follows


def _require_flags(who: str, **flags: Tensor) -> None:
    """Refuse flags of different shapes, and flags that are not bool: ``~`` and ``|`` compute bits on numbers."""
    require_same_shape(who, **flags)
    for name, flag in flags.items():
        if flag.dtype is not torch.bool:
            raise SpecError(explain(who, expected=f"{name} of dtype torch.bool", got=flag.dtype))
