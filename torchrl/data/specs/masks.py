"""Check masks of allowed choices, and draw among the choices that a mask allows. Specs hold no masks."""

from __future__ import annotations

from typing import Any

import torch

from torchrl.data.specs.base import Shape, dtype_name, entry, first_true
from torchrl.errors import SpecError, explain


def require_mask(who: str, mask: Any, shape: Shape, device: torch.device) -> torch.Tensor:
    """Convert a mask to bool; refuse one of another shape than ``shape`` or on another kind of device.

    Raises:
        SpecError: naming ``who`` and the mask's shape or device; or it is no tensor, or has other numbers than 0 and 1.
    """
    expected = f"a bool mask of shape {list(shape)}, true = allowed"
    if not isinstance(mask, torch.Tensor):
        raise SpecError(explain(who, expected=expected, got=type(mask).__name__))
    if mask.shape != torch.Size(shape):
        raise SpecError(explain(who, expected=expected, got=f"shape {list(mask.shape)}"))
    if mask.device.type != device.type:
        raise SpecError(explain(who, expected=f"a mask on {device}", got=f"one on {mask.device}"))
    return as_bools(who, mask)


def as_bools(who: str, mask: torch.Tensor) -> torch.Tensor:
    """Convert a mask of zeros and ones, of any dtype, to bool; refuse other numbers.

    Inside ``torch.compile``, where code cannot depend on values, other numbers count as 0 instead.

    Raises:
        SpecError: an entry is neither 0 nor 1.
    """
    if mask.dtype is torch.bool:
        return mask
    allowed = mask == 1
    if not torch.compiler.is_compiling():
        bad = first_true(~allowed & (mask != 0))
        if bad is not None:
            hint = "Write it as a condition, such as mask > 0."
            expected = "a mask of bools, or of 0 and 1 in any dtype"
            raise SpecError(
                explain(who, expected=expected, got=f"{entry(mask, bad)}, {dtype_name(mask.dtype)}", hint=hint)
            )
    return allowed


def draw_allowed(
    who: str, mask: torch.Tensor, *, generator: torch.Generator | None = None, of_entry: int | None = None
) -> torch.Tensor:
    """Draw one allowed choice per row, each with equal probability.

    Args:
        who: the caller's name, for the message.
        mask: bool ``[*rows, n]``, true where a choice is allowed.
        generator: source of randomness, on the mask's device.
        of_entry: which of several entries the mask is for, for the message; None if there is one.

    Returns:
        The index of the choice, ``[*rows]`` int64.

    Raises:
        SpecError: a row allows nothing; the message names the row.
    """
    num_allowed = mask.sum(-1)
    stuck = first_true(num_allowed == 0)
    if stuck is not None:
        row = f"none in row {list(stuck)}" if stuck else "none"
        got = row if of_entry is None else f"{row} for entry {of_entry}"
        hint = "Where nothing is allowed, the episode should have ended."
        raise SpecError(explain(who, expected="a mask that allows something in every row", got=got, hint=hint))
    share = torch.rand(num_allowed.shape, generator=generator, dtype=torch.float64, device=mask.device)
    rank = (share * num_allowed).long()  # of the drawn choice among the allowed ones
    return (mask.cumsum(-1) <= rank.unsqueeze(-1)).sum(-1)
