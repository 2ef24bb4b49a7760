"""Which place of a storage a new item gets, and which item makes way for it."""

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
        keeps_order: whether places are used in turn, so that chains of steps lose their oldest first and every process
            can tell where an item lies.
        asks_priority: whether it is to be told the priorities of items.
    """

    _former_names = {"reprioritized": "on_priority"}
    keeps_order = False
    asks_priority = False

    @abstractmethod
    def choose_places(self, values: Values, num: int, ledger: Ledger) -> np.ndarray:
        """Return the places of new items, int64 ``[num]``; -1 where one is not let in.

        Args:
            values: their entries by path, ``[num, ...]``; none where the writer keeps order.
            num: how many there are.
            ledger: of the storage.
        """

    def on_priority(self, places: np.ndarray, priority: np.ndarray) -> None:  # noqa: B027 - most do not ask
        """Take note of priorities that have changed."""

    def clear(self) -> None:  # noqa: B027
        """Forget every item."""

    def state_dict(self) -> dict:
        """Return what a resumed run needs to choose the same places."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Restore :meth:`state_dict`."""


class RingWriter(Writer):
    """New items take the place of the oldest.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> buffer = ReplayBuffer(TensorStorage(4), writer=RingWriter())
    >>> buffer.extend(batch[0, :3]), buffer.extend(batch[0, :3])
    (tensor([0, 1, 2]), tensor([3, 0, 1]))
    """

    keeps_order = True

    def choose_places(self, values: Values, num: int, ledger: Ledger) -> np.ndarray:
        """Return the places after the last one used."""
        return ledger.next_places(num)


class _BestWriter(Writer):
    """New items take the place of those with the least score, if theirs is not less."""

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
        """Capture the scores, by place."""
        return {"scores": [self._scores[place] for place in range(len(self._scores))]}

    def load_state_dict(self, state: dict) -> None:
        self._scores = dict(enumerate(state["scores"]))
        self._heap = [(score, place) for place, score in self._scores.items()]
        heapq.heapify(self._heap)


class KeepBest(_BestWriter):
    """New items take the place of those with the least value under a key, if theirs is not less.

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
        SpecError: from a write, it is not one number per item, or NaN.
    """

    def __init__(self, key: str | tuple[str, ...]) -> None:
        super().__init__()
        self.key = key

    def choose_places(self, values: Values, num: int, ledger: Ledger) -> np.ndarray:
        """Return a free place, or that of the least item if the new one is not less, or -1."""
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
    """New items take the place of those with the least priority; with a prioritised sampler.

    A new item has the highest priority there was, as in the sampler, so it is always let in.

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
        """Give new items free places, or those of the items with the least priority."""
        return self._place_by_score([self._highest] * num, ledger.capacity)

    def on_priority(self, places: np.ndarray, priority: np.ndarray) -> None:
        """Rank the items in these places by their new priorities."""
        self._highest = max(self._highest, float(priority.max()))
        for place, value in zip(places.tolist(), priority.tolist(), strict=True):
            self._set(place, value)

    def clear(self) -> None:
        super().clear()
        self._highest = 1.0

    def state_dict(self) -> dict:
        """Capture the priorities, by place, and the highest there was."""
        return super().state_dict() | {"highest": self._highest}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self._highest = state["highest"]


def last_of_each(places: np.ndarray) -> np.ndarray:
    """Return the indices of the new items that stay: of several for one place only the last, and none refused."""
    order = np.arange(len(places))
    last: dict[int, int] = dict(zip(places.tolist(), order.tolist(), strict=True))
    last.pop(REFUSED, None)
    return np.array(sorted(last.values()), dtype=np.int64)
