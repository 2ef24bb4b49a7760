"""What is known of every place of a storage: which item it holds, and what came before it. Numpy only, no data.

Items are numbered in the order in which they are written, from 0 on; such a number never comes again. A writer
*claims* numbers before it touches a row, and *commits* them when the rows are whole. So whoever finds the ledger after
a writer was killed knows what is whole. Live are ``len(ledger)`` places, the first ones until all are in use; where
places are used in turn, live are the items from ``oldest`` to before ``written``, and ``slot_of`` says where they lie.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from torchrl.data.replay.lanes import Links

CLAIMED, WRITTEN, BASE = range(3)


class Ledger:
    """Counters and columns over the places ("slots") of a storage.

    Args:
        capacity: number of slots.
        make: ``make(name, shape, dtype)`` returns zeroed memory, or what is there already, as a numpy array.

    Attributes:
        ids: the number of the item in each slot, int64 ``[C]``; -1 where there never was one.
        gap: how many numbers before it its predecessor in time was written, int32 ``[C]``; 0 where there is none.
        run: how many steps of its episode lead up to it in an unbroken chain, itself included, int32 ``[C]``.
        straight: over how many steps back every predecessor is the same gap away, int32 ``[C]``.
    """

    BYTES_PER_ITEM = 20

    def __init__(self, capacity: int, make: Callable[[str, tuple, type], np.ndarray]) -> None:
        self.capacity = capacity
        self._counters = make("counters", (3,), np.int64)
        self._ids = make("ids", (capacity,), np.int64)  # one more than the number, so that zeroed memory is empty
        self.gap = make("gap", (capacity,), np.int32)
        self.run = make("run", (capacity,), np.int32)
        self.straight = make("straight", (capacity,), np.int32)

    @property
    def written(self) -> int:
        """How many items have been written so far."""
        return int(self._counters[WRITTEN])

    @property
    def claimed(self) -> int:
        """How many numbers have been given out so far; more than were written where a writer is at work, or died."""
        return int(self._counters[CLAIMED])

    @property
    def oldest(self) -> int:
        """The number of the oldest live item, where places are used in turn."""
        claimed, written, base = self._counters.tolist()
        return min(max(base, claimed - self.capacity), written)

    def __len__(self) -> int:
        """Return how many items are live."""
        return self.written - self.oldest

    def slot_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the places of items, where places are used in turn."""
        return (ids - int(self._counters[BASE])) % self.capacity

    def next_slots(self, num: int) -> np.ndarray:
        """Return the places of the next items, where places are used in turn."""
        first = (self.written - int(self._counters[BASE])) % self.capacity
        slots = np.arange(first, first + num)
        slots[self.capacity - first :] -= self.capacity
        return slots

    @property
    def live_slots(self) -> np.ndarray:
        """The places of all live items; in the order in which they were written, where places are used in turn."""
        return self.slot_of(np.arange(self.oldest, self.written))

    @property
    def ids(self) -> np.ndarray:
        """The number of the item in each slot, -1 where there is none; a copy."""
        return self._ids - 1

    def ids_at(self, slots: np.ndarray) -> np.ndarray:
        """Return the numbers of the items in some slots, int64."""
        return self._ids[slots] - 1

    def claim(self, slots: np.ndarray) -> int:
        """Give out as many numbers as there are slots, whose items are gone from now on; return the first."""
        first = self.written
        self._counters[CLAIMED] = max(self.claimed, first + len(slots))
        self._ids[slots] = 0
        return first

    def commit(self, slots: np.ndarray, links: Links) -> None:
        """Note what now lies in some slots, in the order of their numbers."""
        first = self.written
        self.gap[slots], self.run[slots], self.straight[slots] = links
        self._ids[slots] = np.arange(first + 1, first + 1 + len(slots))
        self._counters[WRITTEN] = first + len(slots)

    def clear(self) -> None:
        """Forget every item; numbers go on."""
        self._ids.fill(0)
        self._counters[:] = self.claimed

    @property
    def num_used(self) -> int:
        """How many places have been used so far: the first ones."""
        return min(self.claimed, self.capacity)

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of everything, of the places that have been used."""
        used = slice(self.num_used)
        columns = {"ids": self._ids, "gap": self.gap, "run": self.run, "straight": self.straight}
        return {"counters": self._counters.copy()} | {name: column[used].copy() for name, column in columns.items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Restore :meth:`state`."""
        num_used = len(state["ids"])
        for name in ("gap", "run", "straight"):
            getattr(self, name)[:num_used] = state[name]
        self._ids[:num_used], self._ids[num_used:] = state["ids"], 0
        self._counters[:] = state["counters"]
