"""Shapes as arguments, the check that tensors have one shape, and the expansion of a tensor to the right."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torchrl.errors import SpecError, explain


def as_size(who: str, shape: Sequence[int]) -> torch.Size:
    """Return a shape as a ``torch.Size``, and refuse a number alone: ``(3)`` is 3, and ``(3,)`` is a shape.

    Raises:
        SpecError: it is no sequence of whole numbers.
    """
    try:
        return torch.Size(shape)
    except TypeError as error:
        hint = f"Write [{shape}] for one dimension of this size." if isinstance(shape, int) else ""
        expected = "a shape, a sequence of whole numbers"
        raise SpecError(explain(who, expected=expected, got=repr(shape), hint=hint)) from error


def require_same_shape(who: str, **tensors: torch.Tensor) -> None:
    """Refuse tensors whose shapes differ, before broadcasting turns ``[N]`` against ``[N, 1]`` into ``[N, N]``.

    Raises:
        SpecError: naming every argument with its shape.
    """
    shapes = [tensor.shape for tensor in tensors.values()]
    if any(shape != shapes[0] for shape in shapes[1:]):
        got = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise SpecError(
            explain(
                who,
                expected="arguments of one shape",
                got=got,
                hint="Add or remove the trailing dimension; nothing is broadcast.",
            )
        )


def expand_right(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Expand ``tensor`` to the shape of ``like`` by new dimensions on its right; a surplus last dimension 1 is dropped.

    Args:
        tensor: ``[*B]`` or ``[*B, 1]``.
        like: ``[*B, ...]``.

    Raises:
        SpecError: the dimensions of ``tensor`` are not the first ones of ``like``.
    """
    shape = tensor.shape
    while tensor.ndim > like.ndim and tensor.shape[-1] == 1:
        tensor = tensor.squeeze(-1)
    while tensor.ndim < like.ndim:
        tensor = tensor.unsqueeze(-1)
    try:
        return tensor.expand(like.shape)
    except RuntimeError as error:
        raise SpecError(
            explain("expand_right", expected=f"leading dimensions of {list(like.shape)}", got=list(shape))
        ) from error
