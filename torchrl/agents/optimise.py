"""The optimise step of on-policy algorithms: epochs of minibatches over one batch. Not the loss: that is passed in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.agents.graph_step import GraphStep
from torchrl.agents.nonfinite import nonfinite_error
from torchrl.agents.parts import MovesParameters, Trained, has
from torchrl.agents.sequences import as_batch, valid_rows, valid_sequences
from torchrl.agents.statistics import Figures
from torchrl.counts import is_count
from torchrl.devices import device_of
from torchrl.errors import ConfigError, NonFiniteError, explain
from torchrl.objectives import Loss, total_loss


class MinibatchEpochs:
    """Take gradient steps on shuffled minibatches of a batch, for several passes over it.

    A call selects the keys the loss reads, drops rows that ``("collector", "mask")`` rules out, flattens the rest and,
    in each epoch, permutes it anew. Where ``minibatch_size`` does not divide the number of rows, each epoch leaves out
    what remains (other rows each time), so that every step has the same size; a batch smaller than one minibatch is
    taken whole.

    A call is applied whole or not at all: if it raises, for whatever reason, parameters, the buffers of the loss and
    the optimizer are as they were when it began.

    >>> optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=3e-4)
    >>> optimise = MinibatchEpochs(loss, optimizer, num_epochs=2, minibatch_size=4, max_grad_norm=0.5)
    >>> batch["advantage"], batch["value_target"] = torch.randn(2, 8, 1), torch.randn(2, 8, 1)
    >>> figures = optimise(batch)
    >>> figures.weights["loss_critic"], figures.weights["grad_norm"]  # 2 * 4 steps of 4 rows
    (32, 8)

    Args:
        loss: maps N transitions, ``[N]``, to a TensorDict of scalars; those starting with ``loss_`` are minimised in
            sum.
        optimizer: over ``loss.trainable_parameters()``.
        num_epochs: passes over the batch.
        minibatch_size: rows per gradient step.
        sequence_len: shuffle sequences of T steps instead of rows, each with the state that its first step was
            acted from; a minibatch has ``minibatch_size / T`` of them. A network with memory needs it. Where it does
            not divide the steps of the batch, the last sequences are padded. None shuffles rows.
        max_grad_norm: scales gradients down to this joint norm, and reports ``grad_norm``; None does neither.
        max_grad_value: clips each entry of the gradients to ± this; None does not.
        generator: source of the permutations, on the CPU; None uses torch's global one.
        compile: take each step by one compiled graph, see :class:`GraphStep`: loss, gradient, clipping and Adam. With
            CartPole's shapes (256 rows, two 64×64 networks, one CPU thread) a step takes 0.3 of its time; the first
            run compiles for seconds, later ones find the graph on disk. Networks with memory go step by step.
        target_kl: end the call after an epoch whose mean ``approx_kl`` exceeds this; None runs all epochs. Other
            libraries stop before a gradient step whose minibatch has a divergence above 1.5 times their number: for
            their 0.02 take 0.03 here. At least one whole epoch is trained.

    Attributes:
        graph: the compiled step; None without ``compile``.

    Raises:
        ConfigError: a count below one, both kinds of clipping at once, a loss of networks with memory and no
            ``sequence_len``, or one that does not divide ``minibatch_size``.
    """

    def __init__(
        self,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        *,
        num_epochs: int,
        minibatch_size: int,
        sequence_len: int | None = None,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        generator: torch.Generator | None = None,
        compile: bool = False,
        target_kl: float | None = None,
    ) -> None:
        for name, value in (("num_epochs", num_epochs), ("minibatch_size", minibatch_size)):
            if not is_count(value):
                raise ConfigError(explain(name, expected="at least 1, a whole number", got=value))
        for name, value in (
            ("max_grad_norm", max_grad_norm),
            ("max_grad_value", max_grad_value),
            ("target_kl", target_kl),
        ):
            if value is not None and not value > 0:
                raise ConfigError(explain(name, expected="a positive number or None", got=value))
        if max_grad_norm is not None and max_grad_value is not None:
            raise ConfigError(explain("MinibatchEpochs", expected="max_grad_norm or max_grad_value", got="both"))
        require_loss("MinibatchEpochs", loss, optimizer)
        require_sequences(loss, minibatch_size, sequence_len)
        self.loss = loss
        self.optimizer = optimizer
        self.num_epochs = num_epochs
        self.minibatch_size = minibatch_size
        self.sequence_len = sequence_len
        self.max_grad_norm = max_grad_norm
        self.max_grad_value = max_grad_value
        self.generator = generator
        self.target_kl = target_kl
        self._parameters = list(loss.trainable_parameters())
        require_optimised("MinibatchEpochs", self._parameters, optimizer)
        self.graph: GraphStep | None = None
        if compile:
            clipping = {"max_grad_norm": max_grad_norm, "max_grad_value": max_grad_value}
            self.graph = GraphStep("compile", loss, optimizer, report_norm=max_grad_norm is not None, **clipping)

    def __call__(self, batch: TensorDictBase) -> Figures:
        """Train on a batch, ``[*B, T]``, which stays as it is.

        Returns:
            The mean over all steps of every scalar the loss reports, and of ``grad_norm``; empty if no row is valid.
            Their weights are the rows that the steps saw, and the number of steps for ``grad_norm``.

        Raises:
            NonFiniteError: a loss, or a parameter after the last step, is NaN or infinite. Losses are checked once
                per epoch, parameters once per call; the steps taken since the call began are undone.
            KeyMissing: the batch lacks a key the loss reads.
        """
        rows = self.rows_of(batch)
        if len(rows) == 0:
            return Figures()
        before = Snapshot.of(self.loss, self._parameters, self.optimizer)
        try:
            return self._train(rows)
        except BaseException:
            before.restore_()
            raise

    def rows_of(self, batch: TensorDictBase) -> TensorDict:
        """Return the N things that are shuffled, ``[N]``: the valid rows of a batch ``[*B, T]``, or its sequences.

        Raises:
            KeyMissing: the batch lacks a key the loss reads.
        """
        if self.sequence_len is None:
            return valid_rows(batch, self.loss.in_keys)
        states = self.loss.state_keys
        return valid_sequences(batch, self.loss.in_keys, length=self.sequence_len, state_keys=states)

    def draw_order(self, num: int) -> torch.Tensor:
        """Draw which of N rows or sequences each minibatch of an epoch takes, ``[minibatches, rows of one]``.

        >>> optimizer = torch.optim.Adam(loss.trainable_parameters())
        >>> MinibatchEpochs(loss, optimizer, num_epochs=2, minibatch_size=4).draw_order(9).shape
        torch.Size([2, 4])
        """
        size = min(self.minibatch_size // (self.sequence_len or 1), num)
        return torch.randperm(num, generator=self.generator)[: num // size * size].view(-1, size)

    def require_finite(self, values: torch.Tensor, names: tuple[str, ...], epoch: int, rows: TensorDict) -> None:
        """Refuse NaN and infinity among the scalars of an epoch's steps.

        Args:
            values: of each step, ``[steps, k]``.
            names: of the k scalars.
            epoch: counted from 0.
            rows: the data of the epoch.

        Raises:
            NonFiniteError: naming the step.
        """
        if bool(torch.isfinite(values.sum())):
            return
        bad = (~torch.isfinite(values)).any(1).nonzero()
        if len(bad):  # none where the sum of finite numbers overflowed
            index = int(bad[0])
            figures = dict(zip(names, values[index].tolist(), strict=True))
            step = f"epoch {epoch + 1}, minibatch {index + 1}"
            raise nonfinite_error(figures, rows, step=step, source="batch", undone="batch")

    def require_finite_parameters(self) -> None:
        """Refuse parameters that are NaN or infinite.

        Raises:
            NonFiniteError: some are.
        """
        with torch.no_grad():
            norms = torch.stack(torch._foreach_norm(self._parameters))
        if not bool(torch.isfinite(norms).all()):
            got = "parameters that are NaN or infinite after the last step, though every loss was finite"
            hint = "Parameters and optimizer are as they were before this batch."
            raise NonFiniteError(explain("the gradient", expected="finite numbers", got=got, hint=hint))

    def is_far_enough(self, values: torch.Tensor, names: tuple[str, ...]) -> bool:
        """Answer whether the mean ``approx_kl`` of an epoch's steps, ``[steps, k]``, exceeds ``target_kl``.

        Raises:
            ConfigError: the loss reports none.
        """
        return self.target_kl is not None and _mean_of("approx_kl", values, names) > self.target_kl

    def figures_of(self, values: torch.Tensor, names: tuple[str, ...], num: int) -> Figures:
        """Return the means of the scalars of all steps, ``[steps, k]``, taken on N rows or sequences."""
        size = min(self.minibatch_size, num * (self.sequence_len or 1))
        means = dict(zip(names, values.mean(0).tolist(), strict=True))
        return Figures(means, dict.fromkeys(means, len(values) * size) | {"grad_norm": len(values)})

    def _train(self, rows: TensorDict) -> Figures:
        epochs = []
        for epoch in range(self.num_epochs):
            steps = [self._step(minibatch) for minibatch in self._minibatches(rows)]
            names = steps[0][0]
            values = torch.stack([value for _, row in steps for value in row]).view(len(steps), len(names))
            self.require_finite(values, names, epoch, rows)
            epochs.append(values)
            if self.is_far_enough(values, names):
                break
        self.require_finite_parameters()
        return self.figures_of(torch.cat(epochs), names, len(rows))

    def _minibatches(self, rows: TensorDict) -> Iterator[TensorDict]:
        """Permute the rows and cut them into minibatches of one size, without a rest: one gather per key and epoch."""
        order = self.draw_order(len(rows))
        return rows[order.flatten().to(device_of(rows))].split(order.shape[1])

    def _step(self, minibatch: TensorDict) -> tuple[tuple[str, ...], list[torch.Tensor]]:
        if self.sequence_len is not None:
            minibatch = as_batch(minibatch, self.loss.state_keys, self.sequence_len)
        if self.graph is not None:
            outcome = self.graph(minibatch)
            self.graph.commit(outcome)
            return outcome.names, list(outcome.values)
        losses = self.loss(minibatch)
        names, values = zip(*losses.items(), strict=True)
        total = total_loss(losses)
        for parameter in self._parameters:  # 50 µs cheaper than optimizer.zero_grad(), which is profiled and hooked
            parameter.grad = None
        total.backward()
        values = [value.detach() for value in values]
        if self.max_grad_norm is not None:
            names = (*names, "grad_norm")
            values.append(clip_grad_norm_(self._parameters, self.max_grad_norm))
        elif self.max_grad_value is not None:
            torch.nn.utils.clip_grad_value_(self._parameters, self.max_grad_value)
        self.optimizer.step()
        return names, values


@torch.no_grad()
def clip_grad_norm_(parameters: list[torch.Tensor], max_norm: float) -> torch.Tensor:
    """Scale the gradients down to a joint 2-norm of ``max_norm`` if they exceed it; return the norm they had, ``[]``.

    As torch's function of that name without its 1e-6 on the norm and its sorting of tensors by device (20 µs a step).
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, max_norm / norm.clamp(min=max_norm))
    return norm


