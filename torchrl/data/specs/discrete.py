"""Specs of choices written as indices, and of entries that are 0 or 1. One-hot vectors have their own file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from torchrl.data.specs.base import LeafSpec, Shape, dtype_name, entry, first_true, nan_mismatch
from torchrl.data.specs.masks import draw_allowed, require_mask
from torchrl.errors import SpecError, explain
from torchrl.shapes import as_size


class Categorical(LeafSpec):
    """Describe choices by their index, ``0`` to ``n - 1``. Never one-hot.

    The mask of :meth:`rand` is ``[*batch, *shape, n]``, true where a choice is allowed; bool, or 0 and 1 of any dtype.

    >>> Categorical(3).rand(mask=torch.tensor([False, True, False]))
    tensor(1)

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
        self._require_dtype(dtype)
        super().__init__(shape, dtype, device)

    def _draw(self, shape: Shape, generator: torch.Generator | None) -> torch.Tensor:
        """Draw every index with equal probability."""
        return torch.randint(self.n, shape, generator=generator, device=self.device).to(self.dtype)

    def _draw_masked(self, batch: Shape, generator: torch.Generator | None, mask: Any) -> torch.Tensor:
        """Draw every allowed index with equal probability."""
        mask = require_mask("Categorical.rand", mask, (*batch, *self.shape, self.n), self.device)
        return draw_allowed("Categorical.rand", mask, generator=generator).to(self.dtype)

    def _same_values(self, other: LeafSpec) -> bool:
        return self.n == other.n

    def _require_dtype(self, dtype: torch.dtype) -> None:
        _require_index_dtype("Categorical", self.n, dtype)

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


class MultiCategorical(LeafSpec):
    """Describe several choices at once by their indices: entry i is one of ``0`` to ``nvec[i] - 1``.

    The mask of :meth:`rand` is true where a choice is allowed, bool or 0 and 1 of any dtype, with the choices of all
    entries one after the other: ``[*batch, *shape[:-1], sum(nvec)]``. A mask with fewer dimensions takes more of
    ``shape``'s last dimensions as entries, in row-major order. All rows must have the same ``nvec``.

    >>> MultiCategorical([3, 2]).contains(torch.tensor([2, 2]))
    False

    Args:
        nvec: numbers of choices, broadcastable to ``shape``; ``[3, 2]`` are two entries of three and two choices.
        shape: full shape of the tensor, batch dimensions included; that of ``nvec`` if None.
        dtype: an integer dtype, or bool if no number exceeds 2.
        device: where it lives.

    Raises:
        SpecError: a number is not positive or not whole, ``nvec`` does not fit ``shape``, or ``dtype`` cannot hold
            the indices.
    """

    def __init__(
        self,
        nvec: Sequence[int] | np.ndarray | torch.Tensor,
        shape: Shape | None = None,
        dtype: torch.dtype = torch.int64,
        device: torch.device | str | int | None = None,
    ) -> None:
        numbers = nvec.detach().clone() if isinstance(nvec, torch.Tensor) else torch.tensor(np.asarray(nvec))
        if numbers.dtype.is_floating_point or numbers.dtype == torch.bool or not bool((numbers >= 1).all()):
            raise SpecError(explain("MultiCategorical", expected="whole numbers >= 1", got=numbers.tolist()))
        shape = numbers.shape if shape is None else as_size("MultiCategorical", shape)
        try:
            torch.zeros(()).expand(numbers.shape).expand(shape)
        except RuntimeError as error:
            expected = f"an nvec that broadcasts to {list(shape)}"
            got = f"nvec of shape {list(numbers.shape)}"
            raise SpecError(explain("MultiCategorical", expected=expected, got=got)) from error
        super().__init__(shape, dtype, device, bounds={"nvec": numbers.to(torch.int64)})
        self._require_dtype(dtype)

    @property
    def nvec(self) -> torch.Tensor:
        """Number of choices of each entry, ``[*shape]`` int64; a view that must not be written to."""
        return self._bound("nvec")

    def _draw(self, shape: Shape, generator: torch.Generator | None) -> torch.Tensor:
        """Draw every index with equal probability."""
        share = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.device)
        return (share * self.bounds["nvec"]).long().to(self.dtype)

    def _draw_masked(self, batch: Shape, generator: torch.Generator | None, mask: Any) -> torch.Tensor:
        """Draw every allowed index with equal probability."""
        if not self.shape.numel():
            return self._draw((*batch, *self.shape), generator)
        who, num = "MultiCategorical.rand", self.ndim
        num_rows = getattr(mask, "ndim", 0) - 1 - len(batch)
        if not 0 <= num_rows <= num:
            num_rows = max(num - 1, 0)  # what is usual, for the message
        row = self._row(num_rows)
        if row is None:
            hint = "Draw row by row, or have a mask with fewer dimensions, so that more of them are entries."
            raise SpecError(explain(who, expected="the same nvec in every row", got=self.nvec.tolist(), hint=hint))
        mask = require_mask(who, mask, (*batch, *self.shape[:num_rows], sum(row)), self.device)
        parts = enumerate(mask.split(row, -1))
        drawn = [draw_allowed(who, part, generator=generator, of_entry=at) for at, part in parts]
        return torch.stack(drawn, -1).reshape((*batch, *self.shape)).to(self.dtype)

    def _row(self, num_rows: int) -> list[int] | None:
        """Return ``nvec`` of one row, where the first ``num_rows`` dimensions count rows; None if rows differ."""
        rows = self.nvec.reshape(-1, self.shape[num_rows:].numel())
        return rows[0].tolist() if bool((rows == rows[0]).all()) else None

    def _require_dtype(self, dtype: torch.dtype) -> None:
        nvec = self.bounds["nvec"]
        _require_index_dtype("MultiCategorical", int(nvec.max()) if nvec.numel() else 1, dtype)

    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        bad = first_true((value < 0) | (value >= self.bounds["nvec"]))
        if bad is None:
            return None
        expected = f"an index from 0 to {self.nvec[bad].item() - 1}"
        return expected, entry(value, bad), "The choices are counted from 0."

    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        nvec = self.bounds["nvec"]
        if value.dtype == torch.bool:
            return value & (nvec > 1)
        return torch.minimum(value.clamp(min=0), nvec - 1)

    def _shape_hint(self, value: torch.Tensor) -> str:
        row = self._row(self.ndim - 1) if self.ndim and self.shape.numel() else None
        if row is not None and value.shape == (*self.shape[:-1], sum(row)):
            return "This looks one-hot; one index per entry is expected: the .argmax(-1) of each group."
        return super()._shape_hint(value)

    def _describe(self) -> list[str]:
        row = self._row(self.ndim - 1) if self.ndim and self.shape.numel() else None
        return [f"nvec={self.nvec.tolist() if not self.ndim else '[...]' if row is None else row}"]


