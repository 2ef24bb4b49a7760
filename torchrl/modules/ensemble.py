"""Several networks of one structure as one module, with their parameters stacked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.modules.models.arguments import factory, positive
from torchrl.modules.models.mlp import MLP

Stage = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


class Ensemble(nn.Module):
    """Run ``num`` networks of one structure and of independent initial weights side by side.

    >>> Ensemble(lambda: MLP(4, 1), num=5)(torch.zeros(8, 4)).shape
    torch.Size([5, 8, 1])

    Every parameter and buffer is one stacked tensor, ``[E, ...]``, named as in a single network with ``module.`` before
    it, so that ``state_dict``, optimisers, target copies and ``.to`` see one ordinary module. Values and gradients are
    those of E separate networks.

    An MLP, or an ``nn.Sequential`` of layers, runs layer by layer: Linear layers as one batched matrix product,
    LayerNorm and the common activations for all members at once, and any other layer for one member after another, on
    views of the stacked parameters. A network of another class counts as one such layer. Forward hooks on layers are
    not called, or see another layout.

    Shapes: ``ensemble(x)`` gives every member the same input ``[*B, ...]``, ``ensemble.each(x)`` gives each its own,
    ``[E, *B, ...]``; the output is ``[E, *B, ...]``, or a tuple of these. E, the members, is no batch dimension of a
    TensorDict whose batch is ``[*B]``: reduce it, or move it behind, before writing it there.

    Args:
        make_module: builds one member from scratch at each call, weights and all. A special initialisation belongs
            into it: ``lambda: orthogonal_init_(MLP(4, 1), last_gain=1.0)``.
        num: E, how many members.

    Raises:
        ConfigError: ``num`` is no positive integer, the members differ in structure, share a tensor, or have lazy
            layers.
        SpecError: from :meth:`each`, the first dimension of an input is not E.
    """

    def __init__(self, make_module: Callable[[], nn.Module], num: int) -> None:
        super().__init__()
        self.num = positive("Ensemble(num=...)", num)
        factory("Ensemble(make_module=...)", make_module)
        members = [make_module() for _ in range(self.num)]
        _require_alike(members)
        self.module = members[0]
        _replace_tensors_(self.module, lambda name, _: torch.stack([_tensors(member)[name] for member in members]))
        self.stages = list(_stages(self.module))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        return self._run(tuple(x.expand(self.num, *x.shape) for x in inputs))

    def each(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run member i on ``x[i]`` of every input ``[E, *B, ...]``; return ``[E, *B, ...]``, or a tuple of these.

        Raises:
            SpecError: the first dimension of an input is not E.
        """
        if any(x.shape[:1] != (self.num,) for x in inputs):
            got = [list(x.shape) for x in inputs]
            raise SpecError(explain("Ensemble.each", expected=f"inputs [{self.num}, *B, ...]", got=got))
        return self._run(inputs)

    def member(self, index: int) -> nn.Module:
        """Return a copy of one member as an ordinary network, trained apart from now on.

        Raises:
            IndexError: there is no such member.
        """
        if not -self.num <= index < self.num:
            raise IndexError(explain("Ensemble.member", expected=f"an index below {self.num}", got=index))
        member = copy.deepcopy(self.module)
        _replace_tensors_(member, lambda _, tensor: tensor[index].clone())
        return member

    def extra_repr(self) -> str:
        return f"num={self.num}"

    def _run(self, values: tuple[torch.Tensor, ...]) -> torch.Tensor | tuple[torch.Tensor, ...]:
        result: torch.Tensor | tuple[torch.Tensor, ...] = values
        for stage, layer in self.stages:
            result = stage(layer, *values)
            values = (result,)
        return result


# One function for each way to run a layer on [E, *B, F] whose parameters are [E, ...].


