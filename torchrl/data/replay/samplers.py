"""Which items a sample is made of. A sampler draws places; it reads no data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch

from torchrl.data.replay.ledger import Ledger
from torchrl.errors import ConfigError, explain
from torchrl.misspelling import Extensible

_NOTHING = np.empty(0, np.int64)


@dataclass
class Draw:
    """The places that a sampler drew for one sample, and what it says about them.

    Attributes:
        places: places, int64 ``[n]``, or ``[N, T]`` for slices.
        mask: false where a slice is shorter, bool like ``places``; None where every place counts.
        facts: more to hand out with the sample, arrays whose shape begins with that of ``places``, or ``[N]``.
        round: which one it belongs to, where a sampler goes through the items in rounds.
    """

    places: np.ndarray
    mask: np.ndarray | None = None
    facts: dict[str, np.ndarray] = field(default_factory=dict)
    round: int = 0

    def state(self) -> dict:
        """Return the draw as a dict of tensors and numbers, for :meth:`of`."""
        mask = None if self.mask is None else torch.from_numpy(self.mask)
        facts = {name: torch.from_numpy(fact) for name, fact in self.facts.items()}
        # Saves call the places slots, as the first version did.
        return {"slots": torch.from_numpy(self.places), "mask": mask, "facts": facts, "round": self.round}

    @classmethod
    def of(cls, state: dict) -> Draw:
        """Return the draw whose :meth:`state` this is."""
        mask = None if state["mask"] is None else state["mask"].numpy()
        facts = {name: fact.numpy() for name, fact in state["facts"].items()}
        return cls(state["slots"].numpy(), mask, facts, state["round"])


class Sampler(Extensible, ABC):
    """Base class of samplers, which draw places of live items; the buffer holds its lock during every call.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> class Newest(Sampler):
    ...     def draw(self, num, ledger, generator):
    ...         return Draw(ledger.live_places[-num:])
    >>> buffer = ReplayBuffer(TensorStorage(100), sampler=Newest())
    >>> _ = buffer.extend(batch)  # [2, 8]
    >>> buffer.sample(2)["replay", "id"]
    tensor([14, 15])
    """

    _former_names = {"wrote": "on_write", "dropped": "on_drop"}
    needs_order = False  # whether it follows chains of steps, which a RingWriter keeps
    slice_len = 0  # T of samples [N, T]; 0 where a sample is single items [n]

    def bind(self, capacity: int) -> None:  # noqa: B027 - not all keep something for each place
        """Learn the number of places of the storage; the buffer calls it once."""

    @abstractmethod
    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw ``num`` items.

        Raises:
            ConfigError: the sampler cannot draw this number of items.
        """

    def on_write(self, places: np.ndarray, ledger: Ledger) -> None:  # noqa: B027 - not all follow what is written
        """Take note of new items in these places."""

    def on_drop(self, places: np.ndarray) -> None:  # noqa: B027
        """Take note that nothing lies in these places any more."""

    def update_priority(self, places: np.ndarray, priority: np.ndarray) -> None:
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
        """Return what a resumed run needs to draw the same samples, as tensors and numbers."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Restore :meth:`state_dict`."""


class Follower:
    """Tell a sampler which places were written or lost, by this process or any other that shares the ledger.

    Args:
        sampler: what to tell.
        ledger: its live items will be told first.
    """

    def __init__(self, sampler: Sampler, ledger: Ledger) -> None:
        self._sampler = sampler
        self._written = self._claimed = ledger.oldest

    def catch_up(self, ledger: Ledger, places: np.ndarray | None = None) -> None:
        """Tell the sampler what was written or lost since the last call; ``places`` are of this process's own write."""
        written, claimed = ledger.written, ledger.claimed
        if places is not None and self._written == written - len(places) and claimed == written:
            self._sampler.on_write(places, ledger)
        elif self._written < written or self._claimed < claimed:
            if claimed > written:  # a writer died: what it began to overwrite is gone
                oldest = max(self._claimed, claimed - ledger.capacity, written)
                self._sampler.on_drop(ledger.place_of(np.arange(oldest, claimed)))
            self._sampler.on_write(ledger.place_of(np.arange(max(self._written, ledger.oldest), written)), ledger)
        self._written, self._claimed = written, claimed

    def skip(self, ledger: Ledger) -> None:
        """Let the next :meth:`catch_up` begin here: the sampler knows all that has been written."""
        self._written, self._claimed = ledger.written, ledger.claimed


class UniformSampler(Sampler):
    """Draws every item with the same probability, with replacement.

    >>> _ = buffer.extend(batch)  # draws uniformly, if nothing else is said
    >>> bool((buffer.sample(1000)["replay", "index"].bincount() > 30).all())  # 62.5 times each of 16, on average
    True
    """

    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw from the items there are."""
        return Draw(ledger.place_of(generator.integers(ledger.oldest, ledger.written, num)))


class SamplerWithoutReplacement(Sampler):
    """Goes through the items in random order; when all were seen, the next round begins.

    Items that are written during a round are in the next one; items that are overwritten during a round are left out.
    Iterating over the buffer is one round.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> buffer = ReplayBuffer(TensorStorage(100), sampler=SamplerWithoutReplacement(), batch_size=6)
    >>> _ = buffer.extend(batch)  # 16 items
    >>> [len(sample) for sample in buffer]
    [6, 6, 4]

    Args:
        drop_last: leave out the last batch of a round where it would be smaller than the others.
    """

    def __init__(self, *, drop_last: bool = False) -> None:
        self.drop_last = drop_last
        self.num_rounds = 0  # how many have begun
        self._left = _NOTHING  # places that this round has still to show, and the items that lay there when it began
        self._left_ids = _NOTHING

    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw the next of the round, fewer than ``num`` at its end."""
        if num > len(ledger):
            expected = f"at most the {len(ledger)} items there are"
            raise ConfigError(explain("sample without replacement", expected=expected, got=num))
        if not self.has_more(num, ledger):
            self._left = generator.permutation(ledger.live_places)
            self._left_ids = ledger.ids_at(self._left)
            self.num_rounds += 1
        drawn, self._left, self._left_ids = self._left[:num], self._left[num:], self._left_ids[num:]
        return Draw(drawn, round=self.num_rounds)

    def has_more(self, num: int, ledger: Ledger) -> bool:
        """Tell whether the round has another batch of ``num``; forget its items that were overwritten."""
        while True:
            places, ids = self._left[:num], self._left_ids[:num]
            is_there = ledger.ids_at(places) == ids
            num_gone = len(places) - int(is_there.sum())
            if not num_gone:
                return len(places) == num or (len(places) > 0 and not self.drop_last)
            places[num_gone:], ids[num_gone:] = places[is_there], ids[is_there]
            self._left, self._left_ids = self._left[num_gone:], self._left_ids[num_gone:]

    def clear(self) -> None:
        """Let the next draw begin a new round."""
        self._left = self._left_ids = _NOTHING

    def state_dict(self) -> dict:
        """Return which items the round has still to draw, and the number of rounds."""
        left, ids = (torch.from_numpy(column.copy()) for column in (self._left, self._left_ids))
        return {"left": left, "left_ids": ids, "num_rounds": self.num_rounds}

    def load_state_dict(self, state: dict) -> None:
        self._left, self._left_ids = (state[name].numpy().copy() for name in ("left", "left_ids"))
        self.num_rounds = state["num_rounds"]
