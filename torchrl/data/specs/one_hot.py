"""Specs of choices written as vectors with a single 1, one vector or several joined. Indices have their own file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torchrl.data.specs.base import LeafSpec, Shape, ShapeOp, first_true, probe
from torchrl.data.specs.discrete import Binary, binary_mismatch, require_real
from torchrl.data.specs.masks import draw_allowed, require_mask
from torchrl.errors import SpecError, explain
from torchrl.shapes import as_size


class MultiOneHot(LeafSpec):
    """Describe several choices at once, each as a one-hot vector, one after the other on the last dimension.

    A shape operation that keeps the last dimension whole gives the same kind of spec. One that cuts, merges or reorders
    it (``reshape(-1)`` of ``[8, 5]``, ``[..., :3]``) gives a :class:`Binary`, since its results need not have one 1 per
    group any more. It is not refused, because a ``Composite`` applies an operation to all of its leaves.

    The mask of :meth:`rand` is ``[*batch, *shape]``, true where a choice is allowed; bool, or 0 and 1 of any dtype.

    >>> MultiOneHot([3, 2]).zero()
    tensor([1, 0, 0, 1, 0])

    Args:
        nvec: number of choices of each group.
        shape: full shape of the tensor, batch dimensions included; its last dimension is ``sum(nvec)``. Only that one
            if None.
        dtype: bool, an integer or a floating dtype.
        device: where it lives.

    Raises:
        SpecError: a group has no choices, or ``shape`` does not end with ``sum(nvec)``.
    """

    def __init__(
        self,
        nvec: Sequence[int],
        shape: Shape | None = None,
        dtype: torch.dtype = torch.int64,
        device: torch.device | str | int | None = None,
    ) -> None:
        who = type(self).__name__
        self.nvec = tuple(int(n) for n in nvec)
        if not self.nvec or min(self.nvec) < 1:
            raise SpecError(explain(who, expected="numbers of choices >= 1", got=list(nvec)))
        require_real(who, dtype)
        width = sum(self.nvec)
        shape = as_size("OneHot", (width,) if shape is None else shape)
        if shape[-1:] != (width,):
            hint = f"The shape is the whole one: [*B, {width}]."
            raise SpecError(explain(who, expected=f"a shape that ends with {width}", got=list(shape), hint=hint))
        super().__init__(shape, dtype, device)

    def _draw(self, shape: Shape, generator: torch.Generator | None) -> torch.Tensor:
        """Draw every choice of each group with equal probability."""
        drawn = [torch.randint(n, shape[:-1], generator=generator, device=self.device) for n in self.nvec]
        return self._one_hot(drawn, self.dtype)

    def _draw_masked(self, batch: Shape, generator: torch.Generator | None, mask: Any) -> torch.Tensor:
        """Draw every allowed choice of each group with equal probability."""
        who = f"{type(self).__name__}.rand"
        mask = require_mask(who, mask, (*batch, *self.shape), self.device)
        entries = [None] if len(self.nvec) == 1 else range(len(self.nvec))
        parts = zip(entries, mask.split(self.nvec, -1), strict=True)
        drawn = [draw_allowed(who, part, generator=generator, of_entry=entry) for entry, part in parts]
        return self._one_hot(drawn, self.dtype)

    def zero(self, batch: Shape = ()) -> torch.Tensor:
        """Return one-hot vectors of the first choice of every group, ``[*batch, *shape]``."""
        first = torch.zeros((*batch, *self.shape[:-1]), dtype=torch.int64, device=self.device)
        return self._one_hot([first] * len(self.nvec), self.dtype)

    # Inside.

    def _one_hot(self, indices: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        pairs = zip(indices, self.nvec, strict=True)
        return torch.cat(
            [index.unsqueeze(-1) == torch.arange(n, device=index.device) for index, n in pairs], dim=-1
        ).to(dtype)

    def apply(self, op: ShapeOp) -> LeafSpec:
        if self._stays_whole(op):
            return super().apply(op)
        return Binary(op(probe(self.shape, self.device)).shape, self.dtype, self.device)

    def _stays_whole(self, op: ShapeOp) -> bool:
        """Answer whether ``op`` keeps the last dimension whole and in order, by trying it on index numbers."""
        width = self.shape[-1]
        device = "cpu" if self.device.type == "meta" else self.device  # positions must be looked at
        moved = op(torch.arange(self.shape.numel(), device=device).reshape(self.shape))
        if moved.shape[-1:] != (width,):
            return False
        starts = moved[..., :1]
        in_order = moved == starts + torch.arange(width, device=device)
        return bool(in_order.all()) and bool((starts % width == 0).all())

    def _same_values(self, other: MultiOneHot) -> bool:
        return self.nvec == other.nvec

    def _require_dtype(self, dtype: torch.dtype) -> None:
        require_real(f"{type(self).__name__}.to", dtype)

    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        found = binary_mismatch(value)
        parts = value.split(self.nvec, -1) if found is None else ()
        for group, part in enumerate(parts):
            num_ones = part.count_nonzero(-1)
            bad = first_true(num_ones != 1)
            if bad is not None:
                where = f" in row {list(bad)}" if bad else ""
                where += f", group {group}" if len(self.nvec) > 1 else ""
                expected = f"a single 1 among {part.shape[-1]} choices"
                return expected, f"{num_ones[bad].item()} ones{where}", "project() keeps the first of the largest."
        return found

    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        numbers = value.to(torch.uint8) if value.dtype == torch.bool else value
        largest = [part.argmax(-1) for part in numbers.split(self.nvec, -1)]  # the first of equal ones
        nearest = self._one_hot(largest, value.dtype)
        return torch.where(value.isnan(), value, nearest) if value.dtype.is_floating_point else nearest

    def _shape_hint(self, value: torch.Tensor) -> str:
        if value.shape == (*self.shape[:-1], len(self.nvec)):
            return "This looks like one index per group; one-hot groups are expected, joined on the last dimension."
        return super()._shape_hint(value)

    def _describe(self) -> list[str]:
        return [f"nvec={list(self.nvec)}"]


class OneHot(MultiOneHot):
    """Describe one of ``n`` choices as a vector of zeros with a single 1.

    This is a :class:`MultiOneHot` with one group: a shape operation that cuts its last dimension gives a
    :class:`Binary`.

    >>> OneHot(3).contains(torch.tensor([0, 1, 1]))
    False

    Args:
        n: number of choices.
        shape: full shape of the tensor, batch dimensions included; its last dimension is ``n``. Only that one if None.
        dtype: bool, an integer or a floating dtype.
        device: where it lives.

    Raises:
        SpecError: ``n`` is not positive, or ``shape`` does not end with it.
    """

    def __init__(
        self,
        n: int,
        shape: Shape | None = None,
        dtype: torch.dtype = torch.int64,
        device: torch.device | str | int | None = None,
    ) -> None:
        super().__init__([n], shape, dtype, device)

    @property
    def n(self) -> int:
        """Number of choices."""
        return self.nvec[0]

    def _shape_hint(self, value: torch.Tensor) -> str:
        if value.shape == self.shape[:-1]:
            return f"This looks like an index; a one-hot vector is expected: one_hot(index, {self.n})."
        return super()._shape_hint(value)

    def _describe(self) -> list[str]:
        return [f"n={self.n}"]
