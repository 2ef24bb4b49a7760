"""Check the arguments of an env's constructor and methods: specs, seeds, masks, TensorDicts. Holds no state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from tensordict import TensorDictBase

from torchrl.data.specs import Composite, TensorSpec
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.seeding import child_seeds
from torchrl.unchecked import peek

Seed = int | Sequence[int | None] | None  # None goes on with the stream there is
ResetOptions = dict | list[dict] | None  # for all rows alike, or one dict for each row of the batch


def require_specs(
    who: str, batch_size: torch.Size, observation: Composite, action: TensorSpec, reward: TensorSpec | None
) -> None:
    """Refuse, when an env is built, an observation, action or reward spec of the wrong kind or batch size.

    Raises:
        SpecError: naming the spec.
    """
    if not isinstance(observation, Composite):
        hint = 'Name the observation: Composite({"observation": spec}, shape=batch_size).'
        expected = "a Composite as observation_spec"
        raise SpecError(explain(who, expected=expected, got=type(observation).__name__, hint=hint))
    if observation.shape != batch_size:
        expected = f"an observation_spec of shape {list(batch_size)}, the batch_size"
        hint = f"Write Composite({{...}}, shape={list(batch_size)})."
        raise SpecError(explain(who, expected=expected, got=list(observation.shape), hint=hint))
    for name, spec in (("action_spec", action), ("reward_spec", reward)):
        if spec is None and name == "reward_spec":
            continue
        if not isinstance(spec, TensorSpec):
            raise SpecError(explain(who, expected=f"a spec as {name}", got=type(spec).__name__))
        if spec.shape[: len(batch_size)] != batch_size:
            expected = f"a shape that starts with {list(batch_size)}, the batch_size"
            raise SpecError(explain(f"{who}, {name}", expected=expected, got=list(spec.shape), hint="Expand it."))


def row_seeds(seed: Seed, num_rows: int) -> list[int | None] | None:
    """Return one seed for each row, derived from a single integer or checked from a sequence; None for None.

    A seed of None inside a sequence stays None.

    Raises:
        ConfigError: a seed is no non-negative integer.
        SpecError: not one per row.
    """
    if seed is None:
        return None
    if not isinstance(seed, (Integral, Iterable)):
        expected = f"an integer, or a list of {num_rows} of them"
        raise ConfigError(explain("reset, seed", expected=expected, got=repr(seed)))
    seeds = child_seeds(seed, num_rows) if isinstance(seed, Integral) else list(seed)
    if len(seeds) != num_rows:
        raise SpecError(explain("reset", expected=f"one seed per row, {num_rows} of them", got=f"{len(seeds)} seeds"))
    for row, one in enumerate(seeds):
        if one is not None and (isinstance(one, bool) or not isinstance(one, Integral) or one < 0):
            raise ConfigError(explain(f"the seed of row {row}", expected="a non-negative integer", got=repr(one)))
    return [None if one is None else int(one) for one in seeds]


def row_mask(who: str, mask: torch.Tensor, batch_size: torch.Size, device: torch.device) -> torch.Tensor:
    """Check a mask of rows, bool ``[*B]`` or ``[*B, 1]``, and return it as ``[*B]`` on a device.

    Raises:
        SpecError: the mask is no bool tensor of such a shape.
    """
    shape = list(batch_size)
    if not isinstance(mask, torch.Tensor):
        hint = f"A seed is given by its name: reset(seed={mask!r})." if isinstance(mask, Integral) else ""
        expected = f"a bool mask of shape {shape}, or None for all rows"
        raise SpecError(explain(who, expected=expected, got=repr(mask), hint=hint))
    if mask.dtype is not torch.bool or mask.shape not in (batch_size, (*batch_size, 1)):
        expected = f"a bool mask of shape {shape} or {[*shape, 1]}"
        raise SpecError(explain(who, expected=expected, got=f"{mask.dtype} of shape {list(mask.shape)}"))
    return mask.reshape(batch_size).to(device)


def require_tensordict(who: str, given: object) -> None:
    """Refuse an argument of ``step`` that is no TensorDict, such as an action alone.

    Raises:
        SpecError: ``given`` is no TensorDict.
    """
    if not isinstance(given, TensorDictBase):
        hint = 'Write env.step(root.set("action", action)), where root is what reset() or the step before returned.'
        expected = "a TensorDict with the action"
        raise SpecError(explain(f"{who}.step", expected=expected, got=type(given).__name__, hint=hint))


def action_of(tensordict: TensorDictBase) -> torch.Tensor | TensorDictBase:
    """Return the entry ``action``: a tensor, or a TensorDict where the action spec is a ``Composite``.

    Raises:
        KeyMissing: the policy wrote no action.
    """
    action = peek(tensordict, "action")
    if action is None:
        expected, got = "a TensorDict with the key 'action'", f"the keys {sorted(map(str, tensordict.keys()))}"
        hint = "The policy must write 'action' and return the TensorDict it was given."
        raise KeyMissing(explain("step", expected=expected, got=got, hint=hint))
    return action
