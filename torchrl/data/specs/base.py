"""Base classes of specs: their interface and shape operations. Each subclass defines which values are allowed."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from tensordict import TensorDictBase

from torchrl.errors import SpecError, explain
from torchrl.shapes import as_size

Shape = Sequence[int]
ShapeOp = Callable[[torch.Tensor], torch.Tensor]


class TensorSpec(ABC):
    """Describe a tensor or a TensorDict: its shape, device and the values it may take.

    Every shape operation acts as on the described tensors: ``spec.op(...)`` contains ``value.op(...)`` for each value
    that ``spec`` contains. All operations are written here; a subclass only writes :meth:`apply`, which applies a
    function of tensors to the tensors that the spec holds, such as bounds.

    >>> env.observation_spec["observation"].expand(5, 2, 4)[0].shape
    torch.Size([2, 4])

    Attributes:
        shape: full shape, batch dimensions included.
        device: where the described tensors live; None if they live in several places or there are none.
    """

    device: torch.device | None

    def __init__(self, shape: Shape) -> None:
        self.shape = as_size(type(self).__name__, shape)

    # What a subclass provides.

    @abstractmethod
    def apply(self, op: ShapeOp) -> Self:
        """Return the spec of ``op(value)`` for a ``value`` of this spec; ``op`` only rearranges ``shape``'s dimensions.

        ``op`` is called with tensors that may have further dimensions behind those of ``shape``.
        """

    @abstractmethod
    def mismatch(self, value: Any, name: str) -> str | None:
        """Return an error message that says why ``value`` does not fit this spec; None if it fits."""

    @abstractmethod
    def rand(self, batch: Shape = (), *, generator: torch.Generator | None = None, mask: Any = None) -> Any:
        """Draw values that this spec contains, ``[*batch, *shape]``.

        Args:
            batch: dimensions to put in front of ``shape``.
            generator: source of randomness, on the spec's device; torch's global one if None.
            mask: which choices are allowed, true = allowed; only for specs of choices.

        Raises:
            SpecError: a mask for a spec without choices, or one of a wrong shape, or that allows nothing.
        """

    @abstractmethod
    def zero(self, batch: Shape = ()) -> Any:
        """Return the values nearest to zero that this spec contains, ``[*batch, *shape]``."""

    @abstractmethod
    def project(self, value: Any) -> Any:
        """Return the nearest value that this spec contains, as a new tensor or TensorDict.

        Only values and floating precision are changed. NaN stays NaN: hiding it would hide an error.

        Raises:
            SpecError: the shape differs, or the dtype is of another kind (a float for an integer).
        """

    @abstractmethod
    def to(self, dest: torch.device | torch.dtype | str | int) -> Self:
        """Return a copy of this spec for another device or dtype."""

    # Membership.

    def contains(self, value: Any) -> bool:
        """Answer whether ``value`` has this spec's shape, dtype and device and only allowed values."""
        return self.mismatch(value, "value") is None

    def assert_contains(self, value: Any, name: str = "value") -> None:
        """Raise an error if ``value`` does not fit this spec; ``name`` is for the message.

        Raises:
            SpecError: naming the key, what was expected, what was given, and what to do.
        """
        if (message := self.mismatch(value, name)) is not None:
            raise SpecError(message)

    @abstractmethod
    def assert_form(self, value: Any, name: str = "value") -> None:
        """Raise an error if ``value`` has other keys, shapes, dtypes or devices; its numbers are not checked.

        Raises:
            SpecError: as :meth:`assert_contains`.
        """

    # Shape operations.

    @property
    def ndim(self) -> int:
        """Number of dimensions of ``shape``."""
        return len(self.shape)

    def expand(self, *shape: int | Shape) -> Self:
        """Return this spec expanded as by ``Tensor.expand``: new dimensions in front, those of size 1 to any size."""
        new = _flat(shape)
        return self._move("expand", new, lambda x: x.expand((*new, *x.shape[self.ndim :])))

    def reshape(self, *shape: int | Shape) -> Self:
        """Return this spec reshaped as by ``Tensor.reshape``; one size may be -1."""
        sizes = _flat(shape)
        new = self._probe("reshape", sizes, lambda x: x.reshape(sizes)).shape
        return self.apply(lambda x: x.reshape((*new, *x.shape[self.ndim :])))

    def unsqueeze(self, dim: int) -> Self:
        """Return this spec with a new dimension of size 1 at ``dim``, which may be ``-ndim - 1`` to ``ndim``."""
        at = self._dim("unsqueeze", dim, self.ndim + 1)
        return self.apply(lambda x: x.unsqueeze(at))

    def squeeze(self, dim: int | None = None) -> Self:
        """Return this spec without ``dim`` if its size is 1; if ``dim`` is None, without all dimensions of size 1."""
        dims = range(self.ndim) if dim is None else [self._dim("squeeze", dim, self.ndim)]
        gone = tuple(at for at in dims if self.shape[at] == 1)
        return self.apply(lambda x: x.squeeze(gone))

    def permute(self, *dims: int | Shape) -> Self:
        """Return this spec with its dimensions in the order ``dims``, as by ``Tensor.permute``: each once."""
        order = _flat(dims)
        self._probe("permute", order, lambda x: x.permute(order))
        ahead = tuple(dim % self.ndim for dim in order)
        return self.apply(lambda x: x.permute((*ahead, *range(self.ndim, x.ndim))))

    def unbind(self, dim: int = 0) -> tuple[Self, ...]:
        """Return one spec per entry of ``dim``, without that dimension."""
        at = self._dim("unbind", dim, self.ndim)
        return tuple(self.apply(lambda x, i=i: x.select(at, i)) for i in range(self.shape[at]))

    def __getitem__(self, index: Any) -> Self:
        """Return this spec indexed as a tensor of ``shape``: integers, slices, None, ``...``, masks and indices."""
        full = _without_ellipsis(index, self.ndim)
        return self._move("index", index, lambda x: x[full])

    def __iter__(self) -> Any:
        raise TypeError(f"{type(self).__name__} is not iterable; use unbind(), or leaves() of a Composite")

    def clone(self) -> Self:
        """Return an independent copy."""
        return self.apply(lambda x: x)  # bounds are never written to, so leaves may share them

    # Inside.

    def _move(self, name: str, argument: Any, op: ShapeOp) -> Self:
        self._probe(name, argument, op)
        return self.apply(op)

    def _probe(self, name: str, argument: Any, op: ShapeOp) -> torch.Tensor:
        """Apply ``op`` to a tensor of this shape that takes no memory; turn torch's errors into a SpecError."""
        try:
            return op(probe(self.shape, self.device))
        except (RuntimeError, IndexError, TypeError) as error:
            expected = f"an argument that fits shape {list(self.shape)}"
            who = f"{type(self).__name__}.{name}"
            raise SpecError(explain(who, expected=expected, got=repr(argument), hint=f"torch says: {error}")) from error

    def _dim(self, name: str, dim: int, num: int) -> int:
        if not -num <= dim < num:
            expected = f"a dimension from {-num} to {num - 1} for shape {list(self.shape)}"
            raise SpecError(explain(f"{type(self).__name__}.{name}", expected=expected, got=dim))
        return dim % num


