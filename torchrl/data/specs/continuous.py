"""Specs of numbers: between bounds, or of any size."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch

from torchrl.data.specs.base import LeafSpec, Shape, entry, first_true, nan_mismatch, require_cast
from torchrl.errors import SpecError, explain
from torchrl.shapes import as_size

BoundLike = float | np.ndarray | torch.Tensor


class Unbounded(LeafSpec):
    """Describe numbers of any size. The spec contains infinities; no spec contains NaN.

    >>> Unbounded([2]).contains(torch.tensor([1e30, float("inf")]))
    True

    Args:
        shape: full shape of the tensor, batch dimensions included.
        dtype: floating, integer or bool.
        device: where it lives.
    """

    def __init__(
        self, shape: Shape = (), dtype: torch.dtype = torch.float32, device: torch.device | str | int | None = None
    ) -> None:
        super().__init__(shape, dtype, device)

    def _draw(self, shape: Shape, generator: torch.Generator | None) -> torch.Tensor:
        """Draw from the standard normal distribution; integers uniformly from their whole range."""
        if self.dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
        low, end = (0, 2) if self.dtype == torch.bool else _half_open(self.dtype)
        return torch.randint(low, end, shape, generator=generator, device=self.device).to(self.dtype)

    def _require_dtype(self, dtype: torch.dtype) -> None:
        require_cast("Unbounded.to", self.dtype, dtype)

    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        return nan_mismatch(value)

    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        if self.dtype.is_floating_point or self.dtype == torch.bool:
            return value.clone()
        limits = torch.iinfo(self.dtype)
        return value.clamp(limits.min, limits.max)


class Bounded(LeafSpec):
    """Describe numbers between ``low`` and ``high``, both included. A side may be infinite.

    >>> Bounded(-1.0, 1.0, [2]).project(torch.tensor([-3.0, 0.5]))
    tensor([-1.0000,  0.5000])

    Args:
        low: smallest value, broadcastable to ``shape``.
        high: largest value, broadcastable to ``shape``.
        shape: full shape of the tensor, batch dimensions included; that of the bounds if None.
        dtype: floating or integer.
        device: where it lives.

    Raises:
        SpecError: the bounds cross, hold NaN, do not fit ``shape``, or cannot be written in ``dtype``.
    """

    def __init__(
        self,
        low: BoundLike,
        high: BoundLike,
        shape: Shape | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | int | None = None,
    ) -> None:
        if dtype == torch.bool:
            hint = "Write Categorical(2, shape, dtype=torch.bool)."
            raise SpecError(explain("Bounded", expected="a floating or integer dtype", got="bool", hint=hint))
        low, high = (_as_bound(side, bound, dtype) for side, bound in (("low", low), ("high", high)))
        try:
            common = torch.broadcast_shapes(low.shape, high.shape)
            shape = common if shape is None else as_size("Bounded", shape)
            torch.zeros(()).expand(common).expand(shape)
        except RuntimeError as error:
            got = f"low {list(low.shape)}, high {list(high.shape)}"
            wanted = "bounds of shapes that go together" if shape is None else f"bounds that broadcast to {list(shape)}"
            raise SpecError(explain("Bounded", expected=wanted, got=got)) from error
        crossed = first_true(~(low <= high))  # true for NaN as well
        if crossed is not None:
            got = f"low {entry(low.expand(common), crossed)}, high {entry(high.expand(common), crossed)}"
            raise SpecError(explain("Bounded", expected="low <= high everywhere, and no NaN", got=got))
        super().__init__(shape, dtype, device, bounds={"low": low, "high": high})

    @property
    def low(self) -> torch.Tensor:
        """Smallest allowed values, ``[*shape]``; a view that must not be written to."""
        return self._bound("low")

    @property
    def high(self) -> torch.Tensor:
        """Largest allowed values, ``[*shape]``; a view that must not be written to."""
        return self._bound("high")

    def _draw(self, shape: Shape, generator: torch.Generator | None) -> torch.Tensor:
        """Draw uniformly between two finite bounds, with an exponential distance from a single one, else normally."""
        low, high = self.bounds["low"], self.bounds["high"]
        if self.dtype.is_floating_point:
            drawn = _rand_float(shape, low, high, generator)
        else:
            share = torch.rand(shape, generator=generator, dtype=torch.float64, device=self.device)
            start = low.to(torch.float64)
            drawn = (start + (share * (high.to(torch.float64) - start + 1)).floor()).to(self.dtype)
        return torch.clamp(drawn, low, high)

    def zero(self, batch: Shape = ()) -> torch.Tensor:
        """Return zeros where zero is allowed and the nearest bound elsewhere, ``[*batch, *shape]``."""
        return self._clamp(super().zero(batch))

    def _require_dtype(self, dtype: torch.dtype) -> None:
        require_cast("Bounded.to", self.dtype, dtype)

    def _with_dtype(self, dtype: torch.dtype) -> Self:
        self._require_dtype(dtype)
        return type(self)(self.bounds["low"], self.bounds["high"], self.shape, dtype, self.device)

    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        bad = first_true(~((value >= self.bounds["low"]) & (value <= self.bounds["high"])))
        if bad is None:
            return None
        expected = f"values from {self.low[bad].item()} to {self.high[bad].item()}"
        return nan_mismatch(value) or (expected, entry(value, bad), "Use project() to clip on purpose.")

    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        return torch.clamp(value, self.bounds["low"], self.bounds["high"])

    def _describe(self) -> list[str]:
        return [f"{name}={bound.tolist() if bound.ndim == 0 else '[...]'}" for name, bound in self.bounds.items()]


def _rand_float(shape: Shape, low: torch.Tensor, high: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    def draw(sample: str) -> torch.Tensor:
        return getattr(torch.empty(shape, dtype=low.dtype, device=low.device), sample)(generator=generator)

    share = draw("uniform_")
    has_low, has_high = low.isfinite(), high.isfinite()
    inside = low * (1 - share) + high * share  # high - low may overflow
    if bool((has_low & has_high).all()):
        return inside
    away = draw("exponential_")
    one_sided = torch.where(has_low, low + away, high - away)
    return torch.where(has_low & has_high, inside, torch.where(has_low | has_high, one_sided, draw("normal_")))


def _as_bound(side: str, bound: BoundLike, dtype: torch.dtype) -> torch.Tensor:
    """Convert a bound to a tensor of ``dtype``; refuse a value that would change."""
    given = bound.detach().clone() if isinstance(bound, torch.Tensor) else torch.tensor(np.asarray(bound))
    cast = given.to(dtype)
    if not dtype.is_floating_point and not bool((cast.to(given.dtype) == given).all()):
        raise SpecError(explain("Bounded", expected=f"{side} in whole numbers that fit {dtype}", got=given.tolist()))
    return cast


def _half_open(dtype: torch.dtype) -> tuple[int, int]:
    limits = torch.iinfo(dtype)
    return limits.min, min(limits.max + 1, torch.iinfo(torch.int64).max)
