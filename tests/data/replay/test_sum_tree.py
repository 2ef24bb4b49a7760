"""Sums of numbers that change: values by hand, against brute force, and what rounding may not do."""

import numpy as np
import pytest

from torchrl.data.replay import SumTree


def fractions(tree, masses):
    return np.array(masses) / tree.total


def test_numbers_by_hand():
    tree = SumTree(5)
    tree[np.array([0, 2, 3])] = np.array([1.0, 2.0, 5.0])
    assert tree.total == 8
    assert tree.find(fractions(tree, [0, 0.99, 1, 2.99, 3, 7.99])).tolist() == [0, 0, 2, 2, 3, 3]
    tree[np.array([2, 2])] = np.array([9.0, 0.5])  # the last one counts
    assert tree.total == 6.5 and tree[np.arange(5)].tolist() == [1, 0, 0.5, 5, 0]
    assert tree.find(fractions(tree, [1.2, 1.6])).tolist() == [2, 3]
    assert tree.smallest() == 0.5
    assert SumTree(3).smallest() == float("inf")


@pytest.mark.parametrize("capacity", [1, 15, 16, 17, 4095, 4096, 4097, 100_000])
def test_searches_equal_those_in_the_running_sum(capacity):
    rng = np.random.default_rng(capacity)
    tree, values = SumTree(capacity), np.zeros(capacity)
    for _ in range(5):
        some = rng.integers(0, capacity, max(1, capacity // 3))
        new = rng.integers(0, 4, len(some)).astype(float)  # whole numbers: no rounding to tell the two apart
        tree[some] = new
        values[some] = new
        values[some] = tree[some]
    tree[np.array([0])] = values[0] = 3.0
    assert tree.total == values.sum()
    masses = rng.integers(0, int(values.sum()), 500) + 0.5
    found = tree.find(masses / tree.total)
    assert np.array_equal(found, values.cumsum().searchsorted(masses, side="right"))


def test_rounding_never_finds_a_number_that_is_zero():
    """Numbers of very different size, with zeros between and at both ends, and the largest share there is."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        capacity = int(rng.integers(2, 6000))
        tree = SumTree(capacity)
        some = rng.choice(capacity, rng.integers(1, 1 + min(40, capacity)), replace=False)
        tree[some] = 10.0 ** rng.integers(-12, 12, len(some)) * rng.random(len(some)).astype(np.float32)
        shares = np.concatenate((rng.random(64), [0.0, np.nextafter(1.0, 0), 1 - 1e-7]))
        found = tree.find(shares)
        assert (tree[found] > 0).all() and found.max() < capacity


def test_sums_do_not_drift():
    """A hundred thousand changes later they are the sums of what is there, to the last bit."""
    rng = np.random.default_rng(1)
    tree = SumTree(1000)
    for _ in range(100):
        tree[rng.integers(0, 1000, 1000)] = rng.random(1000) * 1e6
    fresh = SumTree(1000)
    fresh[np.arange(1000)] = tree[np.arange(1000)]
    assert tree.total == fresh.total
    tree[np.arange(1000)] = 0.0
    assert tree.total == 0
