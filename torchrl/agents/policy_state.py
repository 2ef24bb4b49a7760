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
    """A policy pickled for another process, which tells whether a later policy differs from it by its weights alone.

    Attributes:
        policy: the policy itself, kept so that it is recognised.
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
        """Answer whether a policy differs from the pickled module by its weights alone; never of a plain callable."""
        return isinstance(policy, nn.Module) and policy is self.policy and _layout(policy) == self.layout


def state_of(policy: Callable) -> tuple[list[torch.Tensor], dict[str, object]]:
    """Copy what training changes in a policy: parameters, all buffers, and the extra state of its modules by path."""
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
