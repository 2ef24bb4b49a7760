"""Checks that the actions of a distribution or of an exploration fit an action spec: kind, sizes and bounds."""

from __future__ import annotations

import warnings

import torch

from torchrl.data import specs
from torchrl.data.specs.fitting import fitting_line
from torchrl.errors import SpecError, explain
from torchrl.keys import Key
from torchrl.modules.distributions.base import Distribution
from torchrl.modules.distributions.bernoulli import Bernoulli
from torchrl.modules.distributions.bounds import Bounds
from torchrl.modules.distributions.composite import CompositeDistribution
from torchrl.modules.distributions.continuous import Normal
from torchrl.modules.distributions.delta import Delta
from torchrl.modules.distributions.discrete import Categorical
from torchrl.modules.distributions.multi import MultiCategorical
from torchrl.modules.distributions.one_hot import OneHotCategorical


def spec_at(action_spec: specs.TensorSpec, action_key: Key) -> specs.TensorSpec | None:
    """Return the part of an action spec that ``action_key`` names; None if the key does not begin with ``"action"``."""
    first, *rest = (action_key,) if isinstance(action_key, str) else action_key
    if first != "action":
        return None
    return action_spec.get(tuple(rest)) if rest and isinstance(action_spec, specs.Composite) else action_spec


def require_family(who: str, distribution: Distribution, row: specs.TensorSpec, *, hint: str = "") -> None:
    """Raise if a distribution gives actions of another kind, size or range than an action spec describes.

    A user's own family is not checked, unless it derives from one of this library's.

    Args:
        who: the actor, for the message.
        distribution: as the actor built it, ``[*B]``.
        row: the action spec of one row.
        hint: what fits, for the message; empty names what fits ``row``.

    Raises:
        SpecError: another kind of action, or another number of choices or dimensions; it names what fits.
    """
    hint = hint or fitting_line(row)
    name = type(distribution).__name__
    came, due = _kind(distribution), kind_of(row)
    if isinstance(distribution, CompositeDistribution):
        if due != PARTS or set(distribution.parts) != set(row.keys()):
            got = f"a {name} of {sorted(distribution.parts)}"
            raise SpecError(explain(who, expected=describe_action(row), got=got, hint=hint))
        for key, part in distribution.parts.items():
            require_family(f"{who}, {key!r}", part, row[key], hint=hint)
        return
    if came is None:
        return
    fits = came == due or (came[0] in TABLES and due[0] in TABLES and came[1] == due[1])
    if not fits or (isinstance(distribution, Bernoulli) and distribution.dtype != row.dtype):
        dtype = f" in {distribution.dtype}" if isinstance(distribution, Bernoulli) else ""
        got = f"a {name}: {_describe_kind(came)}{dtype}"
        raise SpecError(explain(who, expected=describe_action(row), got=got, hint=hint))
    if hasattr(distribution, "bounds"):
        require_bounds(f"{who}, {name}", distribution.bounds, row)


def require_bounds(who: str, bounds: Bounds | specs.Bounded, row: specs.TensorSpec, *, hint: str = "") -> None:
    """Refuse a policy's bounds that exceed those of an action spec; warn where they are narrower.

    Args:
        who: the actor, for the message.
        bounds: of its actions.
        row: the action spec of one row.
        hint: what to write; a family that fits, if empty.

    Raises:
        SpecError: naming the bounds to write.
    """
    if not isinstance(row, specs.Bounded):
        return
    low, high = (torch.as_tensor(bound, dtype=torch.float64, device="cpu") for bound in (bounds.low, bounds.high))
    least, most = row.low.double().cpu(), row.high.double().cpu()
    room = 1e-6 * (1 + torch.maximum(least.abs(), most.abs()).nan_to_num(posinf=0))  # bounds come in other dtypes
    expected = f"actions between {_span(least, most)}"
    message = explain(who, expected=expected, got=f"{bounds}", hint=hint or fitting_line(row))
    if bool(((low < least - room) | (high > most + room)).any()):
        raise SpecError(message)
    is_finite = least.isfinite() & most.isfinite()
    if bool((is_finite & ((low > least + room) | (high < most - room))).any()):
        warnings.warn(f"The policy never takes a part of the actions. {message}", stacklevel=2)


