"""Target networks: frozen copies of networks, and two rules that update them. Losses say which networks have one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from torchrl.errors import ConfigError, explain
from torchrl.modules.randomness import generators_of
from torchrl.objectives.costs.base import Loss

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def target_copy(module: ModuleT) -> ModuleT:
    """Return a copy of a network that needs no gradient; tensors shared between its parts stay shared in the copy.

    >>> target = target_copy(critic)
    >>> any(parameter.requires_grad for parameter in target.parameters())
    False

    Random generators are not copied: the copy draws from the network's, so the two never get the same noise. Batch and
    instance norms of the copy are in eval mode.
    """
    shared = {id(generator): generator for generator in generators_of(module).values()}
    return freeze_statistics_(copy.deepcopy(module, shared).requires_grad_(False))


def freeze_statistics_(target: ModuleT) -> ModuleT:
    """Put the batch and instance norms of a target network into eval mode, and return the target network.

    So these layers use running statistics, which each update copies from the trained network, and learn none.
    """
    for module in target.modules():
        if isinstance(module, _NormBase):
            module.eval()
    return target


class _TargetUpdate:
    """Base of the rules that move a loss's target networks towards the trained ones; a subclass writes ``step``.

    Args:
        loss: has ``targets()``, which returns pairs of a trained network and its target.

    Raises:
        ConfigError: the loss has no target networks.
    """

    def __init__(self, loss: Loss) -> None:
        pairs = loss.targets() if hasattr(loss, "targets") else []
        if not pairs:
            who, got = type(self).__name__, type(loss).__name__
            raise ConfigError(explain(who, expected="a loss with target networks", got=got))
        blended = [entry for pair in pairs for entry in _entries_of("_parameters", *pair)]
        copied = [entry for pair in pairs for entry in _entries_of("_buffers", *pair)]
        self._blended = [entry for entry in blended if _is_blendable(entry)]
        self._copied = copied + [entry for entry in blended if not _is_blendable(entry)]
        self._empty = [entry for pair in pairs for entry in _entries_of("_buffers", *pair, empty=True)]
        self._extra = [two for network, target in pairs for two in _with_extra_state(network, target)]

    def _copy_buffers(self) -> None:
        """Copy what networks hold beside float parameters to their targets: buffers, int parameters, extra state."""
        for ours, theirs, name in self._copied:
            ours[name].copy_(theirs[name])
        for entry in [entry for entry in self._empty if entry[1][entry[2]] is not None]:  # filled by the first data
            ours, theirs, name = entry
            ours[name] = theirs[name].detach().clone()
            self._empty.remove(entry)
            self._copied.append(entry)
        for network, target in self._extra:
            target.set_extra_state(copy.deepcopy(network.get_extra_state()))


Entry = tuple[dict, dict, str]


def _entries_of(kind: str, network: nn.Module, target: nn.Module, *, empty: bool = False) -> Iterator[Entry]:
    """Yield ``(dict of the target, dict of the network, name)`` for each tensor, or with ``empty`` for each None.

    The dicts are the modules' attribute ``kind``, ``_parameters`` or ``_buffers``; a shared tensor is yielded once. An
    update keeps these places, since the search takes longer than the update, and not the tensors, since ``.to()``
    replaces buffers.
    """
    seen: set[int] = set()
    for theirs, ours in zip(network.modules(), target.modules(), strict=True):
        kept, followed = getattr(ours, kind), getattr(theirs, kind)
        for name, tensor in kept.items():
            if tensor is None:
                if empty:
                    yield kept, followed, name
            elif not empty and id(tensor) not in seen:
                seen.add(id(tensor))
                yield kept, followed, name


def _is_blendable(entry: Entry) -> bool:
    tensors, _, name = entry
    return tensors[name].is_floating_point() or tensors[name].is_complex()


def _with_extra_state(network: nn.Module, target: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    for theirs, ours in zip(network.modules(), target.modules(), strict=True):
        if type(theirs).get_extra_state is not nn.Module.get_extra_state:
            yield theirs, ours


def _tensors_at(entries: list[Entry]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return two lists: the target's tensor of each entry, and the network's."""
    return [ours[name] for ours, _, name in entries], [theirs[name] for _, theirs, name in entries]


class SoftUpdate(_TargetUpdate):
    """Move a loss's target networks at each :meth:`step` by ``θ' ← (1 - τ) θ' + τ θ``; buffers are copied.

    >>> from torchrl.modules import QValueActor
    >>> from torchrl.objectives import DQNLoss
    >>> loss = DQNLoss(QValueActor(nn.Linear(1, 1, bias=False)))
    >>> network, target = (x.module.weight.data for x in (loss.actor, loss.target_actor))
    >>> network.fill_(4.0), target.fill_(0.0), SoftUpdate(loss, tau=0.25).step()
    (tensor([[4.]]), tensor([[1.]]), None)

    Buffers are statistics, counters and constants: a blended mean beside a copied count would describe no data.

    Lillicrap et al., "Continuous control with deep reinforcement learning" (2016), https://arxiv.org/abs/1509.02971,
    section 3.

    Args:
        loss: its targets are updated.
        tau: τ, above 0 and at most 1.

    Raises:
        ConfigError: the loss has no target networks, or τ is out of its range.
    """

    def __init__(self, loss: Loss, *, tau: float = 0.005) -> None:
        super().__init__(loss)
        if not 0 < tau <= 1:
            raise ConfigError(explain("SoftUpdate", expected="tau above 0 and at most 1", got=tau))
        self.tau = tau

    @torch.no_grad()
    def step(self) -> None:
        """Move the targets once; call it after each gradient step, as ``ReplayUpdates(target_update=...)`` does."""
        targets, networks = _tensors_at(self._blended)
        torch._foreach_lerp_(targets, networks, self.tau)
        self._copy_buffers()

    def state_dict(self) -> dict:
        """Return an empty dict: the target networks are part of the loss's state."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Do nothing: the target networks are part of the loss's state."""


class HardUpdate(_TargetUpdate):
    """Copy a loss's networks into their targets at every ``interval``-th call of :meth:`step`.

    >>> from torchrl.modules import MLP, QValueActor
    >>> from torchrl.objectives import DQNLoss
    >>> update = HardUpdate(DQNLoss(QValueActor(MLP(4, 2))), interval=100)
    >>> update.step()  # after each gradient step; the hundredth copies
    >>> update.num_steps
    1

    Mnih et al., "Human-level control through deep reinforcement learning" (2015), algorithm 1.

    Args:
        loss: its targets are updated.
        interval: gradient steps from one copy to the next.

    Raises:
        ConfigError: the loss has no target networks, or the interval is below 1.
    """

    def __init__(self, loss: Loss, *, interval: int = 1000) -> None:
        super().__init__(loss)
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise ConfigError(explain("HardUpdate", expected="an interval of at least 1", got=repr(interval)))
        self.interval = interval
        self.num_steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Count one gradient step, and copy the networks into their targets at every ``interval``-th.

        Call it after each gradient step, as ``ReplayUpdates(target_update=...)`` does.
        """
        self.num_steps += 1
        if self.num_steps % self.interval:
            return
        targets, networks = _tensors_at(self._blended)
        torch._foreach_copy_(targets, networks)
        self._copy_buffers()

    def state_dict(self) -> dict:
        """Return the number of steps counted, so that a resumed run copies at the same steps."""
        return {"num_steps": self.num_steps}

    def load_state_dict(self, state: dict) -> None:
        """Set the number of steps counted to that of a :meth:`state_dict`."""
        self.num_steps = state["num_steps"]
