"""Samplers, which draw the places of a sample's items. They read no data."""

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
    """Hold the places that a sampler drew for one sample, with a mask and more entries for the sample.

    >>> Draw(np.array([0, 3]), facts={"age": np.array([5, 2])}).places.tolist()  # two items, with a number each
    [0, 3]

    Attributes:
        places: int64 ``[n]`` for n items, or ``[N, T]`` for N slices.
        mask: false behind the end of shorter slices, bool like ``places``; None where every place is valid.
        facts: entries for the sample's ``"replay"``, arrays whose shape begins with that of ``places``, or one
            for each slice, ``[N]``.
        round: number of the sampler's round that the draw belongs to, where it goes through the items in rounds.
        ids: the items' numbers, int64 like ``places``, where the sampler drew those; None: the ledger tells them.
    """

    places: np.ndarray
    mask: np.ndarray | None = None
    facts: dict[str, np.ndarray] = field(default_factory=dict)
    round: int = 0
    ids: np.ndarray | None = None

    def state(self) -> dict:
        """Return the draw as a dict of tensors and numbers, for :meth:`of`."""
        mask = None if self.mask is None else torch.from_numpy(self.mask)
        facts = {name: torch.from_numpy(fact) for name, fact in self.facts.items()}
        # Saves call the places slots, as the first version did.
        return {"slots": torch.from_numpy(self.places), "mask": mask, "facts": facts, "round": self.round}

    @classmethod
    def of(cls, state: dict) -> Draw:
        """Rebuild a draw from its :meth:`state`."""
        mask = None if state["mask"] is None else state["mask"].numpy()
        facts = {name: fact.numpy() for name, fact in state["facts"].items()}
        return cls(state["slots"].numpy(), mask, facts, state["round"])


class Sampler(Extensible, ABC):
    """Base class of samplers, which draw places of stored items; the buffer holds its lock during every call.

    >>> from torchrl.data.replay import Draw, ReplayBuffer, TensorStorage
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
        """Prepare for a storage of ``capacity`` places; the buffer calls it once."""

    @abstractmethod
    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw ``num`` items and return their places.

        Raises:
            ConfigError: the sampler cannot draw this number of items.
        """

    def on_write(self, places: np.ndarray, ledger: Ledger) -> None:  # noqa: B027 - not all follow what is written
        """Update the sampler's own tables: new items, of any process, were written to these places."""

    def on_drop(self, places: np.ndarray) -> None:  # noqa: B027
        """Update the sampler's own tables: these places hold no item any more."""

    @property
    def has_priorities(self) -> bool:
        """Whether :meth:`update_priority` is written; then ``ReplayUpdates`` tells it the errors of each sample."""
        return type(self).update_priority is not Sampler.update_priority

    def update_priority(self, places: np.ndarray, priority: np.ndarray) -> None:
        """Set the priorities of the items in these places, float64 ``[n]``, finite and not negative.

        Raises:
            ConfigError: this sampler has no priorities.
        """
        hint = "ReplayBuffer(..., sampler=PrioritizedSampler()) has them."
        got = type(self).__name__
        raise ConfigError(explain("update_priority", expected="a sampler with priorities", got=got, hint=hint))

    def clear(self) -> None:  # noqa: B027
        """Reset the sampler's own tables: the buffer was emptied."""

    def state_dict(self) -> dict:
        """Return what a resumed run needs to draw the same samples, as tensors and numbers."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Restore :meth:`state_dict`."""


class Follower:
    """Call a sampler's ``on_write`` and ``on_drop`` for places that this process or another one has written.

    Args:
        sampler: the sampler to keep up to date.
        ledger: of the storage; the first :meth:`catch_up` reports all its items.
    """

    def __init__(self, sampler: Sampler, ledger: Ledger) -> None:
        self._sampler = sampler
        self._written = self._claimed = ledger.oldest

    def catch_up(self, ledger: Ledger, places: np.ndarray | None = None) -> None:
        """Report to the sampler all places written since the last call; ``places`` are this process's last write.

        Places that a writer began to overwrite and did not finish are reported as dropped.
        """
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
        """Do not report what has been written so far: the sampler's restored state has it already."""
        self._written, self._claimed = ledger.written, ledger.claimed


class UniformSampler(Sampler):
    """Draw every item with the same probability, with replacement.

    >>> _ = buffer.extend(batch)  # draws uniformly, if nothing else is said
    >>> bool((buffer.sample(1000)["replay", "index"].bincount() > 30).all())  # 62.5 times each of 16, on average
    True
    """

    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw ``num`` items uniformly and return their places."""
        oldest, written = ledger.live
        ids = generator.integers(oldest, written, num)
        return Draw(ledger.place_of(ids), ids=ids)


class SamplerWithoutReplacement(Sampler):
    """Draw every item once per round, in random order; when all were drawn, the next round begins.

    Items that are written during a round belong to the next one; items that are overwritten during a round are skipped.
    Iterating over the buffer yields one round.

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
        """Return the next ``num`` items of the round, fewer at its end.

        Raises:
            ConfigError: there are fewer than ``num`` items in the whole buffer.
        """
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
        """Answer whether the round has another batch of ``num`` items, after dropping overwritten ones."""
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
        """Return the items left in this round, and the number of the round."""
        left, ids = (torch.from_numpy(column.copy()) for column in (self._left, self._left_ids))
        return {"left": left, "left_ids": ids, "num_rounds": self.num_rounds}

    def load_state_dict(self, state: dict) -> None:
        self._left, self._left_ids = (state[name].numpy().copy() for name in ("left", "left_ids"))
        self.num_rounds = state["num_rounds"]
