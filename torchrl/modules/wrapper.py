"""The base of modules around a policy, which have the keys and methods of the policy."""

from __future__ import annotations

from collections.abc import Callable

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from torchrl.keys import Key
from torchrl.misspelling import Extensible
from torchrl.modules.distributions.base import Distribution
from torchrl.modules.memory import Stateful
from torchrl.modules.operator import require_keys


class PolicyWrapper(Stateful, Extensible, TensorDictModuleBase):
    """Base of wrappers that keep a policy's keys and methods; a subclass changes the policy's output in ``forward``.

    ``build``, ``require_fit``, ``action_key`` and ``log_prob_key`` are the policy's own, and missing where it has none.

    Args:
        module: the policy.

    Raises:
        ConfigError: it has no keys: a network of tensors.
    """

    def __init__(self, module: TensorDictModuleBase) -> None:
        super().__init__()
        require_keys(type(self).__name__, policy=module)
        self.module = module
        self.in_keys = list(module.in_keys)
        self.out_keys = list(module.out_keys)

    @property
    def build(self) -> Callable[[TensorDictBase], Distribution]:
        """The policy's method that returns its distribution for the observations of a TensorDict."""
        return self.module.build

    @property
    def require_fit(self) -> Callable[..., None]:
        """The policy's method that refuses an action spec that it does not fit."""
        return self.module.require_fit

    @property
    def action_key(self) -> Key:
        """Where the policy writes the action."""
        return self.module.action_key

    @property
    def decision_keys(self) -> list[Key]:
        """What the policy's ``build`` reads of a stored step beside its in keys."""
        return getattr(self.module, "decision_keys", [])

    @property
    def log_prob_key(self) -> Key | None:
        """Where the policy writes the log-probability."""
        return self.module.log_prob_key
