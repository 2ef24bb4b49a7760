"""The interval of a mean, by resampling."""

import numpy as np
import pytest

from torchrl.errors import ConfigError, SpecError
from torchrl.record import bootstrap_interval


def test_of_two_values_half_of_the_means_lie_between_them():
    """Drawn twice from 0 and 1: a quarter of the means is 0, a half 0.5, a quarter 1."""
    assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([0.0, 1.0], level=0.6) == (0.0, 1.0)


def test_many_values_agree_with_the_standard_error():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    error = values.std() / 20
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_each_column_has_an_interval_of_its_own():
    values = np.array([[1.0, 10.0], [2.0, 10.0], [6.0, 10.0]])
    low, high = bootstrap_interval(values)
    assert low.shape == high.shape == (2,)
    assert (low[0], high[0]) == bootstrap_interval(values[:, 0])
    assert low[1] == pytest.approx(10.0) and high[1] == pytest.approx(10.0)


def test_one_value_has_no_interval():
    assert np.isnan(bootstrap_interval([3.0])).all()


def test_what_has_no_mean_is_refused():
    for values in ([], 3.0, [1.0, np.nan], [1.0, np.inf]):
        with pytest.raises(SpecError, match="finite values"):
            bootstrap_interval(values)
    for options in ({"level": 95}, {"num_resamples": 0}):
        with pytest.raises(ConfigError, match="level between 0 and 1"):
            bootstrap_interval([1.0, 2.0], **options)
