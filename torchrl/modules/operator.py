"""The step from tensors to keys: read entries of a TensorDict, call a module, write what it returns.

Nothing here knows what the entries mean; actors, critics and trunks do.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.errors import ConfigError, KeyMissing, explain, nearest
from torchrl.unchecked import put

Key = str | tuple[str, ...]


class Operator(TensorDictModuleBase):
    """Call ``module`` on the entries ``in_keys`` and write its results under ``out_keys``.

    The TensorDict that is given is the one that is returned. Entries are written without comparing their shapes with
    the container's: the batch dimensions of the results are the module's promise.

    Args:
        module: takes one tensor per key of ``in_keys``; returns a tensor, or a tuple with one per key of ``out_keys``.
        in_keys: entries to read, in the order of the arguments; a nested key is a tuple.
        out_keys: entries to write.

    Raises:
        ConfigError: a string where a sequence of keys is due, or (from a call) more or fewer results than ``out_keys``.
        KeyMissing: from a call, an entry to read is not there.
    """

    def __init__(self, module: nn.Module, *, in_keys: Iterable[Key], out_keys: Iterable[Key]) -> None:
        super().__init__()
        self.module = module
        self.in_keys = key_list(f"{type(self).__name__}(in_keys=...)", in_keys)
        self._module_keys = self.in_keys  # a subclass may read more than its module does
        self.out_keys = key_list(f"{type(self).__name__}(out_keys=...)", out_keys)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        for key, value in zip(self._out_keys, self._results(tensordict, len(self._out_keys)), strict=True):
            write(tensordict, key, value)
        return tensordict

    def _results(self, tensordict: TensorDictBase, num: int) -> tuple[torch.Tensor, ...]:
        """Call the module and return its ``num`` results as a tuple."""
        results = self._modules["module"](*read(tensordict, self._module_keys, type(self).__name__))
        if isinstance(results, torch.Tensor):
            results = (results,)
        if len(results) != num:
            who = type(self).__name__
            got = f"{len(results)} from {type(self.module).__name__}"
            hint = "A NormalHead after the network gives loc and scale." if num == 2 else ""
            raise ConfigError(explain(who, expected=f"{num} tensors from its module", got=got, hint=hint))
        return results


def key_list(who: str, keys: Iterable[Key]) -> list[Key]:
    """Return ``keys`` as a list, refusing a bare string, which would be read letter by letter."""
    if isinstance(keys, str):
        raise ConfigError(explain(who, expected="a sequence of keys", got=repr(keys), hint=f"Write [{keys!r}]."))
    return list(keys)


def read(tensordict: TensorDictBase, keys: Iterable[Key], who: str) -> list[torch.Tensor]:
    """Return the entries of ``keys``.

    Raises:
        KeyMissing: naming the key, the nearest that is there, and ``who`` asked.
    """
    try:
        return [tensordict[key] for key in keys]
    except KeyError:
        present = {str(key): key for key in tensordict.keys(include_nested=True)}
        missing = next(key for key in keys if str(key) not in present)
        close = nearest(str(missing), present)
        hint = f"Did you mean {close!r}?" if close else ""
        message = explain(who, expected=f"the key {missing!r}", got=f"keys {sorted(present)}", hint=hint)
        raise KeyMissing(message) from None


def write(tensordict: TensorDictBase, key: Key, value: torch.Tensor) -> None:
    """Set one entry, unchecked where the key is a plain string."""
    if type(key) is str:
        put(tensordict, key, value)
    else:
        tensordict.set(key, value)
