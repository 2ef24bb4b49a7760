"""Which items a sample is made of. A sampler draws places; it reads no data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch

from torchrl.data.replay.ledger import Ledger
from torchrl.errors import ConfigError, explain

_NOTHING = np.empty(0, np.int64)


@dataclass
class Draw:
    """What was drawn.

    Attributes:
        slots: places, int64 ``[n]``, or ``[N, T]`` for slices.
        mask: false where a slice is shorter, bool like ``slots``; None where every place counts.
        facts: more to hand out with the sample, arrays whose shape begins with that of ``slots``, or ``[N]``.
    """

    slots: np.ndarray
    mask: np.ndarray | None = None
    facts: dict[str, np.ndarray] = field(default_factory=dict)

    def state(self) -> dict:
        """Return it as tensors."""
        mask = None if self.mask is None else torch.from_numpy(self.mask)
        facts = {name: torch.from_numpy(fact) for name, fact in self.facts.items()}
        return {"slots": torch.from_numpy(self.slots), "mask": mask, "facts": facts}

    @classmethod
    def of(cls, state: dict) -> Draw:
        """Return what :meth:`state` returned as it was."""
        mask = None if state["mask"] is None else state["mask"].numpy()
        return cls(state["slots"].numpy(), mask, {name: fact.numpy() for name, fact in state["facts"].items()})


class Sampler(ABC):
    """Draws places of live items. The buffer holds its lock during every call."""

    needs_order = False  # whether it follows chains of steps, which a RingWriter keeps

    def bind(self, capacity: int) -> None:  # noqa: B027 - not all keep something for each place
        """Learn how many places there are, once."""

    @abstractmethod
    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw ``num`` items.

        Raises:
            ConfigError: so many cannot be drawn.
        """

    def wrote(self, slots: np.ndarray, ledger: Ledger) -> None:  # noqa: B027 - not all follow what is written
        """Take note of new items in these places."""

    def dropped(self, slots: np.ndarray) -> None:  # noqa: B027
        """Take note that nothing lies in these places any more."""

    def update_priority(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """Set the priorities of the items in these places.

        Raises:
            ConfigError: this sampler has none.
        """
        hint = "ReplayBuffer(..., sampler=PrioritizedSampler()) has them."
        got = type(self).__name__
        raise ConfigError(explain("update_priority", expected="a sampler with priorities", got=got, hint=hint))

    def clear(self) -> None:  # noqa: B027
        """Forget every item."""

    def state_dict(self) -> dict:
        """Capture what a continuation needs, as tensors and numbers."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Restore :meth:`state_dict`."""


class UniformSampler(Sampler):
    """Draws every item with the same probability, with replacement."""

    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw from the items there are."""
        return Draw(ledger.slot_of(generator.integers(ledger.oldest, ledger.written, num)))


class SamplerWithoutReplacement(Sampler):
    """Goes through the items in random order; when all were seen, the next round begins.

    Items that are written during a round are in the next one; items that are overwritten during a round are left out.
    Iterating over the buffer is one round.

    Args:
        drop_last: leave out the last batch of a round where it would be smaller; otherwise it is handed out so.
    """

    def __init__(self, *, drop_last: bool = False) -> None:
        self.drop_last = drop_last
        self._left = _NOTHING  # places that this round has still to show, and the items that lay there when it began
        self._left_ids = _NOTHING

    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw the next of the round, fewer than ``num`` at its end."""
        if num > len(ledger):
            expected = f"at most the {len(ledger)} items there are"
            raise ConfigError(explain("sample without replacement", expected=expected, got=num))
        if not self.num_left(ledger, num):
            self._left = generator.permutation(ledger.live_slots)
            self._left_ids = ledger.ids_at(self._left)
        drawn, self._left, self._left_ids = self._left[:num], self._left[num:], self._left_ids[num:]
        return Draw(drawn)

    def num_left(self, ledger: Ledger, num: int) -> int:
        """Return how many items the round has still to show, 0 if they are too few for a batch of ``num``."""
        is_there = ledger.ids_at(self._left) == self._left_ids
        self._left, self._left_ids = self._left[is_there], self._left_ids[is_there]
        return 0 if self.drop_last and len(self._left) < num else len(self._left)

    def clear(self) -> None:
        """Begin a new round."""
        self._left = self._left_ids = _NOTHING

    def state_dict(self) -> dict:
        """Capture the round."""
        return {"left": self._left.tolist(), "left_ids": self._left_ids.tolist()}

    def load_state_dict(self, state: dict) -> None:
        """Restore the round."""
        self._left, self._left_ids = np.array(state["left"], np.int64), np.array(state["left_ids"], np.int64)
