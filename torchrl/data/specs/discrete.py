"""One of ``n`` choices, written as its index."""

from __future__ import annotations

import copy
from typing import Self

import torch

from torchrl.data.specs.base import LeafSpec, Shape, entry, first_true
from torchrl.errors import SpecError, explain


class Categorical(LeafSpec):
    """Describe choices by their index, ``0`` to ``n - 1``. Never one-hot.

    Args:
        n: number of choices.
        shape: full shape of the tensor, batch dimensions included; ``()`` is a single choice.
        dtype: an integer dtype, or bool if ``n`` is 2.
        device: where it lives.

    Raises:
        SpecError: ``n`` is not positive, or ``dtype`` cannot hold the indices.
    """

    def __init__(
        self,
        n: int,
        shape: Shape = (),
        dtype: torch.dtype = torch.int64,
        device: torch.device | str | int | None = None,
    ) -> None:
        if n < 1:
            raise SpecError(explain("Categorical", expected="n >= 1", got=n))
        self.n = int(n)
        _require_index_dtype(self.n, dtype)
        super().__init__(shape, dtype, device)

    def rand(self, batch: Shape = (), *, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw every index with equal probability."""
        drawn = torch.randint(self.n, (*batch, *self.shape), generator=generator, device=self.device)
        return drawn.to(self.dtype)

    def zero(self, batch: Shape = ()) -> torch.Tensor:
        """Return the first choice everywhere, ``[*batch, *shape]``."""
        return torch.zeros((*batch, *self.shape), dtype=self.dtype, device=self.device)

    def _same_values(self, other: LeafSpec) -> bool:
        return self.n == other.n

    def _with_dtype(self, dtype: torch.dtype) -> Self:
        _require_index_dtype(self.n, dtype)
        new = copy.copy(self)
        new.dtype = dtype
        return new

    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        bad = first_true((value < 0) | (value >= self.n))
        if bad is None:
            return None
        return f"an index from 0 to {self.n - 1}", entry(value, bad), "The choices are counted from 0."

    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        if value.dtype == torch.bool:
            return value & (self.n > 1)
        return value.clamp(0, self.n - 1)

    def _shape_hint(self, value: torch.Tensor) -> str:
        if value.shape == (*self.shape, self.n):
            return "This looks one-hot; the index is expected: .argmax(-1)."
        return super()._shape_hint(value)

    def _describe(self) -> list[str]:
        return [f"n={self.n}"]


def _require_index_dtype(n: int, dtype: torch.dtype) -> None:
    if dtype.is_floating_point or dtype.is_complex:
        largest = -1
    else:
        largest = 1 if dtype == torch.bool else torch.iinfo(dtype).max
    if largest < n - 1:
        hint = "Indices are int64 unless you ask for another integer."
        expected = f"an integer dtype that holds 0 to {n - 1}"
        raise SpecError(explain("Categorical", expected=expected, got=f"dtype {dtype}", hint=hint))
