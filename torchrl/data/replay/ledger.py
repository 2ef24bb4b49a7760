"""The table of a storage's places: which item lies in each place, and which item came before it in time.

It holds numbers and no data, in numpy only. Items are numbered 0, 1, 2, ... in the order of writing; no number comes
twice. With four places that are used in turn, after six items::

    place         0    1    2    3
    ids           4    5    2    3      oldest = 2, written = 6, len(ledger) = 4, place_of(5) = 1

A writing process *claims* numbers before it writes to places and *commits* them when the items are whole. If it is
killed in between, ``claimed`` exceeds ``written``: a process that opens the ledger later knows which items are broken.

Two columns link each item to the step before it. After a batch of two rows, a and b, of three steps each::

    item          0    1    2    3    4    5
    step          a0   b0   a1   b1   a2   b2
    gap           0    0    2    2    2    2     how many numbers earlier the step before it was written; 0: none
    run           1    1    2    2    3    3     steps of the episode so far

So the three steps that end with item 5 are 5, 5 - 2 and 5 - 2 - 2: one subtraction finds them while the gap stays the
same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from torchrl.data.replay.lanes import Links
from torchrl.errors import SpecError, explain

CLAIMED, WRITTEN, BASE = range(3)


def index_dtype(capacity: int) -> type[np.signedinteger]:
    """Return the dtype of tables of places: int32 where it holds every place, which takes half the memory."""
    return np.int32 if capacity <= np.iinfo(np.int32).max else np.int64


class Ledger:
    """Hold for each place of a storage the id of the item in it, and which item came before that one in time.

    A sampler is given it: ``live_places`` and ``ids_at`` say what there is, ``gap`` and ``run`` what follows what.

    >>> ledger = Ledger(4, lambda name, shape, dtype: np.zeros(shape, dtype))
    >>> _ = ledger.claim(places := ledger.next_places(3))
    >>> ledger.commit(places, (np.array([0, 1, 1]), np.array([1, 2, 3])))  # three steps of one episode
    >>> len(ledger), ledger.live_places.tolist(), ledger.ids_at(np.array([2])).tolist()
    (3, [0, 1, 2], [2])

    Args:
        capacity: number of places.
        make: ``make(name, shape, dtype)`` returns zeroed memory, or existing memory of that name, as a numpy array.

    Attributes:
        ids: the id of the item in each place, int64 ``[C]``; -1 where there is none.
        gap: the item's id minus that of its predecessor in time, int32 ``[C]``; 0 where there is none.
        run: how many consecutive steps of the episode end with the item, itself included, int32 ``[C]``.
    """

    BYTES_PER_ITEM = 16

    def __init__(self, capacity: int, make: Callable[[str, tuple, type], np.ndarray]) -> None:
        self.capacity = capacity
        self._counters = make("counters", (3,), np.int64)
        self._ids = make("ids", (capacity,), np.int64)  # one more than the number, so that zeroed memory is empty
        self.gap = make("gap", (capacity,), np.int32)
        self.run = make("run", (capacity,), np.int32)

    @property
    def written(self) -> int:
        """How many items have been written so far."""
        return int(self._counters[WRITTEN])

    @property
    def claimed(self) -> int:
        """How many ids have been given out; more than ``written`` while a process writes, or after it died writing."""
        return int(self._counters[CLAIMED])

    @property
    def oldest(self) -> int:
        """The id of the oldest item that was not overwritten, where places are used in turn."""
        return self.live[0]

    @property
    def live(self) -> tuple[int, int]:
        """The ids of the items that were not overwritten, from ``oldest`` to below ``written``."""
        claimed, written, base = self._counters.tolist()
        return min(max(base, claimed - self.capacity), written), written

    def __len__(self) -> int:
        """Return how many items there are that were not overwritten."""
        oldest, written = self.live
        return written - oldest

    def place_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the places of the items with these ids, where places are used in turn."""
        return (ids - int(self._counters[BASE])) % self.capacity

    def next_places(self, num: int) -> np.ndarray:
        """Return the places that the next ``num`` items get, where places are used in turn."""
        first = (self.written - int(self._counters[BASE])) % self.capacity
        places = np.arange(first, first + num)
        places[self.capacity - first :] -= self.capacity
        return places

    @property
    def live_places(self) -> np.ndarray:
        """The places of all items, in the order of writing where places are used in turn."""
        return self.place_of(np.arange(self.oldest, self.written))

    @property
    def ids(self) -> np.ndarray:
        """The id of the item in each place, -1 where there is none; a copy."""
        return self._ids - 1

    def ids_at(self, places: np.ndarray) -> np.ndarray:
        """Return the ids of the items in these places, int64."""
        return self._ids[places] - 1

    def holds(self, places: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Answer for each place whether the item with this id lies there, or any item where ``ids`` is None.

        Raises:
            SpecError: a place below 0 or beyond the capacity.
        """
        if len(places) and (places.min() < 0 or places.max() >= self.capacity):
            expected, got = f"places from 0 to {self.capacity - 1}", f"{places.min()} to {places.max()}"
            raise SpecError(explain("update_priority", expected=expected, got=got))
        present = self.ids_at(places)
        return present >= 0 if ids is None else present == ids

    def claim(self, places: np.ndarray) -> int:
        """Give out one id for each place that will be written, and mark the places as empty; return the first id."""
        first = self.written
        self._counters[CLAIMED] = max(self.claimed, first + len(places))
        self._ids[places] = 0
        return first

    def commit(self, places: np.ndarray, links: Links) -> None:
        """Note that the items of the last claim are written to these places, and which items they follow."""
        first = self.written
        self.gap[places], self.run[places] = links
        self._ids[places] = np.arange(first + 1, first + 1 + len(places))
        self._counters[WRITTEN] = first + len(places)

    def clear(self) -> None:
        """Mark every place as empty; later items still get new ids."""
        self._ids.fill(0)
        self._counters[:] = self.claimed

    @property
    def num_used(self) -> int:
        """How many places have been used so far; they are the first ones of the storage."""
        return min(self.claimed, self.capacity)

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of the counters, and of the arrays over the used places."""
        used = slice(self.num_used)
        columns = {"ids": self._ids, "gap": self.gap, "run": self.run}
        return {"counters": self._counters.copy()} | {name: column[used].copy() for name, column in columns.items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Restore :meth:`state`."""
        num_used = len(state["ids"])
        self.gap[:num_used], self.run[:num_used] = state["gap"], state["run"]
        self._ids[:num_used], self._ids[num_used:] = state["ids"], 0
        self._counters[:] = state["counters"]
