"""Check and call the functions on batches that users give to buffers, collectors and agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from torchrl.errors import ConfigError, SpecError, explain

ENDED = ("next", "done")
BatchFunction = Callable[[TensorDictBase], TensorDictBase]


class StepEditor(nn.Module):
    """Base class of the transforms of environments: modules that can be called with tensors, but not with a batch.

    A transform's ``forward`` takes single tensors. Called with a batch it would change every entry: a reward clipping
    would also clip actions and counters.

    Raises:
        SpecError: from a call with a batch (a TensorDict).
    """

    def __call__(self, *inputs: Tensor, **options: object) -> Tensor:
        """Call ``forward`` with tensors; raise an error for a batch."""
        if any(isinstance(x, TensorDictBase) for x in inputs):
            name = type(self).__name__
            raise SpecError(explain(name, expected="a tensor", got="a batch", hint=_instead_of(type(self))))
        return super().__call__(*inputs, **options)


def require_batch_function(who: str, function: object) -> None:
    """Refuse an argument that is no function of a batch; None stands for no function.

    Args:
        who: the part and its argument, for the message: ``"Collector, postproc"``.
        function: the argument; of a :class:`~torch.nn.Sequential` every part is checked.

    Raises:
        ConfigError: the argument cannot be called, or is a transform of environments.
    """
    if function is None:
        return
    expected = "a function of a batch"
    for part in _parts(function):
        kind = part if isinstance(part, type) else type(part)
        if issubclass(kind, StepEditor):
            got = f"{kind.__name__}, which edits the steps of an environment"
            raise ConfigError(explain(who, expected=expected, got=got, hint=_instead_of(kind)))
        if _is_of_tensors(part):
            name = getattr(function, "__name__", kind.__name__)
            hint = "Write which entry it is for: lambda batch: batch.set(key, function(batch[key]))."
            raise ConfigError(explain(who, expected=expected, got=f"{name}, a function of tensors", hint=hint))
    if isinstance(function, type):
        hint = f"Make one: {function.__name__}(...)."
        raise ConfigError(explain(who, expected=expected, got=repr(function), hint=hint))
    if not callable(function):
        is_store = hasattr(function, "extend") and not isinstance(function, list)
        hint = "Give its method extend." if is_store else "Several go into one: lambda batch: second(first(batch))."
        raise ConfigError(explain(who, expected=expected, got=repr(function), hint=hint))


def require_batch(who: str, batch: object) -> None:
    """Refuse an argument that is no TensorDict.

    Raises:
        SpecError: ``batch`` is no TensorDict.
    """
    if not isinstance(batch, TensorDictBase):
        hint = "Write TensorDict(entries, batch_size=[...])." if isinstance(batch, dict) else ""
        raise SpecError(explain(who, expected="a TensorDict", got=type(batch).__name__, hint=hint))


def apply_function(who: str, function: BatchFunction, batch: TensorDictBase) -> TensorDictBase:
    """Call a user's function on a batch, and refuse a result that is no TensorDict or whose ``done`` is not bool.

    Raises:
        SpecError: the result is no TensorDict, or its ``done`` is not bool, as if the function had changed all entries.
    """
    result = function(batch)
    if not isinstance(result, TensorDictBase):
        hint = "Return the batch, also where it is edited in place."
        raise SpecError(explain(who, expected="a TensorDict", got=type(result).__name__, hint=hint))
    flag = result.get(ENDED, None) if isinstance(result, TensorDict) else None  # a lazy stack may be ragged
    if flag is not None and flag.dtype is not torch.bool:
        hint = "Change single entries: batch.set(key, function(batch[key]))."
        got = f"{ENDED} of {flag.dtype}, as if every entry were changed"
        raise SpecError(explain(who, expected="flags that stay bool", got=got, hint=hint))
    return result


def _parts(function: object) -> Iterator[object]:
    """Yield what gets the whole batch: each part of a chain, the object of a method, the function of a partial."""
    if isinstance(function, partial):
        yield from _parts(function.func)
    elif isinstance(function, (nn.Sequential, list, tuple)):
        for part in function:
            yield from _parts(part)
    else:
        yield getattr(function, "__self__", function)


def _is_of_tensors(part: object) -> bool:
    """Answer whether ``part`` is a layer of torch, which takes tensors, not a batch."""
    if isinstance(part, nn.Identity) or hasattr(part, "in_keys"):
        return False
    return isinstance(part, nn.Module) and type(part).__module__.startswith(("torch.nn.", "torchrl.modules."))


def _instead_of(kind: type[StepEditor]) -> str:
    """Return advice for messages: where this kind of transform belongs, and what to use on batches instead."""
    return (
        f"Put it around the environment: TransformedEnv(env, {kind.__name__}(...)). For batches write what "
        'changes, for example lambda batch: batch.set(("next", "reward"), batch["next", "reward"].clamp(-1, 1)).'
    )
