"""Tensors of several members as views of one tensor each: what moves the stack moves them all. It computes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchrl.errors import ConfigError, explain

Members = Sequence[Sequence[Tensor]]  # of each of S members the same list of tensors


class Stack:
    """Lay the tensors of S members side by side in memory, ``[S, ...]``, and make each member's a view of it.

    The members' tensors stay the objects they were, so modules, optimizers and all others that hold them see no
    difference.

    >>> layers = [nn.Linear(2, 1), nn.Linear(2, 1)]
    >>> stack = Stack("docs", [list(layer.parameters()) for layer in layers])
    >>> with torch.no_grad():
    ...     _ = stack.tensors[1].fill_(7.0)  # both biases, [2, 1]
    >>> layers[0].bias.item(), layers[1].bias.item()
    (7.0, 7.0)

    Args:
        who: who asks, for errors.
        members: of each member its tensors, in one order.
        names: of these tensors, for errors.

    Attributes:
        tensors: ``[S, ...]`` each.

    Raises:
        ConfigError: members whose tensors differ in number, shape, dtype or device, or that share a tensor.
    """

    def __init__(self, who: str, members: Members, names: Sequence[str] = ()) -> None:
        self.who, self._names = who, list(names)
        self._require_alike(members)
        self.tensors = [torch.stack([x.detach() for x in same]) for same in zip(*members, strict=True)]
        self._views = [tensor.unbind(0) for tensor in self.tensors]
        self.adopt(members)

    @torch.no_grad()
    def adopt(self, members: Members) -> None:
        """Copy the tensors that are no views of the stack into it, and make them views: a state that was loaded.

        Raises:
            ConfigError: a tensor has another form than the one it replaces.
        """
        for slot, same in enumerate(zip(*members, strict=True)):
            for index, (tensor, view) in enumerate(zip(same, self._views[slot], strict=True)):
                if tensor.data_ptr() == view.data_ptr():
                    continue
                if _form(tensor) != _form(view):
                    raise self._differ(slot, index, _form(view), _form(tensor))
                view.copy_(tensor)
                tensor.data = view

    def copies(self) -> list[Tensor]:
        """Return copies of the stacked tensors, for :meth:`restore_`."""
        return [tensor.clone() for tensor in self.tensors]

    @torch.no_grad()
    def restore_(self, copies: Sequence[Tensor]) -> None:
        """Put the tensors back to what :meth:`copies` returned."""
        torch._foreach_copy_(self.tensors, copies)

    def _require_alike(self, members: Members) -> None:
        for index, tensors in enumerate(members):
            if len(tensors) != len(members[0]):
                got = f"{len(members[0])} and {len(tensors)}"
                raise ConfigError(explain(self.who, expected="members with as many tensors each", got=got))
            for slot, (tensor, first) in enumerate(zip(tensors, members[0], strict=True)):
                if _form(tensor) != _form(first):
                    raise self._differ(slot, index, _form(first), _form(tensor))
        tensors = [id(tensor) for member in members for tensor in member]
        if len(set(tensors)) < len(tensors):
            hint = "Build each from a seed of its own."
            raise ConfigError(explain(self.who, expected="members that share no tensor", got="others", hint=hint))

    def _differ(self, slot: int, index: int, first: tuple, got: tuple) -> ConfigError:
        name = self._names[slot] if slot < len(self._names) else f"tensor {slot}"
        expected = f"{name} of shape {list(first[0])}, {first[1]} on {first[2]}"
        got = f"{list(got[0])}, {got[1]} on {got[2]} in member {index}"
        return ConfigError(explain(self.who, expected=expected, got=got))


def _form(tensor: Tensor) -> tuple:
    return tensor.shape, tensor.dtype, tensor.device