class LeafSpec(TensorSpec):
    """Base class of specs of a single tensor; a subclass defines which values are allowed.

    Bounds broadcast to ``shape``; a bound that is the same everywhere is stored as a tensor ``[]``.

    Args:
        shape: full shape of the tensor, batch dimensions included.
        dtype: its dtype.
        device: where it lives.
        bounds: tensors, by name, that shape operations must transform with the spec, such as ``low`` and ``high``.
    """

    def __init__(
        self,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device | str | int | None = None,
        *,
        bounds: dict[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__(shape)
        self.dtype = dtype
        self.device = torch.device("cpu" if device is None else device)
        self.bounds = {name: _compact(bound.to(self.device)) for name, bound in (bounds or {}).items()}

    def to(self, dest: torch.device | torch.dtype | str | int) -> Self:
        """Return a copy of this spec for another device, or for another dtype that can hold its values.

        Raises:
            SpecError: ``dest`` is a dtype of a narrower kind, such as an integer for a float.
        """
        if isinstance(dest, torch.dtype):
            return self._with_dtype(dest)
        new = copy.copy(self)
        new.device = torch.device(dest)
        new.bounds = {name: bound.to(new.device) for name, bound in self.bounds.items()}
        return new

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        same = (self.shape, self.dtype) == (other.shape, other.dtype) and _same_device(self.device, other.device)
        return same and self._same_values(other)

    def __repr__(self) -> str:
        parts = [*self._describe(), f"shape={list(self.shape)}", f"dtype={dtype_name(self.dtype)}"]
        if self.device.type != "cpu":
            parts.append(f"device={self.device}")
        return f"{type(self).__name__}({', '.join(parts)})"

    # What a leaf provides.

    @abstractmethod
    def _require_dtype(self, dtype: torch.dtype) -> None:
        """Refuse a dtype that cannot hold the values of this spec."""

    @abstractmethod
    def _draw(self, shape: Shape, generator: torch.Generator | None) -> torch.Tensor:
        """Draw allowed values of the full shape ``[*batch, *self.shape]``."""

    @abstractmethod
    def _value_mismatch(self, value: torch.Tensor) -> tuple[str, str, str] | None:
        """Return (expected, got, hint) for a message if ``value`` has an entry that is not allowed, else None.

        The shape and dtype of ``value`` fit already.
        """

    @abstractmethod
    def _clamp(self, value: torch.Tensor) -> torch.Tensor:
        """Return a new tensor with every entry moved to the nearest allowed one, still in ``value``'s dtype."""

    def _describe(self) -> list[str]:
        return []

    def _shape_hint(self, value: torch.Tensor) -> str:
        got, want = value.shape, self.shape
        if want[:-1] == got and want[-1:] == (1,):
            return "The last dimension is missing: .unsqueeze(-1)."
        if got[:-1] == want and got[-1:] == (1,):
            return "There is one dimension too many: .squeeze(-1)."
        if len(got) < len(want) and want[len(want) - len(got) :] == got:
            return f"The batch dimensions {list(want[: len(want) - len(got)])} are missing."
        if len(got) > len(want) and got[len(got) - len(want) :] == want:
            return f"The value has the extra batch dimensions {list(got[: len(got) - len(want)])}."
        return ""

    # Shared by all leaves.

    def rand(self, batch: Shape = (), *, generator: torch.Generator | None = None, mask: Any = None) -> torch.Tensor:
        if mask is None:
            return self._draw((*batch, *self.shape), generator)
        return self._draw_masked(batch, generator, mask)

    def _draw_masked(self, batch: Shape, generator: torch.Generator | None, mask: Any) -> torch.Tensor:
        hint = "Only choices can be masked: Categorical, OneHot, MultiCategorical, MultiOneHot."
        got = f"a {type(mask).__name__}"
        raise SpecError(explain(f"{type(self).__name__}.rand", expected="no mask", got=got, hint=hint))

    def zero(self, batch: Shape = ()) -> torch.Tensor:
        return torch.zeros((*batch, *self.shape), dtype=self.dtype, device=self.device)

    def _with_dtype(self, dtype: torch.dtype) -> Self:
        self._require_dtype(dtype)
        new = copy.copy(self)
        new.dtype = dtype
        return new

    def _same_values(self, other: LeafSpec) -> bool:
        return all(bool((self._bound(name) == other._bound(name)).all()) for name in self.bounds)

    def _bound(self, name: str) -> torch.Tensor:
        return self.bounds[name].expand(self.shape)

    def apply(self, op: ShapeOp) -> Self:
        new = copy.copy(self)
        new.shape = op(probe(self.shape, self.device)).shape
        new.bounds = {  # a bound of shape [] is the same everywhere and stays so
            name: bound if bound.ndim == 0 else op(bound.expand(self.shape)) for name, bound in self.bounds.items()
        }
        return new

    def mismatch(self, value: Any, name: str) -> str | None:
        found = self._form_mismatch(value) or self._value_mismatch(value)
        return found and explain(name, expected=found[0], got=found[1], hint=found[2])

    def assert_form(self, value: Any, name: str = "value") -> None:
        found = self._form_mismatch(value)
        if found is not None:
            raise SpecError(explain(name, expected=found[0], got=found[1], hint=found[2]))

    def _form_mismatch(self, value: Any) -> tuple[str, str, str] | None:
        if not isinstance(value, torch.Tensor):
            hint = "Name a leaf's key." if isinstance(value, TensorDictBase) else "Convert it with torch.as_tensor."
            return "a tensor", type(value).__name__, hint
        if value.shape != self.shape:
            return f"shape {list(self.shape)}", f"shape {list(value.shape)}", self._shape_hint(value)
        if value.dtype != self.dtype:
            return f"dtype {dtype_name(self.dtype)}", f"dtype {dtype_name(value.dtype)}", f"Cast it: .to({self.dtype})."
        if not _same_device(value.device, self.device):
            return f"device {self.device}", f"device {value.device}", f'Move it: .to("{self.device}").'
        return None

    def project(self, value: torch.Tensor) -> torch.Tensor:
        who = f"{type(self).__name__}.project"
        if value.shape != self.shape:
            got = f"shape {list(value.shape)}"
            raise SpecError(explain(who, expected=f"shape {list(self.shape)}", got=got, hint=self._shape_hint(value)))
        if value.dtype != self.dtype and not torch.can_cast(value.dtype, self.dtype):  # can_cast breaks a graph
            hint = "A value of another kind is a mistake that projecting would hide."
            raise SpecError(
                explain(who, expected=f"dtype {dtype_name(self.dtype)}", got=dtype_name(value.dtype), hint=hint)
            )
        wide = torch.promote_types(value.dtype, self.dtype)  # clamp first: a narrowing cast would wrap around
        return self._clamp(value.to(device=self.device, dtype=wide)).to(self.dtype)


def require_cast(who: str, source: torch.dtype, dest: torch.dtype) -> None:
    """Refuse a cast from ``source`` to a dtype of a narrower kind, ``dest``.

    Raises:
        SpecError: a float would become an integer or a bool, or an integer a bool.
    """
    if not torch.can_cast(source, dest):
        raise SpecError(explain(who, expected=f"a dtype that can hold {dtype_name(source)}", got=dtype_name(dest)))


def first_true(mask: torch.Tensor) -> tuple[int, ...] | None:
    """Return the index of the first true entry, or None if there is none."""
    return tuple(mask.nonzero()[0].tolist()) if bool(mask.any()) else None


def entry(value: torch.Tensor, index: tuple[int, ...]) -> str:
    """Return a text on one entry of a tensor: its value and its index."""
    return f"{value[index].item()} at {list(index)}" if index else f"{value.item()}"


def nan_mismatch(value: torch.Tensor) -> tuple[str, str, str] | None:
    """Return (expected, got, hint) for a message if an entry is NaN, else None."""
    nan = first_true(value.isnan()) if value.dtype.is_floating_point else None
    if nan is None:  # where there is no dimension it is the empty index, which is false
        return None
    return "numbers", f"NaN at {list(nan)}", "Find where it came from: NaN is in no spec."


def probe(shape: torch.Size, device: torch.device | None) -> torch.Tensor:
    """Return a tensor of ``shape`` that takes no memory, to try shape operations on."""
    return torch.zeros((), dtype=torch.bool, device=device).expand(shape)


def _compact(bound: torch.Tensor) -> torch.Tensor:
    if bound.numel() == 0:
        return bound
    first = bound.flatten()[0]
    return first.clone() if bool((bound == first).all()) else bound


def _same_device(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index == other.index or None in (one.index, other.index))


def dtype_name(dtype: torch.dtype) -> str:
    """Return the short name of a dtype, such as ``float32``, for messages."""
    return str(dtype).removeprefix("torch.")


def _flat(shape: tuple) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape


def _without_ellipsis(index: Any, ndim: int) -> Any:
    """Replace ``...`` in an index by full slices, so that the index covers exactly ``ndim`` dimensions."""
    parts = index if isinstance(index, tuple) else (index,)
    places = [at for at, part in enumerate(parts) if part is Ellipsis]
    if len(places) != 1:
        return index
    used = sum(_num_dims(part) for part in parts if part is not Ellipsis)
    return (*parts[: places[0]], *[slice(None)] * (ndim - used), *parts[places[0] + 1 :])


def _num_dims(part: Any) -> int:
    if part is None or isinstance(part, bool):
        return 0
    is_mask = getattr(part, "dtype", None) in (torch.bool, bool)
    return part.ndim if is_mask else 1
