"""Random numbers of rows: by hand, evenly spread, and of one row whatever the others are."""

import pytest
import torch

from cases.devices import DEVICES
from torchrl.envs import RowRandom
from torchrl.envs.row_random import later_keys, mix_
from torchrl.errors import ConfigError, SpecError

WORD = 2**64


def hashed(number):
    """Splitmix64's hash of a number, in Python's integers."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % WORD
    number = (number ^ number >> 27) * 0x94D049BB133111EB % WORD
    return number ^ number >> 31


@pytest.mark.parametrize("device", DEVICES)
def test_the_hash_is_that_of_splitmix64(device):
    step = 0x9E3779B97F4A7C15
    numbers = torch.tensor([step * j % WORD - (WORD if step * j % WORD >= WORD // 2 else 0) for j in (1, 2, 3)])
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # its first numbers from the seed 0
    assert [number % WORD for number in mix_(numbers.to(device)).tolist()] == published


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_by_hand(device):
    key = [5, 2**63 + 11]
    random = RowRandom(key=torch.tensor([5, -(2**63) + 11]).to(device))
    drawn = [random.rand(2), random.rand()]  # numbers 1 and 2, then 3
    numbers = torch.cat([drawn[0], drawn[1].unsqueeze(-1)], -1).tolist()
    for row in range(2):
        for j in range(3):
            bits = key[row] * (hashed(0x9E3779B97F4A7C15 * (j + 1) % WORD) | 1) % WORD
            bits = (bits ^ bits >> 32) * 0x94D049BB133111EB % WORD
            assert numbers[row][j] == ((bits >> 40) + 2**23) % 2**24 / 2**24


def test_numbers_of_a_row_do_not_depend_on_the_others_nor_on_how_they_are_asked_for():
    few, many = RowRandom([2], seed=3), RowRandom([2, 3], seed=3)
    assert torch.equal(few.rand(4), many.rand(4).reshape(6, 4)[:2])
    assert torch.equal(few.randn(2, 2), many.randn(2, 2).reshape(6, 2, 2)[:2])
    assert torch.equal(few.randint(9), many.randint(9).reshape(6)[:2])
    one, other = RowRandom([5], seed=1), RowRandom([5], seed=1)
    assert torch.equal(one.rand(6), torch.cat([other.rand(2), other.rand(4)], -1))
    assert torch.equal(RowRandom([], seed=1).rand(3), RowRandom([1], seed=1).rand(3)[0])
    assert RowRandom([], seed=1).rand().shape == RowRandom([], seed=1).randint(3).shape == torch.Size()
    assert not torch.equal(RowRandom([5], seed=2).rand(), RowRandom([5], seed=1).rand())


def test_numbers_are_spread_evenly_in_a_draw_over_rows_and_over_episodes():
    keys = RowRandom([3000], seed=0).key()
    draws = []
    for _ in range(20):  # episodes
        keys = later_keys(keys)
        draws.append(RowRandom(key=keys).rand(3))
    drawn = torch.stack(draws, 1)  # [rows, episodes, numbers]
    assert 0 <= drawn.min() < 1e-4 and 1 - 1e-4 < drawn.max() < 1
    columns = drawn.reshape(3000, 60)
    assert (columns.mean(0) - 0.5).abs().max() < 5 * 12**-0.5 / 3000**0.5
    assert torch.corrcoef(columns.T).fill_diagonal_(0).abs().max() < 5 / 3000**0.5
    rows = drawn[:60].reshape(60, 60)
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 5.5 / 60**0.5
    cells = torch.histogramdd(drawn.reshape(-1, 3), bins=[8, 8, 8], range=[0, 1] * 3).hist.flatten()  # 60,000 points
    chi = ((cells - 60_000 / 512) ** 2 / (60_000 / 512)).sum()
    assert 511 - 5 * (2 * 511) ** 0.5 < chi < 511 + 5 * (2 * 511) ** 0.5
    bits = (drawn * 2**24).long()
    shares = torch.stack([(bits >> bit & 1).double().mean() for bit in range(24)])
    assert (shares - 0.5).abs().max() < 5 * 0.5 / 180_000**0.5


def test_normal_numbers_and_integers():
    random = RowRandom([20_000], seed=0)
    normal = random.randn(5).double()
    assert normal.isfinite().all() and normal.mean().abs() < 0.02 and abs(normal.std() - 1) < 0.02
    assert abs((normal**4).mean() - 3) < 0.1 and torch.corrcoef(normal.T).fill_diagonal_(0).abs().max() < 0.04
    counts = torch.bincount(random.randint(7, 5).flatten(), minlength=7)
    assert len(counts) == 7 and ((counts - 100_000 / 7).abs() < 5 * (100_000 / 7) ** 0.5).all()
    large = random.randint(2**31)
    assert large.min() >= 0 and 2**31 - 2**20 < large.max() < 2**31


def test_many_numbers_are_drawn_at_once():
    first, second = RowRandom([2], seed=0), RowRandom([2], seed=0)
    assert torch.equal(first.rand(5000)[:, 4000:], second.rand(100, 50).reshape(2, 5000)[:, 4000:])


def test_a_key_begins_another_stream():
    random = RowRandom([3], seed=0)
    keys = [random.key(), random.key()]
    streams = [RowRandom(key=key).rand(4) for key in keys] + [random.rand(4)]
    assert torch.cat(streams).unique().numel() == 36


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": [2]}, ConfigError, "RowRandom: expected batch_size and seed, or key, got seed=None, key=None"),
        ({"seed": 3}, ConfigError, "expected batch_size and seed, or key"),
        ({"batch_size": [2], "seed": -1}, ConfigError, "a non-negative integer, got -1"),
        ({"key": torch.zeros(2)}, SpecError, "a key of int64 and shape .2., got torch.float32"),
        ({"batch_size": [3], "key": torch.zeros(2).long()}, SpecError, "shape .3., got torch.int64 of .2."),
    ],
)
def test_what_makes_no_streams_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        RowRandom(**arguments)


@pytest.mark.parametrize("high", [0, -1, 2.0, 2**31 + 1])
def test_integers_below_no_bound_are_refused(high):
    with pytest.raises(ConfigError, match=r"randint: expected high from 1 to 2\*\*31, got"):
        RowRandom([2], seed=0).randint(high)
