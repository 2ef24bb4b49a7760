"""The spec of a TensorDict: a spec for each of its keys."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping
from typing import Any, Self

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs.base import LeafSpec, Shape, ShapeOp, TensorSpec, probe
from torchrl.errors import KeyMissing, SpecError, explain, nearest
from torchrl.keys import Key, key_name


class Composite(TensorSpec):
    """Describe a TensorDict: exactly these keys, and a batch size.

    >>> spec = Composite({"seen": env.observation_spec, "action": env.action_spec}, env.batch_size)
    >>> spec["seen", "observation"].shape, spec.rand()["action"].shape
    (torch.Size([2, 4]), torch.Size([2]))

    Args:
        specs: spec by key; a key may be a tuple, a spec may be another ``Composite`` or a plain mapping.
        shape: batch size; the shape of every entry starts with it.

    Raises:
        SpecError: an entry's shape does not start with ``shape``.
    """

    def __init__(self, specs: Mapping[Key, TensorSpec | Mapping] | None = None, shape: Shape = ()) -> None:
        super().__init__(shape)
        self._specs: dict[str, TensorSpec] = {}
        for key, spec in (specs or {}).items():
            self.set(key, spec)

    # A mapping.

    def keys(self) -> KeysView[str]:
        """Return the keys of this level."""
        return self._specs.keys()

    def items(self) -> ItemsView[str, TensorSpec]:
        """Return the keys and specs of this level."""
        return self._specs.items()

    def leaves(self) -> Iterator[tuple[Key, LeafSpec]]:
        """Yield every leaf of every level with its key: a string on this level, a tuple below."""
        for key, spec in self._specs.items():
            if isinstance(spec, Composite):
                for inner, leaf in spec.leaves():
                    yield (key, *_as_tuple(inner)), leaf
            else:
                yield key, spec

    def get(self, key: Key, default: Any = None) -> Any:
        """Return the spec of a key, or ``default``."""
        first, *rest = _as_tuple(key)
        spec = self._specs.get(first)
        if spec is None or not rest:
            return default if spec is None else spec
        return spec.get(tuple(rest), default) if isinstance(spec, Composite) else default

    def set(self, key: Key, spec: TensorSpec | Mapping) -> Self:
        """Set the spec of a key, creating the nested levels above it; return self.

        Raises:
            SpecError: the shape of ``spec`` does not start with this spec's, or the key leads through a leaf.
        """
        first, *rest = _as_tuple(key)
        if rest:
            level = self._specs.get(first)
            if level is None:
                level = Composite(shape=self.shape)
            elif not isinstance(level, Composite):
                raise SpecError(explain("Composite.set", expected=f'a level at "{first}"', got=level))
            level.set(tuple(rest), spec)
            self._specs[first] = level
            return self
        if isinstance(spec, Mapping):
            spec = Composite(spec, self.shape)
        if not isinstance(spec, TensorSpec):
            raise SpecError(explain("Composite.set", expected=f'a spec for "{first}"', got=type(spec).__name__))
        if spec.shape[: self.ndim] != self.shape:
            hint = "The shape of an entry includes the batch dimensions; expand() it."
            expected = f'a shape that starts with {list(self.shape)} for "{first}"'
            raise SpecError(explain("Composite.set", expected=expected, got=list(spec.shape), hint=hint))
        self._specs[first] = spec
        return self

    def __getitem__(self, index: Any) -> Any:
        """Return the spec of a key, or this spec with its batch dimensions indexed."""
        if not _is_key(index):
            return super().__getitem__(index)
        spec = self.get(index)
        if spec is None:
            raise self._missing(index)
        return spec

    def __setitem__(self, key: Key, spec: TensorSpec | Mapping) -> None:
        self.set(key, spec)

    def __delitem__(self, key: Key) -> None:
        if key not in self:
            raise self._missing(key)
        first, *rest = _as_tuple(key)
        if rest:
            del self._specs[first][tuple(rest)]
        else:
            del self._specs[first]

    def __contains__(self, key: Key) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return len(self._specs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Composite):
            return NotImplemented
        return self.shape == other.shape and self._specs == other._specs

    def __repr__(self) -> str:
        lines = [f"    {key}: {repr(spec)}".replace("\n", "\n    ") for key, spec in self._specs.items()]
        return "\n".join([f"Composite(shape={list(self.shape)}", *lines]) + ")"

    # A spec.

    @property
    def device(self) -> torch.device | None:
        """Where all described tensors live; None if they live in several places or there are none."""
        devices = {spec.device for spec in self._specs.values()}
        return devices.pop() if len(devices) == 1 else None

    def rand(
        self, batch: Shape = (), *, generator: torch.Generator | None = None, mask: TensorDictBase | None = None
    ) -> TensorDict:
        """Draw a TensorDict that this spec contains, batch size ``[*batch, *shape]``.

        Args:
            batch: dimensions to put in front of ``shape``.
            generator: source of randomness, on the spec's device; torch's global one if None.
            mask: a TensorDict with masks under the keys of this spec; keys that it lacks are drawn freely.

        Raises:
            KeyMissing: a mask for a key that this spec does not have.
            SpecError: ``mask`` is no TensorDict, or one of its masks does not fit.
        """
        masks = {} if mask is None else self._masks(mask)
        drawn = {key: spec.rand(batch, generator=generator, mask=masks.get(key)) for key, spec in self._specs.items()}
        return TensorDict(drawn, batch_size=[*batch, *self.shape])

    def zero(self, batch: Shape = ()) -> TensorDict:
        """Return the TensorDict nearest to zero that this spec contains, batch size ``[*batch, *shape]``."""
        return TensorDict({key: spec.zero(batch) for key, spec in self._specs.items()}, [*batch, *self.shape])

    def project(self, value: TensorDictBase) -> TensorDict:
        """Return a new TensorDict with every leaf projected; see :meth:`TensorSpec.project`.

        Raises:
            SpecError: keys, batch size, shapes or kinds differ.
        """
        message = self._form_mismatch(value, "Composite.project")
        if message is not None:
            raise SpecError(message)
        return TensorDict({key: spec.project(value.get(key)) for key, spec in self._specs.items()}, self.shape)

    def to(self, dest: torch.device | str | int) -> Self:
        """Return a copy of this spec for another device.

        Raises:
            SpecError: ``dest`` is a dtype, which a TensorDict has one of per leaf.
        """
        if isinstance(dest, torch.dtype):
            hint = 'Cast the leaf you mean: spec["key"] = spec["key"].to(dtype).'
            raise SpecError(explain("Composite.to", expected="a device", got=dest, hint=hint))
        return type(self)({key: spec.to(dest) for key, spec in self._specs.items()}, self.shape)

    def assert_form(self, value: Any, name: str = "value") -> None:
        found = self._form_mismatch(value, name)
        if found is not None:
            raise SpecError(found)
        for key, spec in self._specs.items():
            spec.assert_form(value.get(key), f"{name}.{key}")

    # Inside.

    def _masks(self, mask: Any) -> dict[str, Any]:
        if not isinstance(mask, TensorDictBase):
            expected = "a TensorDict with masks by key"
            raise SpecError(explain("Composite.rand", expected=expected, got=type(mask).__name__))
        masks = dict(mask.items())
        for key in masks:
            if key not in self:
                raise self._missing(key)
        return masks

    def apply(self, op: ShapeOp) -> Self:
        shape = op(probe(self.shape, self.device)).shape
        return type(self)({key: spec.apply(op) for key, spec in self._specs.items()}, shape)

    def mismatch(self, value: Any, name: str) -> str | None:
        found = self._form_mismatch(value, name)
        for key, spec in self._specs.items():
            found = found or spec.mismatch(value.get(key), f"{name}.{key}")
        return found

    def _form_mismatch(self, value: Any, name: str) -> str | None:
        if not isinstance(value, TensorDictBase):
            return explain(name, expected=f"a TensorDict with keys {list(self._specs)}", got=type(value).__name__)
        keys = list(value.keys())
        missing = [key for key in self._specs if key not in keys]
        surplus = [key for key in keys if key not in self._specs]
        if missing or surplus:
            hint = f"Missing: {missing}." if missing else f"Not in the spec: {surplus}; select() leaves them out."
            return explain(name, expected=f"keys {list(self._specs)}", got=f"keys {keys}", hint=hint)
        if value.batch_size != self.shape:
            return explain(name, expected=f"batch size {list(self.shape)}", got=f"batch size {list(value.batch_size)}")
        return None

    def _missing(self, key: Key) -> KeyMissing:
        known = {key_name(leaf): leaf for leaf, _ in self.leaves()}
        near = nearest(key_name(key), known)
        hint = f"Did you mean {known[near]!r}?" if near else ""
        expected = f"one of the keys {list(known.values())}"
        return KeyMissing(explain("Composite", expected=expected, got=repr(key), hint=hint))


def _is_key(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return bool(parts) and all(isinstance(part, str) for part in parts)


def _as_tuple(key: Key) -> tuple[str, ...]:
    if not _is_key(key):
        raise SpecError(explain("Composite", expected="a string or a tuple of strings as key", got=repr(key)))
    return (key,) if isinstance(key, str) else key
