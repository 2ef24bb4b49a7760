"""A gradient step of a loss as a pure function of tensors: loss, gradient, clipping and Adam. It compiles nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

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


class Facts:
    """Hold what tracing finds out about a step: names of the scalars, and which tensors it moves."""

    names: tuple[str, ...] = ()
    has_td_error = False
    trained: tuple[int, ...] = ()  # parameters that get a gradient
    changed: tuple[int, ...] = ()  # buffers that the loss writes to


class Entries(NamedTuple):
    """Hold the rows of a step as a list of tensors, and what a graph made for them takes as given.

    Attributes:
        keys: of the rows.
        size: their batch size.
        flags: passed to the loss.
        tensors: one for each key.
    """

    keys: list[Key]
    size: torch.Size
    flags: dict[str, bool]
    tensors: list[Tensor]

    @classmethod
    def of(cls, rows: TensorDictBase, flags: Mapping[str, bool]) -> Entries:
        """Return the entries of rows ``[N]``."""
        entries = {key: x.contiguous() for key, x in rows.items(include_nested=True, leaves_only=True)}
        return cls(list(entries), rows.batch_size, dict(flags), list(entries.values()))

    @property
    def form(self) -> tuple:
        """What decides, beside the loss, on the graph: flags and keys, shapes, dtypes and devices."""
        forms = [(key, x.shape, x.dtype, x.device) for key, x in zip(self.keys, self.tensors, strict=True)]
        return (self.size, *self.flags.items(), *forms)


class StepFunction:
    """Write a gradient step of a loss as a function that takes tensors and returns new ones.

    The function takes :meth:`held`, :meth:`learning_rates`, numbers and the entries of the rows, in this order, and
    returns what :meth:`outcome` reads. Adam and AdamW are in it. With another optimizer it ends with the gradients.

    >>> optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=3e-4)
    >>> step = StepFunction(loss, optimizer, max_grad_norm=0.5)
    >>> step.is_adam, step.learning_rates().tolist()
    (True, [0.0003])

    Args:
        loss: maps N transitions, ``[N]``, to a TensorDict of scalars, and perhaps ``td_error``, ``[n]``.
        optimizer: over ``loss.trainable_parameters()``.
        max_grad_norm: scales gradients down to this joint norm; None does not.
        max_grad_value: clips each entry of the gradients to ± this; None does not.
        report_norm: whether the scalars end with ``grad_norm``, the joint norm before clipping.

    Attributes:
        is_adam: whether the optimizer is Adam or AdamW, in the form of the papers.
        parameters: those that the loss trains.
    """

    def __init__(
        self,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        report_norm: bool = True,
    ) -> None:
        self.loss, self.optimizer = loss, optimizer
        self.max_grad_norm, self.max_grad_value, self.report_norm = max_grad_norm, max_grad_value, report_norm
        self.is_adam = _is_adam(optimizer)
        self.parameters = list(loss.trainable_parameters())
        names = {id(parameter): name for name, parameter in loss.named_parameters()}
        self._names = [names[id(parameter)] for parameter in self.parameters]
        self._frozen = list(_held(loss, "_parameters", without=self._names))
        self._buffers = list(_held(loss, "_buffers"))
        self._numbers = [
            (vars(module), name, f"{path}.{name}" if path else name)
            for path, module in loss.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, (bool, int, float, str))
        ]
        self._group_of = {id(x): k for k, group in enumerate(optimizer.param_groups) for x in group["params"]}
        self._rates, self._rate = [], torch.empty(0)

    # ---- what goes in ------------------------------------------------------------------------------------------------

    def held(self) -> list[Tensor]:
        """Return the tensors of loss and optimizer that a step reads: parameters, buffers, moments of Adam."""
        frozen, buffers = ([holder[name] for holder, name, _ in part] for part in (self._frozen, self._buffers))
        return [*self.parameters, *frozen, *buffers, *self._moments()]

    def names(self) -> list[str]:
        """Return the name in the loss of each tensor of :meth:`held`, of a moment the parameter's and its own."""
        moments = [f"{name}, {part} of Adam" for name in self._names for part in STATE] if self.is_adam else []
        return [*self._names, *[name for *_, name in (*self._frozen, *self._buffers)], *moments]

    def numbers(self) -> dict[str, bool | int | float | str]:
        """Return the numbers and words that modules of the loss hold as attributes, by path: facts of a graph."""
        return {path: holder[name] for holder, name, path in self._numbers}

    def adam_numbers(self) -> list[tuple]:
        """Return what Adam takes beside the learning rate, of each group; empty for another optimizer."""
        if not self.is_adam:
            return []
        return [(x["betas"], x["eps"], x["weight_decay"]) for x in self.optimizer.param_groups]

    def learning_rates(self) -> Tensor:
        """Return the rate of each group, ``[G]``: a schedule changes it, and a number in the graph would stay.

        On one device it is always the same tensor, so that a CUDA graph of the step reads what the rate is now.
        """
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        device = self.parameters[0].device
        if rates != self._rates or device != self._rate.device:
            self._rates, rate = rates, torch.tensor(rates, dtype=torch.float64)
            if self._rate.shape != rate.shape or self._rate.device != device:
                self._rate = rate.to(device)
            else:
                self._rate.copy_(rate, non_blocking=True)
        return self._rate

    def _moments(self) -> list[Tensor]:
        """Return the state of Adam, three tensors for each parameter; begin it where there is none."""
        if not self.is_adam:
            return []
        moments = []
        for parameter in self.parameters:
            state = self.optimizer.state[parameter]
            if not state:  # as torch begins it
                state["step"] = torch.zeros((), device=parameter.device)
                for name in STATE[1:]:
                    state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            if state["step"].device != parameter.device:  # Adam without ``fused`` counts on the CPU
                state["step"] = state["step"].to(parameter.device)
            moments += [state[name] for name in STATE]
        return moments

    # ---- what comes out ----------------------------------------------------------------------------------------------

    def outcome(self, facts: Facts, held: Sequence[Tensor], outputs: list[Tensor]) -> Outcome:
        """Say what the outputs of the function are.

        Args:
            facts: of the function.
            held: the tensors it was called with, which the caller will overwrite.
            outputs: what it returned.
        """
        td_error = outputs.pop() if facts.has_td_error else None
        values = outputs.pop()
        num_moments = len(STATE) * len(self.parameters) if self.is_adam else 0
        first_moment = len(held) - num_moments
        buffers = held[first_moment - len(self._buffers) : first_moment]
        targets = [buffers[index] for index in facts.changed]
        if self.is_adam:
            moments = held[first_moment:]
            moving = [held, *[moments[part :: len(STATE)] for part in range(len(STATE))]]
            targets += [tensors[index] for index in facts.trained for tensors in moving]
            return Outcome(facts.names, values, td_error, targets, outputs, [])
        gradients: list[Tensor | None] = [None] * len(self.parameters)
        for index, gradient in zip(facts.trained, outputs[len(targets) :], strict=True):
            gradients[index] = gradient
        return Outcome(facts.names, values, td_error, targets, outputs[: len(targets)], gradients)

    # ---- what is traced ----------------------------------------------------------------------------------------------

    def function(self, entries: Entries, varying: Sequence[str] = ()) -> tuple[Callable[..., list[Tensor]], Facts]:
        """Return the function, and what is known of it once it was traced.

        Args:
            entries: the rows, of which only the form counts.
            varying: paths of :meth:`numbers` that are tensors ``[]`` among the inputs, instead of facts.
        """
        facts = Facts()
        return partial(self._traced, facts, entries._replace(tensors=[]), tuple(varying)), facts

    def _traced(self, facts: Facts, entries: Entries, varying: tuple[str, ...], *inputs: Tensor) -> list[Tensor]:
        """Compute a step, and note what it reports and moves; called once for a graph."""
        rest = iter(inputs)
        parameters = [x.detach().requires_grad_() for x in islice(rest, len(self.parameters))]
        frozen = list(islice(rest, len(self._frozen)))
        buffers = [x.clone() for x in islice(rest, len(self._buffers))]  # a loss may write to them
        versions = [x._version for x in buffers]
        moments = list(islice(rest, len(STATE) * len(parameters) if self.is_adam else 0))
        rates, numbers = next(rest), dict(zip(varying, islice(rest, len(varying)), strict=True))
        rows = TensorDict(dict(zip(entries.keys, rest, strict=True)), batch_size=entries.size)
        named = zip([name for *_, name in (*self._frozen, *self._buffers)], [*frozen, *buffers], strict=True)
        swapped = dict(zip(self._names, parameters, strict=True)) | dict(named)
        with torch.enable_grad(), self._in_place_of(numbers):
            losses = torch.func.functional_call(self.loss, swapped, (rows,), entries.flags)
            found = torch.autograd.grad(total_loss(losses), parameters, allow_unused=True)
        facts.trained = tuple(index for index, gradient in enumerate(found) if gradient is not None)
        facts.changed = tuple(k for k, (x, old) in enumerate(zip(buffers, versions, strict=True)) if x._version != old)
        scalars = {name: value.detach() for name, value in losses.items()}
        td_error = scalars.get(TD_ERROR)
        if td_error is not None:
            scalars[TD_ERROR], facts.has_td_error = td_error.mean(), True
        gradients, norm = self._clipped([found[index] for index in facts.trained])
        if self.report_norm:
            scalars[GRAD_NORM] = norm
        facts.names = tuple(scalars)
        moved = gradients if not self.is_adam else list(self._adam(facts, parameters, gradients, moments, rates))
        outputs = [*[buffers[index] for index in facts.changed], *moved, torch.stack(list(scalars.values()))]
        return outputs if td_error is None else [*outputs, td_error]

    @contextmanager
    def _in_place_of(self, numbers: Mapping[str, Tensor]) -> Iterator[None]:
        """Let modules compute with these tensors instead of the numbers of the same paths."""
        places = [(holder, name, numbers[path]) for holder, name, path in self._numbers if path in numbers]
        before = [holder[name] for holder, name, _ in places]
        try:
            for holder, name, tensor in places:
                holder[name] = tensor
            yield
        finally:
            for (holder, name, _), number in zip(places, before, strict=True):
                holder[name] = number

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
        self, facts: Facts, parameters: list[Tensor], gradients: list[Tensor], moments: list[Tensor], rates: Tensor
    ) -> Iterator[Tensor]:
        """Yield each trained parameter and its state after a step of Adam (Kingma and Ba, 2015, algorithm 1)."""
        for index, gradient in zip(facts.trained, gradients, strict=True):
            at = len(STATE) * index
            x, step, mean, square = parameters[index].detach(), *moments[at : at + len(STATE)]
            number = self._group_of[id(self.parameters[index])]
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
