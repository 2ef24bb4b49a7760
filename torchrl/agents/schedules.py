"""Values that change over a run: schedules (pure functions of frames), and the hook that sets them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict

from torchrl.agents.hooks import Hook
from torchrl.agents.statistics import LATEST, Figures
from torchrl.errors import ConfigError, explain, nearest

if TYPE_CHECKING:
    from torchrl.agents.agent import Agent


class Constant:
    """A schedule that gives the same value at any number of frames.

    >>> Constant(3e-4)(1_000_000)
    0.0003
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, frames: int) -> float:
        """Return the constructor's ``value``."""
        return self.value


class LinearSchedule:
    """A schedule that goes from ``start`` to ``end`` in a straight line over ``num_frames`` frames, then stays.

    >>> schedule = LinearSchedule(1.0, 0.0, num_frames=100)
    >>> schedule(0), schedule(25), schedule(1000)
    (1.0, 0.75, 0.0)

    Args:
        start: value at frame 0.
        end: value from frame ``num_frames`` on.
        num_frames: length of the line, in frames.

    Raises:
        ConfigError: ``num_frames`` below 1, or a value that is not finite.
    """

    def __init__(self, start: float, end: float, num_frames: int) -> None:
        if not num_frames >= 1:
            raise ConfigError(explain("LinearSchedule", expected="num_frames of at least 1", got=num_frames))
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ConfigError(explain("LinearSchedule", expected="finite numbers", got=f"from {start} to {end}"))
        self.start = start
        self.end = end
        self.num_frames = num_frames

    def __call__(self, frames: int) -> float:
        """Return the value after ``frames`` frames."""
        share = min(max(frames, 0) / self.num_frames, 1.0)
        return self.start + share * (self.end - self.start)


class Anneal(Hook):
    """Set one value by a schedule before each batch is trained on: a learning rate, a clip range, a coefficient.

    The schedule is called with the frames trained on *before* the batch, so the first batch gets the start value. There
    is no state to save: a resumed run continues at the same number of frames.

    >>> anneal = Anneal(agent.optimizer, "lr", LinearSchedule(3e-4, 0.0, num_frames=100))
    >>> agent.frames = 50
    >>> anneal.on_batch(agent, batch)
    >>> agent.optimizer.param_groups[0]["lr"]
    0.00015

    Args:
        target: an optimizer, whose entry ``name`` is set in every parameter group; or any object with an attribute
            ``name``, a number or a tensor (filled in place, so compiled losses see it).
        name: for example ``"lr"`` or ``"clip_epsilon"``.
        schedule: maps frames to the value.

    Raises:
        ConfigError: ``target`` has no such entry.
    """

    def __init__(self, target: object, name: str, schedule: Callable[[int], float]) -> None:
        self.target = target
        self.name = name
        self.schedule = schedule
        known = target.param_groups[0].keys() if isinstance(target, torch.optim.Optimizer) else dir(target)
        if name not in known:
            guess = nearest(name, known)
            hint = f"Did you mean {guess!r}?" if guess else ""
            raise ConfigError(
                explain("Anneal", expected=f"something {type(target).__name__} has", got=repr(name), hint=hint)
            )

    @torch.no_grad()
    def on_batch(self, agent: Agent, batch: TensorDict) -> None:
        """Set the target's value to ``schedule(agent.frames)``, before the batch is trained on."""
        value = self.schedule(agent.frames)
        if isinstance(self.target, torch.optim.Optimizer):
            for group in self.target.param_groups:
                group[self.name] = _filled(group[self.name], value)
        else:
            setattr(self.target, self.name, _filled(getattr(self.target, self.name), value))
        self._value = value

    def on_optimised(self, agent: Agent, batch: TensorDict, metrics: dict[str, float]) -> None:
        """Log the value the batch was trained with."""
        metrics |= Figures({f"schedule/{self.name}": self._value}, {f"schedule/{self.name}": LATEST})


def _filled(old: object, value: float) -> object:
    return old.fill_(value) if isinstance(old, torch.Tensor) else value
