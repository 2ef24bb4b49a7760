"""How a policy is sent to another process: pickled whole once, then only what training changes in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import cloudpickle
import torch
from torch import nn

from torchrl.collectors.weights import has_weights, on_cpu, require_initialised, tensors_of


@dataclass(frozen=True, eq=False)
class Structure:
    """Hold a policy pickled for another process, and tell whether a later launch needs to send more than its weights.

    Attributes:
        policy: the policy itself, for :meth:`is_of` to compare with.
        layout: shape and dtype of its parameters and buffers.
        pickled: a copy on the CPU.
    """

    policy: object = None
    layout: tuple = ()
    pickled: bytes = b""

    @classmethod
    def of(cls, policy: Callable) -> Structure:
        """Pickle a policy, on the CPU.

        Raises:
            ConfigError: it has lazy parameters.
        """
        if isinstance(policy, nn.Module):
            require_initialised(policy)
        return cls(policy, _layout(policy), cloudpickle.dumps(on_cpu(policy)))

    def is_of(self, policy: Callable) -> bool:
        """Answer whether ``policy`` is the pickled module with the same tensor shapes; False for a plain callable."""
        return isinstance(policy, nn.Module) and policy is self.policy and _layout(policy) == self.layout


def state_of(policy: Callable) -> tuple[list[torch.Tensor], dict[str, object]]:
    """Return CPU copies of what training changes in a policy: parameters, buffers, and extra state by module path."""
    if not isinstance(policy, nn.Module):
        return [], {}
    extra = {path: copy.deepcopy(module.get_extra_state()) for path, module in _with_extra_state(policy)}
    return [tensor.detach().to("cpu", copy=True) for tensor in tensors_of(policy)], extra


@torch.no_grad()
def set_state_(policy: Callable, state: tuple[list[torch.Tensor], dict[str, object]]) -> None:
    """Write what :func:`state_of` returned into a copy of the policy."""
    if not isinstance(policy, nn.Module):
        return
    tensors, extra = state
    for mine, came in zip(tensors_of(policy), tensors, strict=True):
        mine.copy_(came)
    for path, module in _with_extra_state(policy):
        module.set_extra_state(extra[path])


def _with_extra_state(policy: nn.Module) -> list[tuple[str, nn.Module]]:
    plain = nn.Module.get_extra_state
    return [(path, module) for path, module in policy.named_modules() if type(module).get_extra_state is not plain]


def _layout(policy: Callable) -> tuple:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors_of(policy)) if has_weights(policy) else ()
