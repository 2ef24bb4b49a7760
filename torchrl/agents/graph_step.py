"""A gradient step as one compiled graph: loss, gradient, clipping and Adam. Who calls it decides whether it counts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from torchrl.graphs import Graph
from torchrl.keys import Key
from torchrl.objectives import Loss, total_loss

TD_ERROR, GRAD_NORM = "td_error", "grad_norm"
STATE = ("step", "exp_avg", "exp_avg_sq")  # of one parameter in Adam's state


class Outcome(NamedTuple):
    """Hold what a step computed, before anything is moved.

    Attributes:
        names: of the scalars.
        values: the scalars, ``[k]``; of ``td_error`` its mean.
        td_error: of each row, ``[n]``; None where the loss has none.
        targets: tensors to overwrite: buffers that the loss changes, and what Adam moves.
        moved: what they become.
        gradients: of every parameter, clipped, or None for one without; empty where Adam is in the graph.
    """

    names: tuple[str, ...]
    values: Tensor
    td_error: Tensor | None
    targets: list[Tensor]
    moved: list[Tensor]
    gradients: list[Tensor | None]


class _Facts:
    """What tracing finds out about a step: names of the scalars, and which tensors it moves."""

    names: tuple[str, ...] = ()
    has_td_error = False
    trained: tuple[int, ...] = ()  # parameters that get a gradient
    changed: tuple[int, ...] = ()  # buffers that the loss writes to


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
        self.who, self.loss, self.optimizer = who, loss, optimizer
        self.max_grad_norm, self.max_grad_value, self.report_norm = max_grad_norm, max_grad_value, report_norm
        self._parameters = list(loss.trainable_parameters())
        names = {id(parameter): name for name, parameter in loss.named_parameters()}
        self._names = [names[id(parameter)] for parameter in self._parameters]
        self._frozen = list(_held(loss, "_parameters", without=self._names))
        self._buffers = list(_held(loss, "_buffers"))
        # What a graph holds as a fact: another number, such as a mode or a discount, is another graph.
        self._numbers = [
            (vars(module), name)
            for module in loss.modules()
            for name, value in vars(module).items()
            if isinstance(value, (bool, int, float, str))
        ]
        self._graphs: dict[tuple, tuple[Graph, _Facts]] = {}
        self._is_adam = _is_adam(optimizer)
        self._group_of = {id(x): k for k, group in enumerate(optimizer.param_groups) for x in group["params"]}
        self._rates, self._rate = [], torch.empty(0)

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
        entries = {key: x.contiguous() for key, x in rows.items(include_nested=True, leaves_only=True)}
        buffers = [holder[name] for holder, name, _ in self._buffers]
        moments = self._moments()
        inputs = [*self._parameters, *[holder[name] for holder, name, _ in self._frozen], *buffers, *moments]
        inputs += [self._learning_rates(), *entries.values()]
        form = (self._parameters[0].device, rows.batch_size, *flags.items())
        form += tuple([(key, x.shape, x.dtype, x.device) for key, x in entries.items()])
        form += tuple([holder[name] for holder, name in self._numbers])
        if self._is_adam:
            form += tuple([(x["betas"], x["eps"], x["weight_decay"]) for x in self.optimizer.param_groups])
        if form not in self._graphs:
            facts = _Facts()
            traced = partial(self._traced, facts, list(entries), rows.batch_size, flags)
            self._graphs[form] = Graph(self.who, traced, inputs), facts
        program, facts = self._graphs[form]
        outputs = program(inputs)
        td_error = outputs.pop() if facts.has_td_error else None
        values = outputs.pop()
        targets = [buffers[index] for index in facts.changed]
        if self._is_adam:
            moving = [self._parameters, *[moments[part :: len(STATE)] for part in range(len(STATE))]]
            targets += [tensors[index] for index in facts.trained for tensors in moving]
            return Outcome(facts.names, values, td_error, targets, outputs, [])
        gradients: list[Tensor | None] = [None] * len(self._parameters)
        for index, gradient in zip(facts.trained, outputs[len(targets) :], strict=True):
            gradients[index] = gradient
        return Outcome(facts.names, values, td_error, targets, outputs[: len(targets)], gradients)

    @torch.no_grad()
    def commit(self, outcome: Outcome) -> None:
        """Apply a step: move what it moves, or set gradients and call the optimizer."""
        if outcome.targets:
            torch._foreach_copy_(outcome.targets, outcome.moved)
        if not self._is_adam:
            for parameter, gradient in zip(self._parameters, outcome.gradients, strict=True):
                parameter.grad = gradient
            self.optimizer.step()

    # ---- what goes in ------------------------------------------------------------------------------------------------

    def _moments(self) -> list[Tensor]:
        """Return the state of Adam, three tensors for each parameter; begin it where there is none."""
        if not self._is_adam:
            return []
        moments = []
        for parameter in self._parameters:
            state = self.optimizer.state[parameter]
            if not state:  # as torch begins it
                state["step"] = torch.zeros((), device=parameter.device)
                for name in STATE[1:]:
                    state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            if state["step"].device != parameter.device:  # Adam without ``fused`` counts on the CPU
                state["step"] = state["step"].to(parameter.device)
            moments += [state[name] for name in STATE]
        return moments

    def _learning_rates(self) -> Tensor:
        """Return the rate of each group, ``[G]``: a schedule changes it, and a number in the graph would stay.

        On one device it is always the same tensor, so that a CUDA graph of the step reads what the rate is now.
        """
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        device = self._parameters[0].device
        if rates != self._rates or device != self._rate.device:
            self._rates, rate = rates, torch.tensor(rates, dtype=torch.float64)
            if self._rate.shape != rate.shape or self._rate.device != device:
                self._rate = rate.to(device)
            else:
                self._rate.copy_(rate, non_blocking=True)
        return self._rate

    # ---- what is traced ----------------------------------------------------------------------------------------------

    def _traced(
        self, facts: _Facts, keys: list[Key], size: torch.Size, flags: dict[str, bool], *inputs: Tensor
    ) -> list[Tensor]:
        """Compute a step, and note what it reports and moves; called once for a graph."""
        rest = iter(inputs)
        parameters = [x.detach().requires_grad_() for x in islice(rest, len(self._parameters))]
        frozen = list(islice(rest, len(self._frozen)))
        buffers = [x.clone() for x in islice(rest, len(self._buffers))]  # a loss may write to them
        versions = [x._version for x in buffers]
        moments = list(islice(rest, len(STATE) * len(parameters) if self._is_adam else 0))
        rates, rows = next(rest), TensorDict(dict(zip(keys, rest, strict=True)), batch_size=size)
        named = zip([name for *_, name in (*self._frozen, *self._buffers)], [*frozen, *buffers], strict=True)
        swapped = dict(zip(self._names, parameters, strict=True)) | dict(named)
        with torch.enable_grad():
            losses = torch.func.functional_call(self.loss, swapped, (rows,), flags)
            found = torch.autograd.grad(total_loss(losses), parameters, allow_unused=True)
        facts.trained = tuple(index for index, gradient in enumerate(found) if gradient is not None)
        facts.changed = tuple(k for k, (x, old) in enumerate(zip(buffers, versions, strict=True)) if x._version != old)
        numbers = {name: value.detach() for name, value in losses.items()}
        td_error = numbers.get(TD_ERROR)
        if td_error is not None:
            numbers[TD_ERROR], facts.has_td_error = td_error.mean(), True
        gradients, norm = self._clipped([found[index] for index in facts.trained])
        if self.report_norm:
            numbers[GRAD_NORM] = norm
        facts.names = tuple(numbers)
        moved = gradients if not self._is_adam else list(self._adam(facts, parameters, gradients, moments, rates))
        outputs = [*[buffers[index] for index in facts.changed], *moved, torch.stack(list(numbers.values()))]
        return outputs if td_error is None else [*outputs, td_error]

    def _clipped(self, gradients: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the gradients, clipped, and the joint norm they had, ``[]``."""
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        if self.max_grad_norm is not None:
            scale = self.max_grad_norm / norm.clamp(min=self.max_grad_norm)
            gradients = [gradient * scale for gradient in gradients]
        elif self.max_grad_value is not None:
            gradients = [gradient.clamp(-self.max_grad_value, self.max_grad_value) for gradient in gradients]
        return gradients, norm

    def _adam(
        self, facts: _Facts, parameters: list[Tensor], gradients: list[Tensor], moments: list[Tensor], rates: Tensor
    ) -> Iterator[Tensor]:
        """Yield each trained parameter and its state after a step of Adam (Kingma and Ba, 2015, algorithm 1)."""
        for index, gradient in zip(facts.trained, gradients, strict=True):
            at = len(STATE) * index
            x, step, mean, square = parameters[index].detach(), *moments[at : at + len(STATE)]
            number = self._group_of[id(self._parameters[index])]
            group, rate = self.optimizer.param_groups[number], rates[number]
            (beta1, beta2), decay = group["betas"], group["weight_decay"]
            if decay and group.get("decoupled_weight_decay", False):  # AdamW
                x = x * (1 - rate * decay).to(x.dtype)
            elif decay:
                gradient = gradient + decay * x
            step = step + 1
            count = step.double()
            mean = torch.lerp(mean, gradient, 1 - beta1)
            square = square * beta2 + gradient * gradient * (1 - beta2)
            size = (rate / (1 - beta1**count)).to(x.dtype)
            scale = (1 - beta2**count).sqrt().to(x.dtype)
            yield from (x - size * mean / (square.sqrt() / scale + group["eps"]), step, mean, square)


def _is_adam(optimizer: torch.optim.Optimizer) -> bool:
    """Answer whether an optimizer is Adam or AdamW of torch, in the form of the papers."""
    kinds = ("amsgrad", "maximize", "differentiable")
    is_kind = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
    return is_kind and not any(group[kind] for group in optimizer.param_groups for kind in kinds)


def _held(loss: Loss, attribute: str, without: list[str] = ()) -> Iterator[tuple[dict, str, str]]:
    """Yield ``(dict, name in it, name in the loss)`` of the parameters or the buffers of a loss, each tensor once."""
    seen = set()
    for prefix, module in loss.named_modules():
        for name, tensor in getattr(module, attribute).items():
            path = f"{prefix}.{name}" if prefix else name
            if tensor is not None and id(tensor) not in seen and path not in without:
                seen.add(id(tensor))
                yield getattr(module, attribute), name, path
