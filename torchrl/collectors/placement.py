"""A policy on another device than the environment: one copy of the batch in each direction."""

from __future__ import annotations

import copy

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn


class PlacedPolicy:
    """Act with a copy of a policy that lives on ``device``, on roots that live on the CPU.

    Args:
        policy: the policy being trained; its copy here changes only through :meth:`refresh`.
        device: where the copy acts.
    """

    def __init__(self, policy: nn.Module, device: torch.device) -> None:
        self.source = policy
        self.device = device
        self.copy = copy.deepcopy(policy).to(device)

    def __call__(self, root: TensorDictBase) -> TensorDictBase:
        """Act on a root, ``[*B]``; what the policy wrote comes back to the root's device, in the container given."""
        acted = self.copy(root.to(self.device))
        return root.update(acted.to(_device_of(root)))

    def refresh(self) -> None:
        """Copy parameters and buffers (exploration and statistics included) from the trained policy."""
        self.copy.load_state_dict(self.source.state_dict())


def _device_of(root: TensorDict) -> torch.device:
    return next(iter(root.values(include_nested=True, leaves_only=True))).device
