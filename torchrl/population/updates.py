"""The optimise steps of several agents as one: the same shuffles, samples and numbers as theirs, together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.agents.optimise import MinibatchEpochs, Snapshot
from torchrl.agents.replay_updates import ReplayUpdates
from torchrl.agents.statistics import Figures
from torchrl.agents.step_function import Entries
from torchrl.errors import ConfigError, explain
from torchrl.population.replay_updates import JointReplayUpdates
from torchrl.population.step import MappedStep, naming, require_same

WHO = "join_updates"
JointUpdate = Callable[[Sequence[TensorDictBase | None]], list[Figures]]


def join_updates(
    optimises: Sequence[MinibatchEpochs] | Sequence[ReplayUpdates], names: Sequence[str] | None = None
) -> JointUpdate:
    """Return a function that is for all members what the optimise step of each is for one.

    It takes the members' batches, None for a member that is left out, and returns their figures. Each member draws its
    shuffles, samples and random numbers from its own generators and buffer, and ends its epochs by its own divergence:
    weights and figures are those of its own call, up to rounding. What is applied whole or not at all in a single run,
    a call of :class:`MinibatchEpochs` or an update of :class:`ReplayUpdates`, is applied to all members or to none.

    Where the steps were built with ``compile=True``, all members step by one compiled program (:class:`JointEpochs`,
    :class:`JointReplayUpdates`). Without, they step one after another, since mapped operations that are not compiled
    together take longer.

    >>> from copy import deepcopy
    >>> batch["advantage"], batch["value_target"] = torch.randn(2, 8, 1), torch.randn(2, 8, 1)
    >>> losses, adam = [loss, deepcopy(loss)], torch.optim.Adam
    >>> sizes = {"num_epochs": 1, "minibatch_size": 8}
    >>> members = [MinibatchEpochs(x, adam(x.trainable_parameters()), **sizes) for x in losses]
    >>> [figures["loss_critic"] > 0 for figures in join_updates(members)([batch, batch])]
    [True, True]

    Args:
        optimises: of each member.
        names: of the members, for errors; None numbers them.

    Raises:
        ConfigError: steps of another kind, or members that differ in more than weights, seeds and numbers.
    """
    names = [f"member {index}" for index in range(len(optimises))] if names is None else list(names)
    joint = next((joint for kind, joint in JOINT.items() if all(isinstance(x, kind) for x in optimises)), None)
    if joint is None or not optimises:
        got = ", ".join(sorted({type(optimise).__name__ for optimise in optimises})) or "none"
        expected = "of each member its MinibatchEpochs, or of each its ReplayUpdates"
        raise ConfigError(explain(WHO, expected=expected, got=got))
    require_same(WHO, "compile", [optimise.graph is not None for optimise in optimises], names)
    if optimises[0].graph is None:
        return InTurn(optimises, names)
    return joint(optimises, names)


class InTurn:
    """Call the optimise step of each member, one after another; of :class:`MinibatchEpochs` all count, or none.

    Args:
        optimises: of each member.
        names: of the members, for errors.
    """

    def __init__(self, optimises: Sequence[MinibatchEpochs] | Sequence[ReplayUpdates], names: Sequence[str]) -> None:
        self.optimises, self.names = list(optimises), list(names)

    def __call__(self, batches: Sequence[TensorDictBase | None]) -> list[Figures]:
        """Train each member on its batch ``[*B, T]``; None leaves it out.

        Raises:
            NonFiniteError: of a member, which it names; no member has moved, but by whole updates on samples.
        """
        whole = [optimise for optimise in self.optimises if isinstance(optimise, MinibatchEpochs)]
        before = [Snapshot.of(x.loss, x.loss.trainable_parameters(), x.optimizer) for x in whole]
        figures = []
        try:
            for name, optimise, batch in zip(self.names, self.optimises, batches, strict=True):
                with naming(name):
                    figures.append(Figures() if batch is None else optimise(batch))
        except BaseException:
            for snapshot in before:
                snapshot.restore_()
            raise
        return figures


class JointEpochs:
    """Take the steps of S :class:`MinibatchEpochs` together, by one program, see :func:`join_updates`.

    Batches of members that differ in their number of valid rows are trained on one after another.

    Args:
        optimises: of each member, with ``compile=True``.
        names: of the members, for errors.

    Attributes:
        step: the steps of all members.

    Raises:
        ConfigError: members that differ in more than weights, seeds and numbers; networks with memory.
    """

    def __init__(self, optimises: Sequence[MinibatchEpochs], names: Sequence[str]) -> None:
        self.optimises, self.names = list(optimises), list(names)
        for name in ("num_epochs", "minibatch_size", "sequence_len"):
            require_same(WHO, name, [getattr(optimise, name) for optimise in optimises], names)
        if optimises[0].sequence_len is not None:
            hint = "Build the members without compile: then they step one after another."
            raise ConfigError(explain(WHO, expected="networks without memory", got="a sequence_len", hint=hint))
        self.step = MappedStep(WHO, [optimise.graph.function for optimise in optimises], names)
        self._in_turn = InTurn(optimises, names)

    def __call__(self, batches: Sequence[TensorDictBase | None]) -> list[Figures]:
        """Train each member on its batch ``[*B, T]``; None leaves it out.

        Returns:
            The figures of each, as its own call returns them; of one that is left out none.

        Raises:
            NonFiniteError: of a member, which it names; no member has moved.
            KeyMissing: a batch lacks a key the loss reads.
        """
        pairs = zip(self.optimises, batches, strict=True)
        rows = {k: x.rows_of(batch) for k, (x, batch) in enumerate(pairs) if batch is not None}
        sizes = {len(own) for own in rows.values()}
        if len(sizes) != 1 or 0 in sizes:
            return self._in_turn(batches)
        self.step.refresh()
        before, snapshots = self.step.stack.copies(), []
        if not self.step.steps[0].is_adam:  # whose state is not in the stack
            snapshots = [Snapshot.of(x.loss, [], x.optimizer) for x in self.optimises]
        try:
            return self._train(rows)
        except BaseException:
            for snapshot in snapshots:
                snapshot.restore_()
            self.step.stack.restore_(before)
            raise

    def _train(self, rows: dict[int, TensorDict]) -> list[Figures]:
        members, num = list(rows), len(next(iter(rows.values())))
        joined = torch.cat([rows.get(index, rows[members[0]]) for index in range(len(self.optimises))])
        active, epochs = members, [[] for _ in self.optimises]
        for epoch in range(self.optimises[0].num_epochs):
            values = []
            for minibatch in joined[self._order(num, active).to(joined.device)].unbind(0):
                outcome = self.step(Entries.of(minibatch, {}), active)
                self.step.commit(outcome, active)
                values.append(outcome.values)
            values, names = torch.stack(values, 1), outcome.names  # [S, steps, k]
            if not bool(torch.isfinite(values.sum())):
                for index in active:
                    with naming(self.names[index]):
                        self.optimises[index].require_finite(values[index], names, epoch, rows[index])
            for index in active:
                epochs[index].append(values[index])
            active = [index for index in active if not self.optimises[index].is_far_enough(values[index], names)]
            if not active:
                break
        self._require_finite_parameters()
        taken = zip(self.optimises, epochs, strict=True)
        return [optimise.figures_of(torch.cat(own), names, num) if own else Figures() for optimise, own in taken]

    def _order(self, num: int, active: Sequence[int]) -> torch.Tensor:
        """Draw the order of an epoch for each active member, ``[minibatches, S, rows of one]``, in the joined rows."""
        drawn = {index: self.optimises[index].draw_order(num) + index * num for index in active}
        spare = drawn[active[0]]
        return torch.stack([drawn.get(index, spare) for index in range(len(self.optimises))], 1)

    def _require_finite_parameters(self) -> None:
        parameters = self.step.stack.tensors[: len(self.step.steps[0].parameters)]
        if bool(torch.isfinite(torch.stack(torch._foreach_norm(parameters))).all()):
            return
        for name, optimise in zip(self.names, self.optimises, strict=True):
            with naming(name):
                optimise.require_finite_parameters()


JOINT = {MinibatchEpochs: JointEpochs, ReplayUpdates: JointReplayUpdates}
