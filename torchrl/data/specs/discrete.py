"""Choices written as indices, and entries that are 0 or 1. One-hot vectors have their own file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch

from torchrl.data.specs.base import LeafSpec, Shape, dtype_name, entry, first_true, nan_mismatch
from torchrl.data.specs.masks import checked_mask, draw_allowed
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
        _require_index_dtype("Categorical", self.n, dtype)
        super().__init__(shape, dtype, device)

    def rand(
        self, batch: Shape = (), *, generator: torch.Generator | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw every index with equal probability; with a mask, every allowed one.

        Args:
            batch: dimensions to put in front of ``shape``.
            generator: source of randomness, on the spec's device; torch's global one if None.
            mask: ``[*batch, *shape, n]``, true where a choice is allowed; bool, or 0 and 1 of any dtype.

        Raises:
            SpecError: the mask has another shape or other values, or a row of it allows nothing.
        """
        shape = (*batch, *self.shape)
        if mask is None:
            return torch.randint(self.n, shape, generator=generator, device=self.device).to(self.dtype)
        mask = checked_mask("Categorical.rand", mask, (*shape, self.n), self.device)
        return draw_allowed("Categorical.rand", mask, generator=generator).to(self.dtype)

    def zero(self, batch: Shape = ()) -> torch.Tensor:
        """Return the first choice everywhere, ``[*batch, *shape]``."""
        return torch.zeros((*batch, *self.shape), dtype=self.dtype, device=self.device)

    def _same_values(self, other: LeafSpec) -> bool:
        return self.n == other.n

    def _with_dtype(self, dtype: torch.dtype) -> Self:
        _require_index_dtype("Categorical", self.n, dtype)
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


class MultiCategorical(LeafSpec):
    """Describe several choices at once by their indices: entry i is one of ``0`` to ``nvec[i] - 1``.

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
        shape = numbers.shape if shape is None else torch.Size(shape)
        try:
            torch.zeros(()).expand(numbers.shape).expand(shape)
        except RuntimeError as error:
            expected = f"an nvec that broadcasts to {list(shape)}"
            got = f"nvec of shape {list(numbers.shape)}"
            raise SpecError(explain("MultiCategorical", expected=expected, got=got)) from error
        if numbers.numel():
            _require_index_dtype("MultiCategorical", int(numbers.max()), dtype)
        super().__init__(shape, dtype, device, bounds={"nvec": numbers.to(torch.int64)})

    @property
    def nvec(self) -> torch.Tensor:
        """Numbers of choices, ``[*shape]`` int64; a view that must not be written to."""
        return self._bound("nvec")

    def rand(
        self, batch: Shape = (), *, generator: torch.Generator | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw every index with equal probability; with a mask, every allowed one.

        Args:
            batch: dimensions to put in front of ``shape``.
            generator: source of randomness, on the spec's device; torch's global one if None.
            mask: true where a choice is allowed, bool or 0 and 1 of any dtype, the entries' choices in a row:
                ``[*batch, *shape[:-1], sum(nvec)]``. Its number of dimensions says how many of ``shape`` are rows;
                the rest are entries, in row-major order. All rows must have the same ``nvec``.

        Raises:
            SpecError: the mask has another shape or other values, or allows nothing for an entry of a row.
        """
        if mask is not None and self.shape.numel():
            return self._rand_allowed(batch, generator, mask)
        shape = (*batch, *self.shape)
        share = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.device)
        return (share * self._bounds["nvec"]).long().to(self.dtype)

    def _rand_allowed(self, batch: Shape, generator: torch.Generator | None, mask: Any) -> torch.Tensor:
        who, num = "MultiCategorical.rand", self.ndim
        num_rows = getattr(mask, "ndim", 0) - 1 - len(batch)
        if not 0 <= num_rows <= num:
            num_rows = max(num - 1, 0)  # what is usual, for the message
        row = self._row(num_rows)
        if row is None:
            hint = "Draw row by row, or have a mask with fewer dimensions, so that more of them are entries."
            raise SpecError(explain(who, expected="the same nvec in every row", got=self.nvec.tolist(), hint=hint))
        mask = checked_mask(who, mask, (*batch, *self.shape[:num_rows], sum(row)), self.device)
        parts = enumerate(mask.split(row, -1))
        drawn = [draw_allowed(who, part, generator=generator, of_entry=at) for at, part in parts]
        return torch.stack(drawn, -1).reshape((*batch, *self.shape)).to(self.dtype)

    def _row(self, num_rows: int) -> list[int] | None:
        """Return the ``nvec`` of a row, the first ``num_rows`` dimensions being rows; None if rows differ."""
        rows = self.nvec.reshape(-1, self.shape[num_rows:].numel())
        return rows[0].tolist() if bool((rows == rows[0]).all()) else None

    def zero(self, batch: Shape = ()) -> torch.Tensor:
        """Return the first choice everywhere, ``[*batch, *shape]``."""
        return torch.zeros((*batch, *self.shape), dtype=self.dtype, device=self.device)

    def _with_dtype(self, dtype: torch.dtype) -> Self:
        return type(self)(self._bounds["nvec"], self.shape, dtype, self.device)

    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        bad = first_true((value < 0) | (value >= self._bounds["nvec"]))
        if bad is None:
            return None
        expected = f"an index from 0 to {self.nvec[bad].item() - 1}"
        return expected, entry(value, bad), "The choices are counted from 0."

    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        nvec = self._bounds["nvec"]
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

    def rand(
        self, batch: Shape = (), *, generator: torch.Generator | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw 0 and 1 with equal probability, ``[*batch, *shape]``; a mask is refused."""
        self._refuse_mask(mask)
        return torch.randint(2, (*batch, *self.shape), generator=generator, device=self.device).to(self.dtype)

    def zero(self, batch: Shape = ()) -> torch.Tensor:
        """Return zeros, ``[*batch, *shape]``."""
        return torch.zeros((*batch, *self.shape), dtype=self.dtype, device=self.device)

    def _with_dtype(self, dtype: torch.dtype) -> Self:
        require_real("Binary", dtype)
        new = copy.copy(self)
        new.dtype = dtype
        return new

    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        return binary_mismatch(value)

    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        nearest = (value > 0.5).to(value.dtype)  # a tie goes to 0
        return torch.where(value.isnan(), value, nearest) if value.dtype.is_floating_point else nearest


def binary_mismatch(value: torch.Tensor) -> tuple[str, str, str] | None:
    """Return (expected, got, hint) if an entry is neither 0 nor 1."""
    bad = first_true((value != 0) & (value != 1))
    return bad and (nan_mismatch(value) or ("0 or 1", entry(value, bad), "Use project() to round on purpose."))


def require_real(who: str, dtype: torch.dtype) -> None:
    """Refuse complex dtypes.

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
