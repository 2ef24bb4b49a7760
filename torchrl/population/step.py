"""The gradient steps of several members by one program, and the members' tensors that it moves. It shuffles nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

import torch
from torch import Tensor

from torchrl.agents.step_function import Entries, Facts, Outcome, StepFunction
from torchrl.errors import ConfigError, NonFiniteError, explain
from torchrl.population.mapped import MappedGraph
from torchrl.population.stacking import Stack


class MappedStep:
    """Compute the gradient steps of S members by one program for each form of their rows; :meth:`commit` applies them.

    The members' parameters, buffers and moments of Adam become views of stacked tensors, see :class:`Stack`. Learning
    rates may differ between members, and so may fractional numbers that modules of their losses hold, such as a
    discount: these become inputs of the program. With another optimizer than Adam the program ends with the gradients,
    and each member's optimizer takes its step by itself.

    >>> from copy import deepcopy
    >>> losses = [loss, deepcopy(loss)]
    >>> members = [StepFunction(x, torch.optim.Adam(x.trainable_parameters())) for x in losses]
    >>> step = MappedStep("docs", members)  # compiles when it is called
    >>> step.num_graphs, step.stack.tensors[0].shape[0]
    (0, 2)

    Args:
        who: who takes the steps, for errors.
        steps: of each member.
        names: of the members, for errors; None numbers them.

    Attributes:
        names: of the members.
        stack: holds the members' tensors.

    Raises:
        ConfigError: members that differ in more than weights, seeds and numbers.
    """

    def __init__(self, who: str, steps: Sequence[StepFunction], names: Sequence[str] | None = None) -> None:
        self.who, self.steps = who, list(steps)
        self.names = [f"member {index}" for index in range(len(steps))] if names is None else list(names)
        require_same(who, "optimizer", [type(step.optimizer).__name__ for step in self.steps], self.names)
        require_same(who, "kind of Adam", [step.is_adam for step in self.steps], self.names)
        for name in ("max_grad_norm", "max_grad_value", "report_norm"):
            require_same(who, name, [getattr(step, name) for step in self.steps], self.names)
        self.stack = Stack(who, [step.held() for step in self.steps], self.steps[0].names())
        self._graphs: dict[tuple, tuple[MappedGraph, Facts]] = {}
        self._varying: list[str] = []
        self.refresh()

    @property
    def num_graphs(self) -> int:
        """How many forms of rows this object has a program for."""
        return len(self._graphs)

    @torch.no_grad()
    def refresh(self) -> None:
        """Look at what members may have changed since the last steps: loaded states, learning rates, numbers.

        Raises:
            ConfigError: members differ in a number that is none of a loss's fractions.
        """
        steps = self.steps
        self.stack.adopt([step.held() for step in steps])
        require_same(self.who, "betas, eps and weight_decay of Adam", [x.adam_numbers() for x in steps], self.names)
        members = [step.numbers() for step in steps]
        for name, numbers in zip(self.names, members, strict=True):
            alone = sorted(numbers.keys() ^ members[0].keys())
            if alone:
                got = f"one named {alone[0]} in {name if alone[0] in numbers else self.names[0]} alone"
                raise ConfigError(explain(self.who, expected="the same numbers in all members", got=got))
        for path, number in members[0].items():
            numbers = [own[path] for own in members]
            if any(x != number for x in numbers) and path not in self._varying:
                if not all(isinstance(x, Real) and not isinstance(x, bool) for x in numbers):
                    require_same(self.who, path, numbers, self.names)
                self._varying.append(path)
        self._facts = [x for path, x in members[0].items() if path not in self._varying]
        self._facts += steps[0].adam_numbers()
        like = steps[0].parameters[0]
        numbers = [like.new_tensor([own[path] for own in members]) for path in self._varying]
        self._numbers = [torch.stack([step.learning_rates() for step in steps]), *numbers]

    @torch.no_grad()
    def __call__(self, entries: Entries, active: Sequence[int] | None = None) -> Outcome:
        """Compute the steps on rows ``[S, N]``; nothing is moved. Every tensor of the outcome begins with S.

        Args:
            entries: what the losses read, of all members.
            active: members that step; None for all.

        Raises:
            ConfigError: the losses are no single graph of tensors.
        """
        inputs = [*self.stack.tensors, *self._numbers, *entries.tensors]
        form = (*entries.form, *self._varying, *self._facts)
        if form not in self._graphs:
            self._graphs[form] = self._compiled(entries, inputs)
        program, facts = self._graphs[form]
        return self.steps[0].outcome(facts, self.stack.tensors, program(inputs, active))

    @torch.no_grad()
    def commit(self, outcome: Outcome, active: Sequence[int] | None = None) -> None:
        """Move what the steps of the active members move; None for all."""
        if active is None or len(active) == len(self.steps):
            active = range(len(self.steps))
            if outcome.targets:
                torch._foreach_copy_(outcome.targets, outcome.moved)
        else:
            where = torch.tensor(active, device=outcome.values.device)
            for target, moved in zip(outcome.targets, outcome.moved, strict=True):
                target.index_copy_(0, where, moved.index_select(0, where))
        if self.steps[0].is_adam:
            return
        for index in active:
            step = self.steps[index]
            for parameter, gradient in zip(step.parameters, outcome.gradients, strict=True):
                parameter.grad = None if gradient is None else gradient[index]
            step.optimizer.step()

    def _compiled(self, entries: Entries, inputs: Sequence[Tensor]) -> tuple[MappedGraph, Facts]:
        one = entries._replace(size=entries.size[1:])
        functions, facts = zip(*[step.function(one, self._varying) for step in self.steps], strict=True)
        own = [[x[index] for x in inputs] for index in range(len(self.steps))]
        try:
            graph = MappedGraph(self.who, functions, own)
        except ConfigError as error:
            if not self._varying:
                raise
            raise ConfigError(f"{error} Numbers that differ between members: {', '.join(self._varying)}.") from error
        require_same(self.who, "names of what a step reports", [x.names for x in facts], self.names)
        return graph, facts[0]


def require_same(who: str, what: str, values: Sequence[object], names: Sequence[str]) -> None:
    """Refuse a setting in which members differ.

    Raises:
        ConfigError: naming two members that do.
    """
    for name, value in zip(names, values, strict=True):
        if value != values[0]:
            expected = f"the same {what} in all members"
            raise ConfigError(explain(who, expected=expected, got=f"{values[0]} in {names[0]} and {value} in {name}"))


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a member in front of the message of a :class:`NonFiniteError` from a ``with`` block."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(f"{name}: {error}") from error
