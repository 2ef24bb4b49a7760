"""Merging moments: against numpy over all the data."""

import numpy as np
import pytest
import torch

from torchrl.moments import merge_moments_, pool_moments

RANDOM = np.random.default_rng(0)
PARTS = [RANDOM.normal(1e8 + place, 3.0, (num, 2)) for num, place in ((1, 0.0), (7, 5.0), (300, -2.0))]
ALL = np.concatenate(PARTS)


def test_tensors_are_merged_in_place():
    mean, var, count = torch.zeros(2).double(), torch.ones(2).double(), 0
    for part in PARTS:
        count += len(part)
        rows = torch.as_tensor(part)
        merged = merge_moments_(mean, var, rows.mean(0), rows.var(0, correction=0), len(part) / count)
        assert merged[0] is mean and merged[1] is var
    np.testing.assert_allclose(mean, ALL.mean(0), rtol=1e-15)
    np.testing.assert_allclose(var, ALL.var(0), rtol=1e-7)


@pytest.mark.parametrize("of_tensors", [False, True])
def test_parts_are_pooled_with_the_mean_of_their_counts(of_tensors):
    parts = [(float(len(part)), part[:, 0].mean(), part[:, 0].var()) for part in PARTS]
    empty = (0.0, 9.0, 4.0)
    for given in (parts, [empty, *parts, empty]):
        given = [tuple(torch.tensor(part, dtype=torch.float64)) for part in given] if of_tensors else given
        before = [tuple(map(float, part)) for part in given]
        count, mean, var = pool_moments(given)
        assert float(count) == 308 / len(given)
        assert float(mean) == pytest.approx(ALL[:, 0].mean(), rel=1e-15)
        assert float(var) == pytest.approx(ALL[:, 0].var(), rel=1e-7)
        assert [tuple(map(float, part)) for part in given] == before


def test_where_nothing_was_counted_the_first_part_is_returned():
    assert pool_moments([(0.0, 2.0, 3.0), (0.0, 5.0, 7.0)]) == (0.0, 2.0, 3.0)
