"""A function of tensors that several members have in common, as one compiled program for all. It knows no losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.fx import GraphModule

from torchrl.errors import ConfigError, explain
from torchrl.graphs import Draw, Graph, constants_of, trace

Function = Callable[..., list[Tensor]]


class MappedGraph:
    """Map one graph over the first dimension of its inputs, ``[S, ...]``, and compile that into one program.

    Each of S members has a function; all of them must have one graph, but for the random generators that they draw
    from. What a member draws comes from its own.

    >>> double = MappedGraph("docs", [lambda x: [2 * x]] * 2, [[torch.zeros(3)]] * 2)  # doctest: +SKIP
    >>> double([torch.ones(2, 3)])  # doctest: +SKIP
    [tensor([[2., 2., 2.],
            [2., 2., 2.]])]

    Args:
        who: who asks, for errors.
        functions: of each member; pure, see :class:`~torchrl.graphs.Graph`.
        inputs: of each function, of which only the form counts.
        compile: False calls the operations of the mapped graph one by one.

    Raises:
        ConfigError: a function is no graph, or the graphs of two members differ.
    """

    def __init__(
        self, who: str, functions: Sequence[Function], inputs: Sequence[Sequence[Tensor]], *, compile: bool = True
    ) -> None:
        self.who, self.functions, self.compile = who, list(functions), compile
        self._compile(inputs)

    def __call__(self, inputs: Sequence[Tensor], active: Sequence[int] | None = None) -> list[Tensor]:
        """Return what the functions return, stacked, ``[S, ...]`` each.

        Args:
            inputs: stacked, ``[S, ...]`` each.
            active: members that count; the others draw nothing, and what comes of them means nothing. None: all.
        """
        if any(constant._version != version for constant, version in self._constants):
            self._compile([[x[index] for x in inputs] for index in range(len(self.functions))])
        return self._program([*inputs, *self._drawn(active)])

    def _drawn(self, active: Sequence[int] | None) -> list[Tensor]:
        if not self._draws[0]:
            return []
        if active is None:
            active = range(len(self._draws))
        drawn = {index: [draw() for draw in self._draws[index]] for index in active}
        spare = drawn[active[0]]
        members = [drawn.get(index, spare) for index in range(len(self._draws))]
        return [torch.stack(same) for same in zip(*members, strict=True)]

    def _compile(self, inputs: Sequence[Sequence[Tensor]]) -> None:
        traced = [trace(self.who, function, own) for function, own in zip(self.functions, inputs, strict=True)]
        graphs = [graph for graph, _ in traced]
        self._draws: list[list[Draw]] = [draws for _, draws in traced]
        for index, graph in enumerate(graphs):
            self._require_same(graphs[0], graph, index)
        constants = [constant for graph in graphs for constant in constants_of(graph).values()]
        self._constants = [(constant, constant._version) for constant in constants]
        stacked = [torch.stack([x.detach() for x in same]) for same in zip(*inputs, strict=True)]
        forms = [node.meta["val"] for node in graphs[0].graph.nodes if node.op == "placeholder"][len(stacked) :]
        num = len(graphs)
        stacked += [torch.zeros((num, *form.shape), dtype=form.dtype, device=form.device) for form in forms]
        mapped = partial(_listed, torch.vmap(graphs[0], randomness="different"))
        if self.compile:
            self._program = Graph(self.who, mapped, stacked)
        else:
            graph, _ = trace(self.who, mapped, stacked)
            self._program = partial(_spread, graph)

    def _require_same(self, first: GraphModule, graph: GraphModule, index: int) -> None:
        """Raise unless a member's graph is that of the first, numbers in it and constants included."""
        one, other = constants_of(first), constants_of(graph)
        is_same = first.code == graph.code and one.keys() == other.keys()
        if is_same and all(_is_equal(one[name], other[name]) for name in one):
            return
        hint = "Members of one population differ in weights, seeds and numbers, not in what they compute."
        got = f"another in member {index}"
        raise ConfigError(explain(self.who, expected="members with one graph", got=got, hint=hint))


def _listed(function: Callable, *tensors: Tensor) -> list[Tensor]:
    return list(function(*tensors))


def _spread(graph: GraphModule, tensors: list[Tensor]) -> list[Tensor]:
    return graph(*tensors)


def _is_equal(one: Tensor, other: Tensor) -> bool:
    return one is other or one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
