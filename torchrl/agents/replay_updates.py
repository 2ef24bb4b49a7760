"""The optimise step of off-policy algorithms: gradient steps on samples of a replay buffer. The loss is passed in.

Filling the buffer is the agent's ``store``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.agents.graph_step import GraphStep
from torchrl.agents.nonfinite import nonfinite_error
from torchrl.agents.optimise import require_loss, require_optimised
from torchrl.agents.parts import Sampled, WithActorTerms, WithTargets, has
from torchrl.agents.reward_scale import RewardScale
from torchrl.agents.statistics import LATEST, Figures, MeanMetrics, num_valid_frames
from torchrl.counts import is_count
from torchrl.data.replay import MixedReplay, ReplayBuffer
from torchrl.devices import to_device
from torchrl.errors import ConfigError, NonFiniteError, explain
from torchrl.objectives import HardUpdate, Loss, SoftUpdate, total_loss
from torchrl.objectives.keys import MASK

TD_ERROR = "td_error"


class Drawn(NamedTuple):
    """Hold what a gradient step is taken on.

    Attributes:
        sample: of the buffer.
        rows: what the loss reads: the sample, rewards scaled, on the device of the loss.
        flags: passed to the loss.
    """

    sample: TensorDictBase
    rows: TensorDictBase
    flags: dict[str, bool]


class ReplayUpdates:
    """Take gradient steps on samples of a replay buffer: ``updates_per_frame`` for each collected frame.

    A call takes no step until ``start_frames`` have come; from then on ``updates_per_frame`` for each frame, fractions
    carried over, so that the ratio holds over a run whatever the size of a batch. ``once()`` takes one step more: an
    agent with ``keep_learning`` does so while it waits for data.

    Each step samples, computes the loss and its gradient, looks whether all is finite, moves the parameters, lets the
    targets follow, and tells the buffer the new priorities, where its sampler has some.

    >>> from torchrl.modules import QValueActor
    >>> from torchrl.objectives import DQNLoss
    >>> loss = DQNLoss(QValueActor(torch.nn.Linear(4, 2)))
    >>> optimizer = torch.optim.Adam(loss.trainable_parameters())
    >>> updates = ReplayUpdates(loss, optimizer, buffer, batch_size=4, updates_per_frame=0.5)
    >>> _ = buffer.extend(batch)
    >>> figures = updates(batch)  # 16 frames
    >>> updates.num_updates, figures["replay/updates_per_frame"]
    (8, 0.5)

    Args:
        loss: maps a sample to a TensorDict of scalars, those starting with ``loss_`` being minimised in sum, and
            perhaps the ``td_error`` of each row; without, priorities stay as they are.
        optimizer: over ``loss.trainable_parameters()``.
        buffer: what is sampled.
        batch_size: items of a sample.
        updates_per_frame: gradient steps per frame (agent step); Chen et al. (2021) call it G.
        start_frames: frames to be collected before the first step.
        actor_interval: number of critic steps for each step of the actor (TD3's delay d); needs a loss with an actor.
        target_update: lets the targets follow after each step; None leaves them.
        reward_scale: divides the rewards of each sample; None leaves them.
        largest_share: η of a prioritised slice, whose priority is η times the largest of its rows' errors and 1 - η
            times their mean (Kapturowski et al., "Recurrent Experience Replay in Distributed Reinforcement Learning",
            2019, section 2.3).
        max_grad_norm: scales gradients down to this joint norm; None does not.
        max_grad_value: clips each entry of the gradients to ± this; None does not.
        compile: take each step by one compiled graph, see :class:`GraphStep`; not with networks with memory, whose
            sequences have another length in each sample.

    Attributes:
        graph: the compiled step; None without ``compile``.
        num_updates: gradient steps so far.
        num_frames: frames so far.

    Raises:
        ConfigError: a number out of its range, or an optimizer that lacks a parameter.
    """

    def __init__(
        self,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        buffer: ReplayBuffer | MixedReplay,
        *,
        batch_size: int,
        updates_per_frame: float = 1.0,
        start_frames: int = 0,
        actor_interval: int = 1,
        target_update: SoftUpdate | HardUpdate | None = None,
        reward_scale: RewardScale | None = None,
        largest_share: float = 0.9,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        compile: bool = False,
    ) -> None:
        who = "ReplayUpdates"
        least_of = {"batch_size": 1, "start_frames": 0, "actor_interval": 1}
        for (name, least), value in zip(least_of.items(), (batch_size, start_frames, actor_interval), strict=True):
            if not is_count(value, least=least):
                raise ConfigError(explain(who, expected=f"{name} of at least {least}", got=value))
        if not (math.isfinite(updates_per_frame) and updates_per_frame >= 0):
            raise ConfigError(explain(who, expected="updates_per_frame of at least 0", got=updates_per_frame))
        if not 0 <= largest_share <= 1:
            raise ConfigError(explain(who, expected="largest_share from 0 to 1", got=largest_share))
        for name, limit in (("max_grad_norm", max_grad_norm), ("max_grad_value", max_grad_value)):
            if limit is not None and not limit > 0:
                raise ConfigError(explain(who, expected=f"{name}, a positive number or None", got=limit))
        if max_grad_norm is not None and max_grad_value is not None:
            raise ConfigError(explain(who, expected="max_grad_norm or max_grad_value", got="both"))
        if actor_interval > 1 and not has(loss, WithActorTerms):
            expected = "actor_interval of 1 for a loss without an actor of its own"
            raise ConfigError(explain(who, expected=expected, got=actor_interval))
        require_loss(who, loss, optimizer)
        if compile and getattr(loss, "state_keys", ()):
            hint = "Leave compile out: sequences are laid out by their endings, and each length would be compiled."
            raise ConfigError(explain(f"{who}, compile", expected="networks without memory", got="others", hint=hint))
        if not has(buffer, Sampled):
            got = type(buffer).__name__
            raise ConfigError(explain(f"{who}, buffer", expected="a ReplayBuffer", got=got))
        self.loss = loss
        self.optimizer = optimizer
        self.buffer = buffer
        self.batch_size = batch_size
        self.updates_per_frame = updates_per_frame
        self.start_frames = start_frames
        self.actor_interval = actor_interval
        self.target_update = target_update
        self.reward_scale = reward_scale
        self.largest_share = largest_share
        self.max_grad_norm = max_grad_norm
        self.max_grad_value = max_grad_value
        self.num_updates = 0
        self.num_frames = 0
        self._learns_from = start_frames  # the number of collected frames
        self._before = (0, 0)  # frames and steps that the ratio does not count
        self._owed = 0.0
        self._parameters = list(loss.trainable_parameters())
        require_optimised(who, self._parameters, optimizer)
        self._buffers = list(_buffers_of(loss))
        self._kept = [buffers[name].clone() for buffers, name in self._buffers]
        clipping = {"max_grad_norm": max_grad_norm, "max_grad_value": max_grad_value}
        self.graph = GraphStep("compile", loss, optimizer, **clipping) if compile else None
        self._has_priorities = _has_priorities(buffer)
        self._means, self._seconds = MeanMetrics(), 0.0

    @property
    def is_learning(self) -> bool:
        """Whether ``start_frames`` frames were counted and the buffer is not empty."""
        return self.num_frames >= self._learns_from and len(self.buffer) > 0

    def __call__(self, batch: TensorDictBase) -> Figures:
        """Count the frames of a batch ``[*B, T]``, which is stored already, and take the gradient steps that are due.

        Returns:
            The means over all steps since the last call of every scalar the loss reports and of ``td_error``, by rows,
            and of ``grad_norm``; ``replay/fill``, the share of the buffer that is filled, ``replay/updates`` so far,
            and with the first steps ``replay/updates_per_frame``, counted from the start of learning, and
            ``time/updates_per_s``.

        Raises:
            NonFiniteError: a loss or a gradient is NaN or infinite; parameters, buffers, targets and optimizer are as
                they were before that step.
        """
        self.count(batch)
        while self.take_due():
            self.once()
        return self.report()

    def count(self, batch: TensorDictBase) -> None:
        """Count the frames of a batch ``[*B, T]``, and the gradient steps that they make due."""
        num_frames = num_valid_frames(batch)
        self.num_frames += num_frames
        if self.reward_scale is not None:
            self.reward_scale.update(batch)
        if self.is_learning:
            self._owed += num_frames * self.updates_per_frame
        else:
            self._before = (self.num_frames, self.num_updates)

    def take_due(self) -> bool:
        """Answer whether a gradient step is due, and take it off those that are."""
        is_due = self._owed >= 1
        self._owed -= is_due
        return is_due

    def once(self) -> None:
        """Take one gradient step on a sample of the buffer, now, whether one is due or not.

        It counts in ``num_updates`` and is not taken off the steps that are due.

        Raises:
            ConfigError: the buffer is empty.
            NonFiniteError: a loss or a gradient is NaN or infinite; nothing was moved.
        """
        began = time.perf_counter()
        drawn = self.draw()
        step = self._step if self.graph is None else self._step_by_graph
        numbers, td_error = step(drawn.rows, drawn.flags)
        self.finish(drawn, numbers, td_error, seconds=time.perf_counter() - began)

    def draw(self) -> Drawn:
        """Draw a sample of the buffer for the next gradient step, its rewards scaled, on the device of the loss.

        Raises:
            ConfigError: the buffer is empty.
        """
        sample = self.buffer.sample(self.batch_size)
        rows = sample if self.reward_scale is None else self.reward_scale(sample)
        rows = to_device(rows, self._parameters[0].device)
        return Drawn(sample, rows, {} if self.num_updates % self.actor_interval == 0 else {"with_actor": False})

    def finish(
        self, drawn: Drawn, numbers: Mapping[str, float], td_error: torch.Tensor | None, *, seconds: float
    ) -> None:
        """Let targets and priorities follow a gradient step that moved the parameters, and count the step.

        Args:
            drawn: what the step was taken on.
            numbers: the scalars that it reports.
            td_error: the error of each row, ``[n]``; None where the loss has none.
            seconds: how long the step took, with the drawing.
        """
        began = time.perf_counter()
        if self.target_update is not None:
            self.target_update.step()
        sample = drawn.sample
        if self._has_priorities and td_error is not None:
            burn_in = getattr(self.loss, "burn_in", 0)
            priority = priority_of(sample, td_error, burn_in=burn_in, largest_share=self.largest_share)
            self._update_priorities(sample, priority)
        self.num_updates += 1
        num_rows = td_error.numel() if td_error is not None else num_valid_frames(drawn.rows)
        self._means.add(Figures(numbers, dict.fromkeys(numbers, num_rows) | {"grad_norm": 1}), 1)
        self._seconds += seconds + time.perf_counter() - began

    def nonfinite(self, numbers: Mapping[str, float], rows: TensorDictBase) -> NonFiniteError:
        """Return the error that names which scalars of the next gradient step are NaN or infinite, and why."""
        step = f"update {self.num_updates + 1}"
        return nonfinite_error(numbers, rows, step=step, source="sample", undone="update")

    def report(self) -> Figures:
        """Return the figures of the steps since the last report, see :meth:`__call__`; begin anew."""
        metrics, num = self._means.take()
        seconds, self._seconds = self._seconds, 0.0
        standing = {"replay/fill": self._fill(), "replay/updates": float(self.num_updates)}
        num_frames, num_updates = self.num_frames - self._before[0], self.num_updates - self._before[1]
        if num and num_frames:
            metrics |= Figures({"time/updates_per_s": num / seconds}, {"time/updates_per_s": seconds})
            standing["replay/updates_per_frame"] = num_updates / num_frames
        metrics |= Figures(standing, dict.fromkeys(standing, LATEST))
        return metrics

    def state_dict(self) -> dict:
        """Return counters and the states of target update and reward scale; without loss, optimizer and buffer."""
        return {
            "num_updates": self.num_updates,
            "num_frames": self.num_frames,
            "before": list(self._before),
            "owed": self._owed,
            "target_update": {} if self.target_update is None else self.target_update.state_dict(),
            "reward_scale": {} if self.reward_scale is None else self.reward_scale.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`.

        Where the buffer is empty, because it was not saved, ``start_frames`` are collected anew before the next step.
        """
        self.num_updates = state["num_updates"]
        self.num_frames = state["num_frames"]
        self._before = tuple(state["before"])
        self._owed = state["owed"]
        self._learns_from = self.start_frames
        if self.target_update is not None:
            self.target_update.load_state_dict(state["target_update"])
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state["reward_scale"])
        if len(self.buffer) == 0:
            self._owed, self._learns_from = 0.0, self.num_frames + self.start_frames

    def _step(self, rows: TensorDict, flags: dict[str, bool]) -> tuple[dict[str, float], torch.Tensor | None]:
        """Take a gradient step; return the scalars it reports, and the errors of the rows if the loss has some."""
        buffers = [buffers[name] for buffers, name in self._buffers]
        if buffers:  # a layer that learns from what it is shown would keep the NaN of a step that is refused
            torch._foreach_copy_(self._kept, buffers)
        losses = self.loss(rows, **flags)
        total = total_loss(losses)
        for parameter in self._parameters:
            parameter.grad = None
        total.backward()
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        losses = {name: value.detach() for name, value in losses.items()}
        td_error = losses.get(TD_ERROR)
        if td_error is not None:
            losses[TD_ERROR] = td_error.mean()
        losses["grad_norm"] = norm
        names, values = zip(*losses.items(), strict=True)
        numbers = dict(zip(names, torch.stack(values).tolist(), strict=True))
        if not all(map(math.isfinite, numbers.values())):
            for buffer, kept in zip(buffers, self._kept, strict=True):
                buffer.copy_(kept)
            raise self.nonfinite(numbers, rows)
        if self.max_grad_norm is not None and numbers["grad_norm"] > self.max_grad_norm:
            torch._foreach_mul_(gradients, self.max_grad_norm / numbers["grad_norm"])
        elif self.max_grad_value is not None:
            torch.nn.utils.clip_grad_value_(self._parameters, self.max_grad_value)
        self.optimizer.step()
        return numbers, td_error

    def _step_by_graph(self, rows: TensorDict, flags: dict[str, bool]) -> tuple[dict[str, float], torch.Tensor | None]:
        """Take the step of :meth:`_step` by one compiled graph, which moves nothing before its numbers are seen."""
        outcome = self.graph(rows, **flags)
        numbers = dict(zip(outcome.names, outcome.values.tolist(), strict=True))
        if not all(map(math.isfinite, numbers.values())):
            raise self.nonfinite(numbers, rows)
        self.graph.commit(outcome)
        return numbers, outcome.td_error

    def _update_priorities(self, sample: TensorDictBase, priority: torch.Tensor) -> None:
        if not isinstance(self.buffer, MixedReplay):
            self.buffer.update_priority(sample, priority)
            return
        origin = sample.get(("replay", "buffer"))
        origin = origin if origin.ndim == 1 else origin[:, 0]
        for index, part in enumerate(self.buffer.buffers):
            if part.sampler.has_priorities:
                own = origin == index
                self.buffer.update_priority(sample[own], priority[own.to(priority.device)])

    def _fill(self) -> float:
        parts = self.buffer.buffers if isinstance(self.buffer, MixedReplay) else [self.buffer]
        return sum(map(len, parts)) / sum(part.storage.capacity for part in parts)