class Binary(LeafSpec):
    """Describe entries that are 0 or 1, each on its own.

    >>> Binary([2]).project(torch.tensor([-3, 1], dtype=torch.int8))
    tensor([0, 1], dtype=torch.int8)

    Args:
        shape: full shape of the tensor, batch dimensions included.
        dtype: bool, an integer or a floating dtype.
        device: where it lives.

    Raises:
        SpecError: a complex dtype.
    """

    def __init__(
        self, shape: Shape = (), dtype: torch.dtype = torch.int8, device: torch.device | str | int | None = None
    ) -> None:
        require_real("Binary", dtype)
        super().__init__(shape, dtype, device)

    def _draw(self, shape: Shape, generator: torch.Generator | None) -> torch.Tensor:
        """Draw 0 and 1 with equal probability."""
        return torch.randint(2, shape, generator=generator, device=self.device).to(self.dtype)

    def _require_dtype(self, dtype: torch.dtype) -> None:
        require_real("Binary", dtype)

    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        return binary_mismatch(value)

    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        nearest = (value > 0.5).to(value.dtype)  # a tie goes to 0
        return torch.where(value.isnan(), value, nearest) if value.dtype.is_floating_point else nearest


def binary_mismatch(value: torch.Tensor) -> tuple[str, str, str] | None:
    """Return (expected, got, hint) for a message if an entry is neither 0 nor 1, else None."""
    bad = first_true((value != 0) & (value != 1))
    if bad is None:
        return None
    return nan_mismatch(value) or ("0 or 1", entry(value, bad), "Use project() to round on purpose.")


def require_real(who: str, dtype: torch.dtype) -> None:
    """Refuse a complex dtype.

    Raises:
        SpecError: naming ``who``.
    """
    if dtype.is_complex:
        raise SpecError(explain(who, expected="bool, an integer or a floating dtype", got=dtype_name(dtype)))


def _require_index_dtype(who: str, n: int, dtype: torch.dtype) -> None:
    if dtype.is_floating_point or dtype.is_complex:
        largest = -1
    else:
        largest = 1 if dtype == torch.bool else torch.iinfo(dtype).max
    if largest < n - 1:
        hint = "Indices are int64 unless you ask for another integer."
        expected = f"an integer dtype that holds 0 to {n - 1}"
        raise SpecError(explain(who, expected=expected, got=f"dtype {dtype}", hint=hint))