class Snapshot(NamedTuple):
    """Hold copies of everything that a call of :class:`MinibatchEpochs` may change."""

    optimizer: torch.optim.Optimizer
    tensors: list[torch.Tensor]
    copies: list[torch.Tensor]
    states: list[tuple[torch.Tensor, dict]]

    @classmethod
    def of(cls, loss: Loss, parameters: list[torch.Tensor], optimizer: torch.optim.Optimizer) -> Snapshot:
        """Copy the parameters, the buffers of a loss, and the state of its optimizer."""
        tensors = [*parameters, *loss.buffers()]
        copies = [tensor.detach().clone() for tensor in tensors]
        states = [(parameter, _copied(state)) for parameter, state in optimizer.state.items()]
        return cls(optimizer, tensors, copies, states)

    @torch.no_grad()
    def restore_(self) -> None:
        """Put everything back as it was."""
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            tensor.copy_(copy)
        self.optimizer.state.clear()
        self.optimizer.state.update(self.states)


def require_loss(who: str, loss: object, optimizer: object) -> None:
    """Refuse a ``loss`` that is no loss, or an ``optimizer`` that is no optimizer of torch.

    Raises:
        ConfigError: naming which.
    """
    if not has(loss, Trained):
        got = type(loss).__name__
        raise ConfigError(explain(f"{who}, loss", expected="a Loss", got=got, hint="The loss comes first."))
    if not has(optimizer, MovesParameters):
        hint = "Write torch.optim.Adam(loss.trainable_parameters())."
        got = type(optimizer).__name__
        raise ConfigError(explain(f"{who}, optimizer", expected="an optimizer of torch", got=got, hint=hint))


