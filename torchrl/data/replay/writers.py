"""Writers, which choose the place of a new item in a storage, and so which old item it replaces."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from torchrl.data.replay.ledger import Ledger
from torchrl.errors import KeyMissing, SpecError, explain
from torchrl.misspelling import Extensible

REFUSED = -1
Values = dict[tuple[str, ...], Tensor]


class Writer(Extensible, ABC):
    """Base class of writers, which choose the place of each new item in a storage.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> class FirstPlaces(Writer):
    ...     def choose_places(self, values, num, ledger):
    ...         return np.arange(num)
    >>> buffer = ReplayBuffer(TensorStorage(100), writer=FirstPlaces())
    >>> buffer.extend(batch[0, :3]), buffer.extend(batch[0, :3])
    (tensor([0, 1, 2]), tensor([0, 1, 2]))

    Attributes:
        keeps_order: whether places are used in turn, as in a ring: an item's place then follows from its id.
        asks_priority: whether the buffer calls :meth:`on_priority`.
    """

    _former_names = {"reprioritized": "on_priority"}
    keeps_order = False
    asks_priority = False

    @abstractmethod
    def choose_places(self, values: Values, num: int, ledger: Ledger) -> np.ndarray:
        """Return the places of new items, int64 ``[num]``; -1 where the writer rejects one.

        Args:
            values: their entries by path, ``[num, ...]``; empty where the writer keeps order.
            num: how many new items there are.
            ledger: of the storage.
        """

    def on_priority(self, places: np.ndarray, priority: np.ndarray) -> None:  # noqa: B027 - most do not ask
        """Update the writer's own table: these items have new priorities; the default does nothing.

        The buffer calls it in ``update_priority``, if :attr:`asks_priority` is true.
        """

    def clear(self) -> None:  # noqa: B027
        """Reset the writer's own tables: the buffer was emptied."""

    def state_dict(self) -> dict:
        """Return what a resumed run needs to choose the same places."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Restore :meth:`state_dict`."""


class RingWriter(Writer):
    """Let every new item replace the oldest one when the storage is full.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> buffer = ReplayBuffer(TensorStorage(4), writer=RingWriter())
    >>> buffer.extend(batch[0, :3]), buffer.extend(batch[0, :3])
    (tensor([0, 1, 2]), tensor([3, 0, 1]))
    """

    keeps_order = True

    def choose_places(self, values: Values, num: int, ledger: Ledger) -> np.ndarray:
        """Return the next ``num`` places of the ring."""
        return ledger.next_places(num)


class _BestWriter(Writer):
    """Base of writers that keep the items with the highest scores: a new item replaces the lowest, if not below it."""

    def __init__(self) -> None:
        self._scores: dict[int, float] = {}  # by place
        self._heap: list[tuple[float, int]] = []  # with entries that are out of date

    def _place_by_score(self, scores: list[float], capacity: int) -> np.ndarray:
        places = []
        for score in scores:
            if len(self._scores) < capacity:
                place = len(self._scores)
            else:
                least = self._least()
                place = self._heap[0][1] if score >= least else REFUSED
            places.append(place)
            if place != REFUSED:
                self._set(place, score)
        return np.array(places, dtype=np.int64)

    def _set(self, place: int, score: float) -> None:
        self._scores[place] = score
        heapq.heappush(self._heap, (score, place))
        if len(self._heap) > 4 * len(self._scores) + 64:
            self._heap = [(score, place) for place, score in self._scores.items()]
            heapq.heapify(self._heap)

    def _least(self) -> float:
        while self._scores[self._heap[0][1]] != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0]

    def clear(self) -> None:
        self._scores, self._heap = {}, []

    def state_dict(self) -> dict:
        """Return the scores, by place."""
        return {"scores": [self._scores[place] for place in range(len(self._scores))]}

    def load_state_dict(self, state: dict) -> None:
        self._scores = dict(enumerate(state["scores"]))
        self._heap = [(score, place) for place, score in self._scores.items()]
        heapq.heapify(self._heap)


class KeepBest(_BestWriter):
    """Keep the items with the largest values under a key: when full, a new item replaces the smallest, if not below it.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> buffer = ReplayBuffer(TensorStorage(2), writer=KeepBest("score"))
    >>> buffer.extend(TensorDict({"score": torch.tensor([5.0, 1.0, 3.0, 0.0])}, [4]))
    tensor([ 0,  1,  1, -1])
    >>> buffer[:]["score"]
    tensor([5., 3.])

    Args:
        key: an entry of one number per item.

    Raises:
        KeyMissing: from a write, items do not have the key.
        SpecError: from a write, the entry is not one number per item, or NaN.
    """

    def __init__(self, key: str | tuple[str, ...]) -> None:
        super().__init__()
        self.key = key

    def choose_places(self, values: Values, num: int, ledger: Ledger) -> np.ndarray:
        """Return for each new item a free place, or that of the smallest item if the new one is not below, or -1.

        Raises:
            KeyMissing: the items do not have the key.
            SpecError: the entry is not one number per item, or NaN.
        """
        found = values.get((self.key,) if isinstance(self.key, str) else tuple(self.key))
        if found is None:
            got = f"the keys {sorted('/'.join(path) for path in values)}"
            raise KeyMissing(explain("KeepBest", expected=f"items with the key {self.key!r}", got=got))
        if found.numel() != num:
            got = f"shape {list(found.shape)} for {num} items"
            raise SpecError(explain(f"KeepBest, {self.key!r}", expected="one number per item", got=got))
        if bool(torch.isnan(found.double()).any()):
            raise SpecError(explain(f"KeepBest, {self.key!r}", expected="numbers", got="NaN"))
        return self._place_by_score(found.reshape(-1).tolist(), ledger.capacity)


class KeepHighestPriority(_BestWriter):
    """Let a new item replace the item with the lowest priority when the storage is full; for a prioritised sampler.

    A new item gets the highest priority so far, as in the sampler, so it is never rejected.

    >>> from torchrl.data.replay import PrioritizedSampler, ReplayBuffer, TensorStorage
    >>> buffer = ReplayBuffer(TensorStorage(2), writer=KeepHighestPriority(), sampler=PrioritizedSampler())
    >>> _ = buffer.extend(batch[0, :2])
    >>> buffer.update_priority(torch.arange(2), torch.tensor([2.0, 0.5]))
    >>> buffer.add(batch[0, 2])  # in the place of the second
    1
    """

    asks_priority = True

    def __init__(self) -> None:
        super().__init__()
        self._highest = 1.0

    def choose_places(self, values: Values, num: int, ledger: Ledger) -> np.ndarray:
        """Return for each new item a free place, or the place of the item with the lowest priority."""
        return self._place_by_score([self._highest] * num, ledger.capacity)

    def on_priority(self, places: np.ndarray, priority: np.ndarray) -> None:
        """Store the new priorities of the items in these places."""
        self._highest = max(self._highest, float(priority.max()))
        for place, value in zip(places.tolist(), priority.tolist(), strict=True):
            self._set(place, value)

    def clear(self) -> None:
        super().clear()
        self._highest = 1.0

    def state_dict(self) -> dict:
        """Return the priorities, by place, and the highest so far."""
        return super().state_dict() | {"highest": self._highest}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self._highest = state["highest"]


def last_of_each(places: np.ndarray) -> np.ndarray:
    """Return the indices of new items to write: of several with one place only the last, and none with place -1."""
    order = np.arange(len(places))
    last: dict[int, int] = dict(zip(places.tolist(), order.tolist(), strict=True))
    last.pop(REFUSED, None)
    return np.array(sorted(last.values()), dtype=np.int64)
