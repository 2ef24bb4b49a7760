"""Bounds: what is computed from two of them, and the numbers that tensors of equal entries are."""

import math

import pytest
import torch

from torchrl.errors import ConfigError
from torchrl.modules.distributions.bounds import Bounds


def test_numbers_by_hand():
    assert Bounds.of(-1.0, 3.0) == (-1.0, 3.0, 1.0, 2.0, math.log(2), 1.5)


def test_tensors_are_the_numbers_of_every_dimension():
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([3.0, 0.5])
    for index, values in enumerate(zip(*Bounds.of(low, high), strict=True)):
        torch.testing.assert_close(torch.stack(values).tolist(), list(Bounds.of(low[index].item(), high[index].item())))
    torch.testing.assert_close(Bounds.of(low, 3.0), Bounds.of(low, torch.full((2,), 3.0)))


def test_squash_and_unit_are_inverse_up_to_tanh():
    u = torch.linspace(-2, 2, 9)[:, None]
    for bounds in (
        Bounds.of(-1.0, 1.0),
        Bounds.of(-2.0, 2.0),
        Bounds.of(0.0, 5.0),
        Bounds.of(torch.tensor([-1.0]), torch.tensor([2.0])),
    ):
        torch.testing.assert_close(bounds.unit(bounds.squash(u)), torch.tanh(u))


def test_tensors_follow_the_dtype_they_are_used_with():
    bounds = Bounds.of(torch.tensor([-0.3]), torch.tensor([0.1]))
    assert bounds.like(torch.zeros(1)) is bounds
    double = bounds.like(torch.zeros(1, dtype=torch.float64))
    assert all(value.dtype == torch.float64 for value in double)
    torch.testing.assert_close(double.middle, (bounds.low.double() + bounds.high.double()) / 2, rtol=0, atol=0)
    assert Bounds.of(0.0, 1.0).like(torch.zeros(1)) == Bounds.of(0.0, 1.0)


def test_checked_prefers_numbers():
    assert Bounds.validate("x", torch.full((4, 2), -1.0), torch.ones(2)) == Bounds.of(-1.0, 1.0)
    assert isinstance(Bounds.validate("x", torch.tensor([-1.0, 0.0]), 1.0).middle, torch.Tensor)


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (0.0, math.nan), (-math.inf, 0.0), (torch.zeros(2), torch.tensor([1.0, -1.0]))]
)
def test_bad_bounds_are_refused(low, high):
    with pytest.raises(ConfigError, match="who: expected finite bounds with low < high"):
        Bounds.validate("who", low, high)


def test_bounds_that_differ_between_rows_are_refused():
    with pytest.raises(ConfigError, match=r"expected numbers or \[A\].*one environment"):
        Bounds.validate("who", torch.rand(3, 2), 2.0)


def test_the_same_bounds_are_the_same_in_either_form():
    one = Bounds.of(torch.tensor([0.5]), torch.tensor([1.0]))
    one.require_same("who", Bounds.of(torch.tensor([0.5]).double(), torch.tensor([1.0]).double()))
    with pytest.raises(ConfigError, match=r"who: expected the same bounds, got \[\[0.5\], \[1.0\]\] and \[0.5, 2.0\]"):
        one.require_same("who", Bounds.of(0.5, 2.0))