def require_sequences(loss: Loss, minibatch_size: int, sequence_len: int | None) -> None:
    """Refuse single rows for networks with memory, and a ``sequence_len`` that does not divide ``minibatch_size``.

    Raises:
        ConfigError: saying what to write.
    """
    if sequence_len is None:
        if getattr(loss, "state_keys", ()):
            hint = "Shuffle whole sequences: MinibatchEpochs(..., sequence_len=32)."
            got = f"a {type(loss).__name__} of networks with memory, which single rows have lost"
            raise ConfigError(explain("MinibatchEpochs", expected="a sequence_len", got=got, hint=hint))
    elif not is_count(sequence_len) or minibatch_size % sequence_len:
        expected = f"sequence_len, a divisor of the minibatch_size of {minibatch_size} rows"
        raise ConfigError(explain("MinibatchEpochs", expected=expected, got=sequence_len))


def require_optimised(who: str, parameters: list[torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that lacks a parameter the loss trains: it would get gradients and never move.

    Raises:
        ConfigError: saying how many parameters it lacks.
    """
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    lacking = sum(id(parameter) not in moved for parameter in parameters)
    if lacking:
        expected = "an optimizer over loss.trainable_parameters()"
        raise ConfigError(explain(who, expected=expected, got=f"one that lacks {lacking} of them"))


def _copied(state: dict) -> dict:
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()}


def _mean_of(name: str, values: torch.Tensor, names: tuple[str, ...]) -> float:
    if name not in names:
        raise ConfigError(explain("target_kl", expected=f"a loss that reports {name!r}", got=f"{', '.join(names)}"))
    return values[:, names.index(name)].mean().item()
