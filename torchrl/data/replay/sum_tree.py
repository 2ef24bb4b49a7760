"""Sums over many numbers that change: draw an index in proportion to its number. Numpy only."""

from __future__ import annotations

import numpy as np

WIDTH = 16  # children of a node
NUM_LEVELS = 3  # of nodes below the top, which has a sum for every WIDTH ** NUM_LEVELS numbers


class SumTree:
    """Hold non-negative float64 numbers with a tree of their sums, to draw an index in proportion to its number.

    The tree has three levels of nodes with 16 children each, below a top of any width. Setting numbers computes the
    sums above them anew, so rounding errors do not add up. A search takes the running sum of the top, then goes down
    three levels, whatever the capacity.

    >>> tree = SumTree(4)
    >>> tree[np.array([0, 2])] = np.array([1.0, 3.0])
    >>> tree.total, tree.find(np.array([0.0, 0.2, 0.25, 0.9]))
    (4.0, array([0, 0, 2, 2]))

    Args:
        capacity: how many numbers; all begin at 0.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._levels: list[np.ndarray] = []
        size = capacity
        for _ in range(NUM_LEVELS):
            size = -(-size // WIDTH)
            self._levels.append(np.zeros((size, WIDTH)))
        self._values = self._levels[0].reshape(-1)
        self._top = np.zeros(size)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Return some of the numbers, float64 of the shape of ``indices``."""
        return self._values[indices]

    def __setitem__(self, indices: np.ndarray, values: np.ndarray | float) -> None:
        """Set some of the numbers; where an index comes twice the last one counts."""
        self._values[indices] = values
        nodes = np.asarray(indices).reshape(-1) // WIDTH
        for level, above in zip(self._levels, [*self._levels[1:], None], strict=True):
            sums = np.einsum("ij->i", level.take(nodes, 0))  # half the time of sum(1)
            (self._top if above is None else above.reshape(-1))[nodes] = sums
            nodes = nodes // WIDTH

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return float(self._top.sum())

    def find(self, fractions: np.ndarray) -> np.ndarray:
        """Return for each fraction of the total the index at which the running sum first exceeds it.

        An index whose number is 0 is never returned, whatever is rounded: at every node the share that is left is kept
        below the sum of the children, and the child is the first whose running sum lies above it.

        Args:
            fractions: float64 ``[n]``, each at least 0 and below 1.

        Returns:
            int64 ``[n]``.
        """
        running = self._top.cumsum()
        left = np.minimum(fractions * running[-1], np.nextafter(running[-1], 0))
        nodes = running.searchsorted(left, side="right")
        left = left - (running[nodes] - self._top[nodes])
        lane = np.arange(len(nodes)) * WIDTH
        for level in reversed(self._levels):
            children = level.take(nodes, 0)
            running = children.cumsum(1)
            left = np.minimum(left, np.nextafter(running[:, -1], 0))
            child = (running <= left[:, None]).argmin(1)
            at = lane + child
            left -= running.reshape(-1).take(at) - children.reshape(-1).take(at)
            nodes = nodes * WIDTH + child
        return nodes

    def smallest(self) -> float:
        """Return the smallest positive number, infinity if there is none; takes time linear in the capacity."""
        positive = self._values[self._values > 0]
        return float(positive.min()) if len(positive) else float("inf")
