"""A gradient step as one compiled graph: loss, gradient, clipping and Adam. Who calls it decides whether it counts."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase

from torchrl.agents.step_function import Entries, Facts, Outcome, StepFunction
from torchrl.graphs import Graph
from torchrl.objectives import Loss


class GraphStep:
    """Compute a gradient step of a loss by one compiled graph for each form of its rows; :meth:`commit` applies it.

    A number that a module or the optimizer holds as an attribute is a fact of the graph, but for the learning rate:
    where one has changed, another graph is compiled. Numbers that change often belong into buffers.

    Adam and AdamW are in the graph. With another optimizer the graph ends with the clipped gradients, and ``commit``
    calls ``optimizer.step()``. Optimizer and loss keep their states as they do without a graph.

    >>> optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=3e-4)
    >>> step = GraphStep("docs", loss, optimizer, max_grad_norm=0.5)  # compiles when it is called
    >>> step.num_graphs
    0

    Args:
        who: who takes the steps, for errors.
        loss: maps N transitions, ``[N]``, to a TensorDict of scalars, and perhaps ``td_error``, ``[n]``.
        optimizer: over ``loss.trainable_parameters()``.
        max_grad_norm: scales gradients down to this joint norm; None does not.
        max_grad_value: clips each entry of the gradients to ± this; None does not.
        report_norm: whether the scalars end with ``grad_norm``, the joint norm before clipping.

    Attributes:
        function: the step that is compiled.
    """

    def __init__(
        self,
        who: str,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        report_norm: bool = True,
    ) -> None:
        clipping = {"max_grad_norm": max_grad_norm, "max_grad_value": max_grad_value}
        self.who = who
        self.function = StepFunction(loss, optimizer, report_norm=report_norm, **clipping)
        self._graphs: dict[tuple, tuple[Graph, Facts]] = {}

    @property
    def num_graphs(self) -> int:
        """How many forms of rows this object has a graph for."""
        return len(self._graphs)

    @torch.no_grad()
    def __call__(self, rows: TensorDictBase, **flags: bool) -> Outcome:
        """Compute the step on rows ``[N]``; nothing is moved.

        Args:
            rows: what the loss reads.
            **flags: passed to the loss.

        Raises:
            ConfigError: the loss is no single graph of tensors.
        """
        step, entries = self.function, Entries.of(rows, flags)
        held = step.held()
        inputs = [*held, step.learning_rates(), *entries.tensors]
        # What a graph holds as a fact: another number, such as a mode or a discount, is another graph.
        form = (held[0].device, *entries.form, *step.numbers().values(), *step.adam_numbers())
        if form not in self._graphs:
            function, facts = step.function(entries)
            self._graphs[form] = Graph(self.who, function, inputs), facts
        program, facts = self._graphs[form]
        return step.outcome(facts, held, program(inputs))

    @torch.no_grad()
    def commit(self, outcome: Outcome) -> None:
        """Apply a step: move what it moves, or set gradients and call the optimizer."""
        if outcome.targets:
            torch._foreach_copy_(outcome.targets, outcome.moved)
        if not self.function.is_adam:
            for parameter, gradient in zip(self.function.parameters, outcome.gradients, strict=True):
                parameter.grad = gradient
            self.function.optimizer.step()
