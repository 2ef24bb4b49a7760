"""Which items are drawn: counts, rounds, priorities against their formula."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from cases.replay import plain
from torchrl.data.replay import (
    Draw,
    PrioritizedSampler,
    ReplayBuffer,
    Sampler,
    SamplerWithoutReplacement,
    TensorStorage,
    UniformSampler,
)
from torchrl.errors import ConfigError


def made(sampler, num, capacity=None, **options):
    buffer = ReplayBuffer(TensorStorage(capacity or num), sampler=sampler, seed=0, **options)
    buffer.extend(plain(num))
    return buffer


def chi_square(counts, shares):
    counts, expected = counts[shares > 0], counts.sum() * shares[shares > 0]
    return float(((counts - expected) ** 2 / expected).sum())


def drawn(buffer, num_draws, size):
    return np.concatenate([buffer.sample(size)["replay", "index"].numpy() for _ in range(num_draws)])


def test_uniform_draws_are_uniform():
    counts = np.bincount(drawn(made(UniformSampler(), 100), 100, 10_000), minlength=100)
    assert chi_square(counts, np.full(100, 0.01)) < 149  # 99 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_million_prioritized_draws_follow_the_priorities(alpha):
    buffer = made(PrioritizedSampler(alpha=alpha, eps=0.0), 1000)
    priority = torch.rand(1000, dtype=torch.float64) * torch.arange(1000).remainder(7).ne(3)
    buffer.update_priority(torch.arange(1000), priority)
    shares = np.where(priority.numpy() > 0, priority.numpy() ** alpha, 0.0 if alpha else 1.0)
    counts = np.bincount(drawn(buffer, 100, 10_000), minlength=1000)
    assert counts.sum() == 1_000_000 and counts[shares == 0].sum() == 0
    degrees = int((shares > 0).sum()) - 1
    assert chi_square(counts, shares / shares.sum()) < degrees + 4 * (2 * degrees) ** 0.5


def test_weights_are_those_of_the_formula():
    priority = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    shares = (priority + 0.25) ** 0.7 / ((priority + 0.25) ** 0.7).sum()
    for normalize in ("batch", "buffer"):
        buffer = made(PrioritizedSampler(alpha=0.7, beta=0.4, eps=0.25, normalize=normalize), 4)
        buffer.update_priority(torch.arange(4), priority)
        sample = buffer.sample(3)
        index, weight = sample["replay", "index"], sample["replay", "weight"]
        weights = (4 * shares) ** -0.4
        largest = weights.max() if normalize == "buffer" else weights[index].max()
        torch.testing.assert_close(weight.double(), weights[index] / largest, rtol=1e-6, atol=0)


def test_beta_rises_to_one():
    sampler = PrioritizedSampler(beta=0.4, beta_steps=4)
    buffer = made(sampler, 8)
    betas = []
    for _ in range(6):
        betas.append(sampler.beta)
        buffer.sample(2)
    assert betas == pytest.approx([0.4, 0.55, 0.7, 0.85, 1.0, 1.0])
    assert PrioritizedSampler(beta=0.3).beta == 0.3


def test_new_items_have_the_highest_priority_there_was():
    sampler = PrioritizedSampler(alpha=1.0, eps=0.0)
    buffer = made(sampler, 3, capacity=4)
    assert sampler.shares(np.arange(4)).tolist() == [1, 1, 1, 0]
    buffer.update_priority(torch.tensor([0, 1]), torch.tensor([5.0, 0.5]))
    buffer.extend(plain(2))
    assert sampler.shares(np.arange(4)).tolist() == [5, 0.5, 1, 5]  # the second new one took the place of item 0


def test_late_priorities_do_not_touch_what_came_after():
    sampler = PrioritizedSampler(alpha=1.0, eps=0.0)
    buffer = made(sampler, 4)
    sample = buffer.sample(64)
    buffer.extend(plain(2))
    buffer.update_priority(sample, torch.full((64,), 9.0))
    index = sample["replay", "index"]
    expected = [1.0, 1.0] + [9.0 if (index == place).any() else 1.0 for place in (2, 3)]
    assert sampler.shares(np.arange(4)).tolist() == expected and 9.0 in expected


def test_one_item_and_zero_priorities():
    buffer = made(PrioritizedSampler(eps=0.0), 1, capacity=5)
    assert buffer.sample(3)["replay", "index"].tolist() == [0, 0, 0]
    assert buffer.sample(3)["replay", "weight"].tolist() == [1, 1, 1]
    buffer.update_priority(torch.tensor([0]), 0.0)
    with pytest.raises(ConfigError, match="expected items with a priority above 0, got none.*eps=0"):
        buffer.sample(3)
    buffer = made(PrioritizedSampler(eps=1e-6), 3)
    buffer.update_priority(torch.arange(3), 0.0)
    assert set(drawn(buffer, 1, 200)) == {0, 1, 2}


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_round_shows_every_item_once(prefetch):
    buffer = made(SamplerWithoutReplacement(), 10, batch_size=4, prefetch=prefetch)
    rounds = [torch.cat([sample["x"] for sample in buffer]) for _ in range(3)]
    for order in rounds:
        assert sorted(order.tolist()) == list(range(10))
    assert not torch.equal(rounds[0], rounds[1])
    buffer.sample()  # a round that is broken off
    assert [len(sample) for sample in buffer] == [4, 4, 2]
    buffer.close()
    buffer = made(SamplerWithoutReplacement(drop_last=True), 10, batch_size=4, prefetch=prefetch)
    assert [len(sample) for sample in buffer] == [len(sample) for sample in buffer] == [4, 4]
    buffer.close()


def test_a_round_leaves_out_what_was_overwritten():
    buffer = made(SamplerWithoutReplacement(), 6, batch_size=2)
    first = buffer.sample()["x"].tolist()
    buffer.extend(plain(3, start=100))  # in the places of 0, 1 and 2
    rest = buffer.sample(6)["x"].tolist()
    assert sorted(rest) == sorted({3.0, 4.0, 5.0} - set(first))
    assert sorted(buffer.sample(6)["x"].tolist()) == [3, 4, 5, 100, 101, 102]


def test_a_round_goes_on_over_what_was_overwritten():
    """Whatever is gone, wherever it stood in the order, the rest comes once, and no batch is smaller than need be."""
    for seed in range(20):
        buffer = made(SamplerWithoutReplacement(), 40, batch_size=7)
        first = buffer.sample()["x"].tolist()
        buffer.extend(plain(25, start=1000))
        rest = [buffer.sample() for _ in range(100) if buffer.sampler.has_more(7, buffer.storage.ledger)]
        expected = sorted({float(x) for x in range(25, 40)} - set(first))
        assert sorted(torch.cat([sample["x"] for sample in rest]).tolist()) == expected
        assert all(len(sample) == 7 for sample in rest[:-1]), seed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -0.1}, "alpha from 0 on, got -0.1"),
        ({"beta": 1.5}, "beta from 0 to 1, got 1.5"),
        ({"eps": -1.0}, "eps from 0 on"),
        ({"beta_steps": 0}, "beta_steps of at least 1"),
        ({"normalize": "max"}, "normalize to be one of"),
    ],
)
def test_numbers_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        PrioritizedSampler(**arguments)


def test_samplers_without_priorities_refuse_them():
    buffer = made(UniformSampler(), 4)
    with pytest.raises(ConfigError, match="a sampler with priorities, got UniformSampler"):
        buffer.update_priority(torch.tensor([0]), 1.0)


def test_priorities_come_from_the_sample_itself():
    sampler = PrioritizedSampler(alpha=1.0, eps=0.0)
    buffer = made(sampler, 4)
    sample = buffer.sample(16)
    sample["priority"] = sample["x"].unsqueeze(-1) + 2
    buffer.update_priority(sample)
    seen = sample["replay", "index"].unique().tolist()
    assert [sampler.shares(np.array([place])).item() for place in seen] == [place + 2.0 for place in seen]
    assert isinstance(sample["replay"], TensorDict)


class Wrong(Sampler):
    def __init__(self, drawn):
        self.drawn = drawn

    def draw(self, num, ledger, generator):
        return self.drawn


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (np.arange(3), r"Wrong.draw: expected a Draw of places, .*got ndarray of int64. Write return Draw\(places\)"),
        (
            Draw(torch.arange(3)),
            "Wrong.draw: expected a Draw of places, a numpy array of int64, got Draw of torch.int64",
        ),
        (Draw([0, 1]), "got Draw of list"),
        (Draw(np.ones(2)), "got Draw of float64"),
        (Draw(np.array([1, 7])), "Wrong.draw: expected places that hold items, got place 7, which is empty"),
    ],
)
def test_a_sampler_that_draws_something_else_is_told_what_to_write(drawn, message):
    with pytest.raises(ConfigError, match=message):
        made(Wrong(drawn), num=4, capacity=8).sample(2)
