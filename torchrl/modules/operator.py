"""The step from tensors to keys: read entries of a TensorDict, call a module, write what it returns.

Nothing here knows what the entries mean; actors, critics and trunks do.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.errors import ConfigError, KeyMissing, SpecError, explain, nearest
from torchrl.keys import Key, key_list
from torchrl.misspelling import Extensible
from torchrl.modules.models.inputs import Misfit, misfit
from torchrl.modules.normalizer import ObservationNormalizer
from torchrl.unchecked import new_tensordict, peek, put

SAME_SIZE = (ObservationNormalizer, nn.LayerNorm, nn.Identity)  # what may stand before the first layer
SIZES = re.compile("shapes|dimension|Expected size|channels")  # how torch complains of them
Forward = Callable[[TensorDictModuleBase, TensorDictBase], TensorDictBase]


def accept_tensors(forward: Forward) -> Callable[..., TensorDictBase | torch.Tensor | tuple[torch.Tensor, ...]]:
    """Let a module's ``forward(tensordict)`` be called with tensors as well, as tensordict's own modules can.

    ``module(observation=x)`` and ``module(x)``, in the order of ``in_keys``, return the entries of ``out_keys``: a
    tensor where there is one, else a tuple, with None for what this call did not write. The keyword of a nested key is
    its parts joined by ``"_"``.

    Raises:
        KeyMissing: from a call, an entry that the module reads is missing, a keyword names none, or there are too many.
        ConfigError: from a call, an argument is neither a TensorDict nor a tensor.
    """

    @functools.wraps(forward)
    def either(
        self: TensorDictModuleBase,
        tensordict: TensorDictBase | torch.Tensor | None = None,
        *others: torch.Tensor,
        **entries: torch.Tensor,
    ) -> TensorDictBase | torch.Tensor | tuple[torch.Tensor, ...]:
        if type(tensordict) is TensorDict and not others and not entries:  # the common call: an isinstance takes longer
            return forward(self, tensordict)
        if not (entries or others) and isinstance(tensordict, TensorDictBase):
            return forward(self, tensordict)
        if not others and isinstance(entries.get("tensordict"), TensorDictBase):
            return forward(self, **entries)
        inputs = others if tensordict is None else (tensordict, *others)
        if not all(isinstance(x, (torch.Tensor, TensorDictBase)) for x in (*inputs, *entries.values())):
            got = [type(x).__name__ for x in (*inputs, *entries.values())]
            hint = "Write TensorDict(entries, batch_size=[...]), or torch.as_tensor(array)."
            raise ConfigError(explain(type(self).__name__, expected="a TensorDict or tensors", got=got, hint=hint))
        written = forward(self, _container(self, inputs, entries))
        results = tuple(written.get(key, None) for key in self.out_keys)
        return results[0] if len(results) == 1 else results

    del either.__wrapped__  # the signature is this one: torch.export reads it
    # A code object of its own for each class: torch.compile counts recompilations by code object.
    either.__code__ = either.__code__.replace(co_name=forward.__name__, co_qualname=forward.__qualname__)
    return either


def _container(module: TensorDictModuleBase, inputs: tuple, entries: dict[str, torch.Tensor]) -> TensorDict:
    """Return a TensorDict of batch size ``[]`` that holds the given tensors under the keys that a module reads."""
    keys = {key if isinstance(key, str) else "_".join(key): key for key in module.in_keys}
    given = dict(zip(keys, inputs, strict=False))
    unknown = [name for name in entries if name not in keys or name in given]
    if unknown or len(inputs) > len(keys):
        got = f"{len(inputs)} and the keywords {list(entries)}"
        close = nearest(unknown[0], keys) if unknown else None
        hint = f"Did you mean {close!r}?" if close else ""
        expected = f"a TensorDict, or tensors named {list(keys)}"
        raise KeyMissing(explain(type(module).__name__, expected=expected, got=got, hint=hint))
    container = TensorDict()
    for name, value in (given | entries).items():
        container.set(keys[name], value)
    return container


class Operator(Extensible, TensorDictModuleBase):
    """Call ``module`` on the entries ``in_keys`` and write its results under ``out_keys``.

    >>> trunk = Operator(MLP(4, 8), in_keys=["observation"], out_keys=["hidden"])
    >>> trunk(env.reset())["hidden"].shape
    torch.Size([2, 8])

    The TensorDict that is given is the one that is returned; called with tensors, ``operator(observation=x)``, it
    returns what it would have written, see :func:`accept_tensors`. Entries are written without comparing their shapes
    with the container's: the batch dimensions of the results are the module's promise.

    Args:
        module: takes one tensor per key of ``in_keys``; returns a tensor, or a tuple with one per key of ``out_keys``.
        in_keys: entries to read, in the order of the arguments; a nested key is a tuple.
        out_keys: entries to write.

    Raises:
        ConfigError: ``module`` is no module, a string stands where a sequence of keys is due, or (from a call) there
            are more or fewer results than ``out_keys``.
        KeyMissing: from a call, an entry to read is not there.
        SpecError: from a call, an entry has another dtype or size than the module takes.
    """

    def __init__(self, module: nn.Module, *, in_keys: Iterable[Key], out_keys: Iterable[Key]) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            hint = "Write a function as a torch.nn.Module whose forward() is the function."
            who = type(self).__name__
            raise ConfigError(explain(who, expected="a torch module", got=repr(module), hint=hint))
        self.module = module
        self.in_keys = key_list(f"{type(self).__name__}(in_keys=...)", in_keys)
        self._module_keys = self.in_keys  # a subclass may read more than its module does
        self.out_keys = key_list(f"{type(self).__name__}(out_keys=...)", out_keys)

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        for key, value in zip(self._out_keys, self._results(tensordict, len(self._out_keys)), strict=True):
            write(tensordict, key, value)
        return tensordict

    def _results(self, tensordict: TensorDictBase, num: int) -> tuple[torch.Tensor, ...]:
        """Call the module and return its ``num`` results as a tuple."""
        inputs = read(tensordict, self._module_keys, type(self).__name__)
        try:
            results = self._modules["module"](*inputs)
        except (RuntimeError, Misfit) as error:
            who = f"{type(self).__name__} of {self.out_keys[0]!r}"
            found = misfit(who, self.module, dict(zip(self._module_keys, inputs, strict=True)))
            if found is not None:
                raise found from error
            if isinstance(error, RuntimeError):
                self._explain_size(inputs, error)
            raise
        if isinstance(results, torch.Tensor):
            results = (results,)
        if len(results) != num:
            who = type(self).__name__
            got = f"{len(results)} from {type(self.module).__name__}"
            hint = "A NormalHead after the network gives loc and scale." if num == 2 else ""
            raise ConfigError(explain(who, expected=f"{num} tensors from its module", got=got, hint=hint))
        return results

    def _explain_size(self, inputs: list[torch.Tensor], error: RuntimeError) -> None:
        """Note network and input shapes on ``error``; raise a better error if the first layer takes another size.

        Raises:
            SpecError: naming the network, the entries it read, and the size to write.
        """
        shapes = {key: list(x.shape) for key, x in zip(self._module_keys, inputs, strict=True)}
        who, name = f"{type(self).__name__} of {self.out_keys[0]!r}", type(self.module).__name__
        error.add_note(f"In the {name} of the {who}, called with {shapes}.")
        leaves = [part for part in self.module.modules() if not any(True for _ in part.children())]
        layer = next((part for part in leaves if not isinstance(part, SAME_SIZE)), None)
        if isinstance(layer, nn.Conv2d) and "channels" in str(error):
            expected = f"pictures [*B, {layer.in_channels}, H, W] for the first layer of its {name}"
            comes_last = any(x.ndim > 2 and x.shape[-1] == layer.in_channels for x in inputs)
            hint = "Permute((2, 0, 1), [key]) of the environment puts the channels first." if comes_last else ""
            raise SpecError(explain(who, expected=expected, got=shapes, hint=hint)) from error
        num = getattr(layer, "in_features", 0)
        if not num or not SIZES.search(str(error)):
            return
        expected = f"{num} features for the first layer of its {name}"
        if len({x.ndim for x in inputs}) > 1:
            hint = "Entries are joined along the last dimension, which a discrete action has in its one-hot form only."
            raise SpecError(explain(who, expected=expected, got=shapes, hint=hint)) from error
        came = sum(x.shape[-1] for x in inputs if x.ndim)
        if num != came:
            hint = f"Build the network with in_features={came}, or read other in_keys."
            if any(num in (math.prod(x.shape[at:]) for at in range(x.ndim - 1)) for x in inputs):
                hint = "Flatten(in_keys=[...]) of the environment joins the dimensions of an observation."
            raise SpecError(explain(who, expected=expected, got=f"{came} from {shapes}", hint=hint)) from error


def require_keys(who: str, **modules: nn.Module) -> None:
    """Refuse modules without ``in_keys`` and ``out_keys``, such as networks that take and return tensors.

    Args:
        who: the caller's name, for the message.
        modules: by the names of the caller's arguments.

    Raises:
        ConfigError: naming the argument and what to wrap the network in.
    """
    for name, module in modules.items():
        if not (hasattr(module, "in_keys") and hasattr(module, "out_keys")):
            family = "ValueOperator(network)" if name == "critic" else "ProbabilisticActor(network, family)"
            wrapped = "Operator(network, in_keys=[...], out_keys=[...])"
            hint = f"Write {family}, or {wrapped}." if isinstance(module, nn.Module) else ""
            expected = "a module with in_keys and out_keys"
            got = type(module).__name__ if isinstance(module, nn.Module) else repr(module)
            raise ConfigError(explain(f"{who}, {name}", expected=expected, got=got, hint=hint))


def read(tensordict: TensorDictBase, keys: Sequence[Key], who: str) -> list[torch.Tensor]:
    """Return the entries of ``keys``, or raise an error that names the missing key and the most similar one present.

    Raises:
        KeyMissing: naming ``who``, the missing key and the most similar one present.
    """
    found = [peek(tensordict, key) if type(key) is str else tensordict.get(key, None) for key in keys]
    for key, value in zip(keys, found, strict=True):
        if value is None:
            present = {str(key): key for key in tensordict.keys(include_nested=True)}
            close = nearest(str(key), present)
            hint = f"Did you mean {close!r}?" if close else ""
            raise KeyMissing(explain(who, expected=f"the key {key!r}", got=f"keys {sorted(present)}", hint=hint))
    return found


def write(tensordict: TensorDictBase, key: Key, value: torch.Tensor) -> None:
    """Write one entry into a TensorDict, without a check of its shape where the key is a string or a pair.

    Raises:
        SpecError: the TensorDict is locked.
    """
    try:
        if type(key) is str:
            put(tensordict, key, value)
        elif len(key) == 2:  # most often ("next", name)
            level = peek(tensordict, key[0])
            if level is None:
                put(tensordict, key[0], new_tensordict({key[1]: value}, tensordict.batch_size))
            else:
                put(level, key[1], value)
        else:
            tensordict.set(key, value)
    except RuntimeError:
        if not tensordict.is_locked:
            raise
        expected, hint = f"a TensorDict that {key!r} can be written to", "Call the module on tensordict.copy()."
        raise SpecError(explain("module", expected=expected, got="a locked one", hint=hint)) from None