def _buffers_of(loss: Loss) -> Iterator[tuple[dict, str]]:
    """Yield ``(dict, name)`` for each module buffer of a loss, except its target networks', which an update changes."""
    targets = loss.targets() if has(loss, WithTargets) else []
    seen = {id(module) for _, target in targets for module in target.modules()}
    for module in loss.modules():
        if id(module) not in seen:
            yield from ((module._buffers, name) for name, buffer in module._buffers.items() if buffer is not None)


def _has_priorities(buffer: ReplayBuffer | MixedReplay) -> bool:
    parts = buffer.buffers if isinstance(buffer, MixedReplay) else [buffer]
    return any(part.sampler.has_priorities for part in parts)


def priority_of(sample: TensorDictBase, td_error: torch.Tensor, *, burn_in: int, largest_share: float) -> torch.Tensor:
    """Return the priority of each of N items, ``[N]``; of N slices ``[N, T]`` a mixture of largest and mean error.

    Steps of the burn-in and masked ones are no rows; a slice without rows gets 0.
    """
    mask = sample.get(MASK, None)
    if mask is None:
        mask = torch.ones(sample.batch_size, dtype=torch.bool)
    mask = mask.to(td_error.device)
    valid = mask if mask.ndim == 1 else mask[:, burn_in:]
    errors = td_error.new_zeros(valid.shape).masked_scatter(valid, td_error)
    if valid.ndim == 1:
        return errors
    mean = errors.sum(-1) / valid.sum(-1).clamp(min=1)
    return largest_share * errors.amax(-1) + (1 - largest_share) * mean