def _at_once(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return layer(x)


def _dense(layers: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """Run consecutive Linear layers and activations on x, ``[E, *B, F]``, computing weight · xᵀ, ``[E, F, B]``.

    So the gradient of the weight comes out in the weight's own layout, and need not be copied into it.
    """
    columns = x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)
    is_ours = False  # whether nothing but what comes next reads these columns
    for layer in layers:
        if type(layer) is nn.Linear:
            weight, bias = layer.weight, layer.bias
            columns = torch.bmm(weight, columns) if bias is None else torch.baddbmm(bias.unsqueeze(-1), weight, columns)
        else:
            columns = torch.relu_(columns) if is_ours and type(layer) is nn.ReLU else layer(columns)
        is_ours = type(layer) is nn.Linear
    return columns.transpose(1, 2).reshape(*x.shape[:-1], columns.shape[1])


def _layer_norm(layer: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    y = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    between = (1,) * (x.ndim - 1 - len(layer.normalized_shape))  # [E, ...] to [E, 1, ..., 1, ...]
    for tensor, combine in ((layer.weight, torch.mul), (layer.bias, torch.add)):
        if tensor is not None:
            y = combine(y, tensor.reshape(len(tensor), *between, *layer.normalized_shape))
    return y


def _concatenate(layer: MLP, *inputs: torch.Tensor) -> torch.Tensor:
    return inputs[0] if len(inputs) == 1 else torch.cat(inputs, -1)


def _one_by_one(layer: nn.Module, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
    tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}  # tied ones follow their first name
    results = []
    for index in range(len(inputs[0])):
        own = {name: tensor[index] for name, tensor in tensors.items()}
        results.append(functional_call(layer, own, tuple(x[index] for x in inputs)))
    if isinstance(results[0], torch.Tensor):
        return torch.stack(results)
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


ELEMENTWISE = (
    nn.Dropout,
    nn.ELU,
    nn.GELU,
    nn.Identity,
    nn.LeakyReLU,
    nn.Mish,
    nn.ReLU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Tanh,
)
STAGES: dict[type[nn.Module], Stage] = {
    MLP: _concatenate,  # its layers follow
    nn.LayerNorm: _layer_norm,
    **dict.fromkeys(ELEMENTWISE, _at_once),
}


def _stages(module: nn.Module) -> Iterator[tuple[Stage, nn.Module | list[nn.Module]]]:
    """Yield, in the order of the forward pass, a function and the layer (or list of layers) that it runs."""
    run: list[nn.Module] = []
    for layer in _layers(module):
        if type(layer) is nn.Linear or (run and type(layer) in ELEMENTWISE):
            run.append(layer)
            continue
        if run:
            yield _dense, run
            run = []
        yield STAGES.get(type(layer), _one_by_one), layer
    if run:
        yield _dense, run


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a network in order, those of a nested ``Sequential`` one by one, an MLP before its layers."""
    if type(module) is MLP:
        yield module
        module = module.layers
    if type(module) is nn.Sequential:
        for layer in module:
            yield from _layers(layer)
    else:
        yield module


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name; a shared one under each of its names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _replace_tensors_(module: nn.Module, make: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Replace every parameter and buffer by ``make(name, tensor)``; shared tensors stay shared."""
    made: dict[int, torch.Tensor] = {}
    for name, tensor in _tensors(module).items():
        if id(tensor) not in made:
            new = make(name, tensor).detach()
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad) if is_parameter else new
        path, _, last = name.rpartition(".")
        setattr(module.get_submodule(path), last, made[id(tensor)])


def _require_alike(members: list[nn.Module]) -> None:
    """Refuse members that cannot be stacked: lazy ones, ones of different structure, or two that share a tensor."""
    who = "Ensemble"
    lazy = [name for name, tensor in _tensors(members[0]).items() if is_lazy(tensor)]
    if lazy:
        hint = "Give the layers their input sizes: members are stacked when they are made."
        raise ConfigError(explain(who, expected="members of known sizes", got=f"lazy {', '.join(lazy)}", hint=hint))
    forms = [_form(member) for member in members]
    for form in forms[1:]:
        if form != forms[0]:
            raise ConfigError(explain(who, expected=f"members like the first, {forms[0]}", got=form))
    seen: set[int] = set()
    for member in members:
        own = {id(tensor) for tensor in _tensors(member).values()}
        if own & seen:
            hint = "make_module must build everything anew at each call."
            raise ConfigError(explain(who, expected="members that share nothing", got="one tensor in two", hint=hint))
        seen |= own


def _form(member: nn.Module) -> tuple[list[str], dict[str, list[int]]]:
    """Return the class names of all submodules and the shapes of all tensors."""
    shapes = {name: list(tensor.shape) for name, tensor in _tensors(member).items()}
    return [type(part).__name__ for part in member.modules()], shapes
