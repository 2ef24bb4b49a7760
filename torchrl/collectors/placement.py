"""A policy that acts on another device than the environment's: it copies roots there and its results back."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.collectors.graph_policy import GraphPolicy
from torchrl.collectors.warmup import Progress
from torchrl.data.specs import TensorSpec
from torchrl.devices import device_of, find_device
from torchrl.errors import ConfigError, explain
from torchrl.modules.training_layers import training_layers


class PlacedPolicy:
    """Act with a copy of a policy, kept on ``device``, on roots that may live on another device.

    The copy shares the policy's random generators and warm-up counters, so that a checkpoint of the policy holds both.

    >>> placed = PlacedPolicy(actor, torch.device("cpu"))
    >>> with torch.no_grad():
    ...     _ = next(actor.parameters()).fill_(1.0)
    >>> (next(placed.copy.parameters()) == 1.0).all()
    tensor(False)
    >>> placed.refresh()
    >>> (next(placed.copy.parameters()) == 1.0).all()
    tensor(True)

    Args:
        policy: the policy being trained; its copy here changes only through :meth:`refresh`.
        device: where the copy acts.
        compile: let the copy act by one compiled graph, see :class:`GraphPolicy`.
    """

    def __init__(self, policy: nn.Module, device: torch.device, *, compile: bool = False) -> None:
        self.source = policy
        self.device = device
        shared = {id(part): part for part in _shared_parts(policy)}
        self.copy = copy.deepcopy(policy, shared).to(device)
        self._act = GraphPolicy(self.copy) if compile else self.copy

    def __call__(self, root: TensorDictBase) -> TensorDictBase:
        """Let the copy of the policy act on a root, ``[*B]``, and write its results into the root, on its device.

        Entries that the policy only reads are not copied back.
        """
        home, sent = device_of(root), root.to(self.device)
        read = dict(sent.items(include_nested=True, leaves_only=True))
        for key, value in self._act(sent).items(include_nested=True, leaves_only=True):
            if read.get(key) is not value:
                root.set(key, value.to(home))
        return root

    @property
    def in_keys(self) -> list:
        """The policy's ``in_keys``: the keys that it reads."""
        return self.copy.in_keys

    def require_fit(self, action_spec: TensorSpec, root: TensorDictBase) -> None:
        """Call the policy's ``require_fit``, if it has one, which refuses an action spec that it does not fit.

        Raises:
            SpecError: from the policy.
        """
        if hasattr(self.copy, "require_fit"):
            self.copy.require_fit(action_spec, root.to(self.device))

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy all parameters and buffers of the trained policy into the copy that acts."""
        for mine, theirs in zip(_tensors(self.copy), _tensors(self.source), strict=True):
            mine.copy_(theirs)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _shared_parts(module: nn.Module) -> list[torch.Generator | Progress]:
    values = [value for part in module.modules() for value in vars(part).values()]
    return [value for value in values if isinstance(value, (torch.Generator, Progress))]


def acting_layers(act: Callable) -> list[nn.Module]:
    """List the layers of a policy, or of its placed copy, that compute differently in training mode (dropout)."""
    act = act.policy if isinstance(act, GraphPolicy) else act
    return list(training_layers(act.copy if isinstance(act, PlacedPolicy) else act).values())


def place_policy(
    policy: Callable, device: torch.device | str | None, home: torch.device, *, compile: bool = False
) -> Callable:
    """Return what acts: the policy, or a :class:`PlacedPolicy` on ``device`` where roots or its tensors live elsewhere.

    Args:
        policy: maps a root to the same root with ``action``.
        device: where it shall act; None leaves it where it is.
        home: where roots live.
        compile: act by one compiled graph, see :class:`GraphPolicy`.

    Raises:
        ConfigError: the device is absent, or the policy is no module and cannot be moved.
    """
    here = GraphPolicy(policy) if compile else policy
    if device is None:
        return here
    device = find_device(device)
    if not isinstance(policy, nn.Module):
        if device == home:
            return here
        got = f"a {type(policy).__name__}"
        raise ConfigError(explain("Collector", expected=f"a torch module, to act on {device}", got=got))
    if device == home and all(tensor.device == device for tensor in _tensors(policy)):
        return here
    return PlacedPolicy(policy, device, compile=compile)