def require_drawn(who: str, own: specs.TensorSpec, action_spec: specs.TensorSpec, action_key: Key) -> None:
    """Raise if an exploration's own spec has another kind or size of action than the environment's, or wider bounds.

    Narrower bounds give a warning. Nothing is checked where ``action_key`` is no key of the action.

    Args:
        who: the exploration, for the message.
        own: the spec that it was built with, of one row or of all.
        action_spec: that of one row of the environment.
        action_key: where the exploration writes.

    Raises:
        SpecError: another kind of action, another number of choices or dimensions, or actions beyond the bounds.
    """
    row = spec_at(action_spec, action_key)
    if row is None:
        return
    extra = max(0, own.ndim - row.ndim)
    own = own[(0,) * extra] if extra else own
    if kind_of(own) != kind_of(row) or (kind_of(own) == PARTS and set(own.keys()) != set(row.keys())):
        raise SpecError(explain(who, expected=describe_action(row), got=describe_action(own), hint=_OWN_SPEC))
    if isinstance(row, specs.Composite):
        for key, part in row.items():
            require_drawn(f"{who}, {key!r}", own[key], part, "action")
    elif isinstance(own, specs.Bounded):
        require_bounds(who, own, row, hint=_OWN_SPEC)


# What an action is: (kind, numbers of choices, or the number of dimensions).
INDEX, INDICES, BITS, ONE_HOT, GROUPS = "one index", "indices", "bits", "a one-hot vector", "one-hot vectors"
NUMBERS, PARTS, OTHER = "numbers", ("parts", ()), ("other", ())
_OWN_SPEC = "Build it with the action_spec of the environment that it acts in."
TABLES = (INDICES, BITS)  # entries that are written alike


def kind_of(row: specs.TensorSpec) -> tuple[str, tuple[int, ...]]:
    """Classify the action that one row's spec describes: its kind, and its numbers of choices or dimensions."""
    if isinstance(row, specs.Composite):
        return PARTS
    if isinstance(row, specs.Categorical):
        return (INDEX, (row.n,)) if row.ndim == 0 else (INDICES, (row.n,) * row.shape.numel())
    if isinstance(row, specs.MultiCategorical):
        return INDICES, tuple(row.nvec.flatten().tolist())
    if isinstance(row, specs.Binary):
        return BITS, (2,) * row.shape.numel()
    if isinstance(row, specs.MultiOneHot):
        return (ONE_HOT if isinstance(row, specs.OneHot) else GROUPS), tuple(row.nvec)
    return (NUMBERS, tuple(row.shape)) if row.dtype.is_floating_point else OTHER


def _kind(distribution: Distribution) -> tuple[str, tuple[int, ...]] | None:
    if isinstance(distribution, MultiCategorical):
        return INDICES, distribution.groups.nvec
    if isinstance(distribution, OneHotCategorical):
        return ONE_HOT, tuple(distribution.logits.shape[-1:])
    if isinstance(distribution, Categorical):
        return INDEX, tuple(distribution.logits.shape[-1:])
    if isinstance(distribution, Bernoulli):
        return BITS, (2,) * distribution.logits.shape[-1]
    if isinstance(distribution, Normal):
        return NUMBERS, tuple(distribution.loc.shape[-1:])
    if isinstance(distribution, Delta):
        return NUMBERS, tuple(distribution.param.shape[-1:])
    return None


def _describe_kind(kind: tuple[str, tuple[int, ...]]) -> str:
    name, sizes = kind
    if name == NUMBERS:
        return f"numbers of shape {list(sizes)}"
    if name in (INDEX, ONE_HOT):
        return f"{name} of {sizes[0]}"
    if name == BITS:
        return f"{len(sizes)} bits"
    return f"{name} of {list(sizes)}"


def describe_action(row: specs.TensorSpec) -> str:
    """Return the actions of one row's spec in words, such as ``"one index of 4"``, for messages."""
    kind = kind_of(row)
    if kind == PARTS:
        return f"the parts {sorted(row.keys())}"
    if kind == OTHER:
        return f"actions of {row}"
    bounds = f" between {_span(row.low, row.high)}" if isinstance(row, specs.Bounded) else ""
    dtype = f" in {row.dtype}" if kind[0] == BITS else ""
    return f"{_describe_kind(kind)}{bounds}{dtype}"


def _span(low: torch.Tensor, high: torch.Tensor) -> str:
    low, high = (
        bound.flatten()[0].item() if bound.numel() and bool((bound == bound.flatten()[0]).all()) else bound.tolist()
        for bound in (low, high)
    )
    return f"{low} and {high}"
