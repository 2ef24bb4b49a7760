"""Gradient steps of several agents on samples of their replay buffers, together. Each buffer is its member's own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch
from tensordict import TensorDictBase

from torchrl.agents.replay_updates import Drawn, ReplayUpdates
from torchrl.agents.statistics import Figures
from torchrl.agents.step_function import Entries, Outcome
from torchrl.objectives.keys import MASK
from torchrl.population.step import MappedStep, naming, require_same


class JointReplayUpdates:
    """Take the steps of S :class:`~torchrl.agents.ReplayUpdates` together, by one program, see :func:`join_updates`.

    Each member samples its own buffer; the samples are stacked. Its targets follow, and its buffer learns its
    priorities, as after a step of its own. Members whose steps are due at other times step without the others.

    Args:
        optimises: of each member, with ``compile=True``.
        names: of the members, for errors.

    Attributes:
        step: the steps of all members.

    Raises:
        ConfigError: members that differ in more than weights, seeds and numbers.
    """

    def __init__(self, optimises: Sequence[ReplayUpdates], names: Sequence[str]) -> None:
        self.optimises, self.names = list(optimises), list(names)
        require_same("join_updates", "batch_size", [optimise.batch_size for optimise in optimises], names)
        self.step = MappedStep("join_updates", [optimise.graph.function for optimise in optimises], names)

    def __call__(self, batches: Sequence[TensorDictBase | None]) -> list[Figures]:
        """Count the frames of each member's batch ``[*B, T]``, and take the steps that are due; None leaves it out.

        Returns:
            The figures of each, as its own call returns them; of one that is left out none.

        Raises:
            NonFiniteError: of a member, which it names; all members are as they were before that step.
        """
        pairs = list(zip(self.optimises, batches, strict=True))
        for optimise, batch in pairs:
            if batch is not None:
                optimise.count(batch)
        self.step.refresh()
        while due := [k for k, (optimise, batch) in enumerate(pairs) if batch is not None and optimise.take_due()]:
            self.once(due)
        return [Figures() if batch is None else optimise.report() for optimise, batch in pairs]

    def once(self, members: Sequence[int]) -> None:
        """Take one gradient step of each of the given members, now.

        Raises:
            NonFiniteError: of a member, which it names; nothing was moved.
        """
        began = time.perf_counter()
        drawn = {index: self.optimises[index].draw() for index in members}
        alike: dict[tuple, list[int]] = {}
        for index in members:
            alike.setdefault(tuple(drawn[index].flags.items()), []).append(index)
        outcomes = [(group, self.step(self._joined(drawn, group), group)) for group in alike.values()]
        numbers: dict[int, dict[str, float]] = {}
        for group, outcome in outcomes:
            numbers |= self._finite_numbers(outcome, group, drawn)
        for group, outcome in outcomes:
            self.step.commit(outcome, group)
        seconds = time.perf_counter() - began
        for group, outcome in outcomes:
            for index in group:
                td_error = None if outcome.td_error is None else outcome.td_error[index]
                self.optimises[index].finish(drawn[index], numbers[index], td_error, seconds=seconds)

    def _joined(self, drawn: Mapping[int, Drawn], members: Sequence[int]) -> Entries:
        """Stack what the losses read of the samples, ``[S, N]``; those of others stand in for who does not step."""
        first = drawn[members[0]]
        loss = self.optimises[members[0]].loss
        known = {*loss.in_keys, *loss.optional_keys, MASK}
        keys = [key for key in first.rows.keys(include_nested=True, leaves_only=True) if key in known]
        rows = [drawn[index].rows if index in members else first.rows for index in range(len(self.optimises))]
        tensors = [torch.stack([own.get(key) for own in rows]) for key in keys]
        return Entries(keys, torch.Size([len(rows), *first.rows.batch_size]), first.flags, tensors)

    def _finite_numbers(
        self, outcome: Outcome, members: Sequence[int], drawn: Mapping[int, Drawn]
    ) -> dict[int, dict[str, float]]:
        """Return the scalars of each member's step by name; raise if one is NaN or infinite."""
        values = outcome.values.tolist()
        numbers = {index: dict(zip(outcome.names, values[index], strict=True)) for index in members}
        for index, own in numbers.items():
            if not all(map(math.isfinite, own.values())):
                with naming(self.names[index]):
                    raise self.optimises[index].nonfinite(own, drawn[index].rows)
        return numbers
