"""Check the functions of batches that a user gives to buffers, collectors and agents, and call them."""

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
    """Base class of the transforms of environments, which edit single tensors and refuse to be called with a batch.

    The ``forward`` of a transform takes single tensors. On a batch it would change every entry: clip actions and
    counters with the reward.

    Raises:
        SpecError: from a call, it is given a batch.
    """

    def __call__(self, *inputs: Tensor, **options: object) -> Tensor:
        """Call ``forward`` with tensors; refuse a batch."""
        if any(isinstance(x, TensorDictBase) for x in inputs):
            name = type(self).__name__
            raise SpecError(explain(name, expected="a tensor", got="a batch", hint=_instead_of(type(self))))
        return super().__call__(*inputs, **options)


def require_batch_function(who: str, function: object) -> None:
    """Refuse an argument that is no function of a batch; None stands for no function.

    Args:
        who: the part and its argument, for the message: ``"Collector, postproc"``.
        function: the argument; a chain (:class:`~torch.nn.Sequential`) is looked into.

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
        SpecError: saying what to write.
    """
    if not isinstance(batch, TensorDictBase):
        hint = "Write TensorDict(entries, batch_size=[...])." if isinstance(batch, dict) else ""
        raise SpecError(explain(who, expected="a TensorDict", got=type(batch).__name__, hint=hint))


def apply_function(who: str, function: BatchFunction, batch: TensorDictBase) -> TensorDictBase:
    """Call a user's function on a batch, and refuse a result that is no TensorDict or whose ``done`` is not bool.

    Raises:
        SpecError: the result is no TensorDict, or its flags are no bools, as where every entry was changed.
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
    """Yield what is called with the batch itself, in chains and behind bound methods and partial functions."""
    if isinstance(function, partial):
        yield from _parts(function.func)
    elif isinstance(function, (nn.Sequential, list, tuple)):
        for part in function:
            yield from _parts(part)
    else:
        yield getattr(function, "__self__", function)


def _is_of_tensors(part: object) -> bool:
    """Answer whether something is a layer of a network: some of them would change every entry of a batch."""
    if isinstance(part, nn.Identity) or hasattr(part, "in_keys"):
        return False
    return isinstance(part, nn.Module) and type(part).__module__.startswith(("torch.nn.", "torchrl.modules."))


def _instead_of(kind: type[StepEditor]) -> str:
    """Say where an editor of steps belongs, and what to write for batches."""
    return (
        f"Put it around the environment: TransformedEnv(env, {kind.__name__}(...)). For batches write what "
        'changes, for example lambda batch: batch.set(("next", "reward"), batch["next", "reward"].clamp(-1, 1)).'
    )
