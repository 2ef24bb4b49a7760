"""Check a policy's first action against the action spec; the error tells how to write a policy that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensordict import TensorDictBase
from torch import nn

from torchrl.data.specs.base import TensorSpec
from torchrl.data.specs.composite import Composite
from torchrl.data.specs.continuous import Bounded, Unbounded
from torchrl.data.specs.discrete import Binary, Categorical, MultiCategorical
from torchrl.data.specs.one_hot import MultiOneHot, OneHot
from torchrl.errors import ConfigError, SpecError, explain

ONE = "A family has one vector of actions: change the action space's shape to [A]."


def first_act(policy: Callable, root: TensorDictBase, action_spec: TensorSpec, batch_dims: int) -> TensorDictBase:
    """Call a policy on a root and return its result; refuse a policy that does not take and return a TensorDict.

    The action itself is not looked at: :func:`require_fit` does that.

    Args:
        policy: maps a root to the same root with ``action``.
        root: ``[*B]``.
        action_spec: ``[*B, ...]``, from which the error's hint says what would fit; it serves nothing else.
        batch_dims: number of the dimensions ``*B`` of ``action_spec``; for the hint, too.

    Raises:
        ConfigError: the policy cannot be called with a TensorDict.
        SpecError: it returns something else.
    """
    row = action_spec[(0,) * batch_dims] if batch_dims else action_spec
    expected = "a policy that takes a TensorDict, writes 'action' into it and returns it"
    name = type(policy).__name__
    try:
        acted = policy(root)
    except TypeError as error:
        if hasattr(policy, "in_keys"):
            raise
        got = f"a {name} that raised {type(error).__name__} when it was given one"
        raise ConfigError(explain("policy", expected=expected, got=got, hint=fitting_line(row))) from error
    if not isinstance(acted, TensorDictBase):
        got = f"{type(acted).__name__} from a {name}"
        hint = f"A policy writes into the TensorDict it was given and returns it. {fitting_line(row)}"
        raise SpecError(explain("policy", expected="a TensorDict", got=got, hint=hint))
    return acted


def require_fit(policy: object, action: Any, acted: TensorDictBase, action_spec: TensorSpec, batch_dims: int) -> None:
    """Refuse a policy whose first action does not fit the action spec of its environment.

    If the policy has a method ``require_fit(spec of one row, acted)``, that is called first: an action of the right
    shape and dtype may still mean something else, such as other bounds.

    Args:
        policy: the policy that acted.
        action: the action that it wrote.
        acted: the root with all that it wrote, ``[*B]``.
        action_spec: ``[*B, ...]``.
        batch_dims: number of the dimensions ``*B``.

    Raises:
        SpecError: naming an actor or distribution that would fit.
    """
    row = action_spec[(0,) * batch_dims] if batch_dims else action_spec
    ask = getattr(policy, "require_fit", None)
    if ask is not None:
        ask(row, acted)
    _require_dims(policy, batch_dims)
    try:
        action_spec.assert_form(action, "action")
    except SpecError as error:
        raise SpecError(f"{error} {fitting_line(row)}") from None


def _require_dims(policy: object, batch_dims: int) -> None:
    """Refuse modules with memory that would take a root for a sequence: their state would stand still.

    Raises:
        SpecError: naming the argument to write.
    """
    for part in policy.modules() if isinstance(policy, nn.Module) else ():
        if getattr(part, "batch_dims", batch_dims) < batch_dims:
            expected = f"batch_dims={batch_dims}, the number of the environment's batch dimensions"
            raise SpecError(explain(type(part).__name__, expected=expected, got=f"batch_dims={part.batch_dims}"))


def fitting_line(row: TensorSpec) -> str:
    """Return a sentence for messages that says how to write a policy for an action spec of one row.

    Args:
        row: the spec without batch dimensions.
    """
    family = fitting_family(row)
    if family is None:
        return ONE if isinstance(row, (Bounded, Unbounded)) else "No distribution of the library writes such actions."
    line = f"What fits: ProbabilisticActor(network, {family}), whose network gives {_outputs(row)}."
    if isinstance(row, OneHot) or (isinstance(row, Categorical) and row.ndim == 0):
        one_hot = ", one_hot=True" if isinstance(row, OneHot) else ""
        line = f"{line[:-1]}, or QValueActor(network{one_hot}) with {row.n} values."
    return line


def fitting_family(row: TensorSpec) -> str | None:
    """Return, as code for messages, the distribution class that fits one row's action spec; None if none does."""
    if isinstance(row, Composite):
        parts = [(key, fitting_family(spec)) for key, spec in row.items()]
        if any(family is None for _, family in parts):
            return None
        return f"CompositeDistribution.of({{{', '.join(f'{key!r}: {family}' for key, family in parts)}}})"
    if isinstance(row, OneHot):
        return "OneHotCategorical"
    if isinstance(row, MultiOneHot) or (isinstance(row, Bounded) and not row.dtype.is_floating_point):
        return None
    if row.ndim != (0 if isinstance(row, Categorical) else 1):
        return f"MultiCategorical.of({[row.n] * row.shape[0]})" if _is_row_of_choices(row) else None
    if isinstance(row, Categorical):
        return "Categorical"
    if isinstance(row, MultiCategorical):
        return f"MultiCategorical.of({row.nvec.tolist()})"
    if isinstance(row, Binary):
        return f"partial(Bernoulli, dtype={row.dtype})"
    if isinstance(row, Bounded) and bool((row.low.isfinite() & row.high.isfinite()).all()):
        return f"TanhNormal.within({_numbers(row.low)}, {_numbers(row.high)})"
    return "Normal"


def _is_row_of_choices(row: TensorSpec) -> bool:
    return isinstance(row, Categorical) and row.ndim == 1


def _outputs(row: TensorSpec) -> str:
    if isinstance(row, Composite):
        return "what the parts need, by ParallelHeads"
    if isinstance(row, (Bounded, Unbounded)):
        return f"loc and scale of {row.shape[0]} (NormalHead({row.shape[0]}))"
    if isinstance(row, MultiCategorical):
        return f"{int(row.nvec.sum())} logits"
    if isinstance(row, Categorical):
        return f"{row.n * row.shape.numel()} logits"
    return f"{row.shape[-1]} logits"


def _numbers(bound: Any) -> str:
    first = bound.flatten()[0]
    if bool((bound == first).all()):
        return f"{first.item():g}"
    return f"torch.tensor({[round(number, 6) for number in bound.tolist()]})"
