"""Modules called one after another on one TensorDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn

from torchrl.errors import ConfigError, explain
from torchrl.keys import Key, as_path, key_list
from torchrl.modules.distributions.base import Distribution
from torchrl.modules.memory import Stateful
from torchrl.modules.operator import accept_tensors, require_keys, write
from torchrl.modules.randomness import keep_module_state, keep_randomness

if TYPE_CHECKING:
    from torchrl.data.specs import TensorSpec


class Sequence(Stateful, TensorDictModuleBase):
    """Call modules one after another, each reading what those before it wrote.

    >>> trunk = Operator(MLP(4, 8), in_keys=["observation"], out_keys=["hidden"])
    >>> policy = Sequence(trunk, Actor(MLP(8, 2), in_keys=["hidden"]), out_keys=["action"])
    >>> policy.in_keys, "hidden" in policy(env.reset()).keys()
    (['observation'], False)

    ``in_keys`` are the entries that must be there: read by a module, and written by none before it. Where the last
    module has ``build`` (a :class:`ProbabilisticActor`), so has the sequence, with that module's keys.

    Args:
        modules: TensorDict modules, in order.
        out_keys: the entries to keep; the others are intermediate results that the TensorDict never sees, and that a
            collector does not record. The state that a module with memory writes under ``"next"`` is kept in any case.
            None keeps everything that any module writes.

    Raises:
        ConfigError: no module, one without keys, an out-key that no module writes, or a state that two modules write.
    """

    def __init__(self, *modules: TensorDictModuleBase, out_keys: Iterable[Key] | None = None) -> None:
        super().__init__()
        if not modules:
            raise ConfigError(explain("Sequence", expected="at least one module", got="none"))
        for index, module in enumerate(modules):
            require_keys("Sequence", **{f"module {index}": module})
        needed: dict[Key, None] = {}  # dicts, because they keep the order
        written: dict[Key, None] = {}
        states = [("next", *as_path(key)) for module in modules for key in _states_of(module)]
        for module in modules:
            needed.update((key, None) for key in module.in_keys if key not in written)
            written.update((key, None) for key in module.out_keys)
        kept = list(written) if out_keys is None else key_list("Sequence(out_keys=...)", out_keys)
        kept += [key for key in states if key not in kept]
        unknown = [key for key in kept if key not in written]
        if unknown:
            raise ConfigError(explain("Sequence", expected=f"out_keys among {list(written)}", got=unknown))
        self.in_keys = list(needed)
        self.out_keys = kept
        self.parts = nn.ModuleList(modules)
        self.keeps_all = len(kept) == len(written)
        self.initial_state()  # refuses a state that two modules write

    @accept_tensors
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        parts = self._modules["parts"]._modules.values()
        return call_all(parts, tensordict) if self.keeps_all else call_all_aside(parts, tensordict, self._out_keys)

    def build(self, tensordict: TensorDictBase) -> Distribution:
        """Return the last module's distribution, with gradient through all modules; nothing is written.

        Raises:
            ConfigError: the last module has no ``build``.
        """
        *before, last = self.parts
        if not hasattr(last, "build"):
            raise ConfigError(explain("Sequence.build", expected="a last module with `build`", got=type(last).__name__))
        return last.build(call_all(before, tensordict.copy()))

    def require_fit(self, action_spec: TensorSpec, tensordict: TensorDictBase) -> None:
        """Let the last module check one row's ``action_spec``, if it has ``require_fit``; no state changes.

        Raises:
            SpecError: as the last module says.
        """
        *before, last = self.parts
        if hasattr(last, "require_fit"):
            with torch.no_grad(), keep_randomness(self), keep_module_state(self):
                tensordict = call_all(before, tensordict.copy())
            last.require_fit(action_spec, tensordict)

    @property
    def action_key(self) -> Key:
        """Where the last module, an actor, writes the action."""
        return self.parts[-1].action_key

    @property
    def log_prob_key(self) -> Key | None:
        """Where the last module, a probabilistic actor, writes the log-probability."""
        return self.parts[-1].log_prob_key

    @property
    def decision_keys(self) -> list[Key]:
        """What the last module's ``build`` reads of a stored step beside its in keys, as :class:`Options` does."""
        return getattr(self.parts[-1], "decision_keys", [])

    def __getitem__(self, index: int) -> nn.Module:
        return self.parts[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def call_all(modules: Iterable[nn.Module], tensordict: TensorDictBase) -> TensorDictBase:
    """Call ``modules`` one after another and return what the last returns."""
    for module in modules:
        tensordict = module(tensordict)
    return tensordict


def call_all_aside(modules: Iterable[nn.Module], tensordict: TensorDictBase, out_keys: Iterable[Key]) -> TensorDictBase:
    """Call ``modules`` on a shallow copy, write only ``out_keys`` into ``tensordict``, and return ``tensordict``."""
    result = call_all(modules, tensordict.copy())
    for key in out_keys:
        value = result.get(key, None)
        if value is not None or key[0] != "next":  # modules with memory write no next state of a sequence
            write(tensordict, key, value)
    return tensordict


def _states_of(module: nn.Module) -> list[Key]:
    """List the keys of the states that a module reads, and writes under ``"next"``."""
    return list(module.initial_state().keys(True, True)) if isinstance(module, Stateful) else []
