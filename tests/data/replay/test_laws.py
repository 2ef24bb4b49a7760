"""What holds for every sampler over every storage, whatever is done to the buffer."""

import random

import pytest
import torch

from cases.replay import Player
from torchrl.data.replay import (
    PrioritizedSampler,
    PrioritizedSliceSampler,
    ReplayBuffer,
    SamplerWithoutReplacement,
    SliceSampler,
    UniformSampler,
)
from torchrl.errors import ConfigError

SAMPLERS = {
    "UniformSampler": UniformSampler,
    "SamplerWithoutReplacement": SamplerWithoutReplacement,
    "PrioritizedSampler": lambda: PrioritizedSampler(beta_steps=10),
    "SliceSampler": lambda: SliceSampler(3),
    "SliceSampler,min_len": lambda: SliceSampler(3, min_len=1),
    "SliceSampler,across": lambda: SliceSampler(3, across=True),
    "PrioritizedSliceSampler": lambda: PrioritizedSliceSampler(3, min_len=2),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)
every_storage = pytest.mark.parametrize("kind", ["list", "tensor", "frames", "memmap"])


@pytest.fixture
def make(storage_of, keep):
    """Make buffers, which are closed when the test ends."""

    def make(sampler, kind, capacity, **options):
        return keep(ReplayBuffer(storage_of(kind, capacity), sampler=SAMPLERS[sampler](), **options))

    return make


def has_priorities(sampler):
    return sampler.startswith("Prioritized")


def facts_of(batch, order):
    """List what identifies each step, in the order in which a buffer lays steps out."""
    columns = [batch[key].squeeze(-1) for key in ("row", "episode", "observation", ("next", "observation"))]
    if order == "time":
        columns = [column.T for column in columns]
    return list(zip(*[column.reshape(-1).tolist() for column in columns], strict=True))


class Truth:
    """What a buffer should hold: every item that was written, by its number, and which numbers are live."""

    def __init__(self, capacity):
        self.capacity, self.items, self.live = capacity, {}, []
        self.num = self.claimed = 0

    def extend(self, batch):
        for fact in facts_of(batch, "time"):
            self.items[self.num] = fact
            self.live.append(self.num)
            self.num += 1
        self.claimed = max(self.claimed, self.num)
        self.live = [number for number in self.live if number >= self.claimed - self.capacity]

    def lose(self, num):
        """A write of so many broke off: what they would have replaced is gone."""
        self.claimed = max(self.claimed, self.num + num)
        self.live = [number for number in self.live if number >= self.claimed - self.capacity]

    def empty(self):
        self.live, self.num = [], self.claimed

    def require(self, sample, across):
        ids = sample["replay", "id"]
        mask = sample.get(("collector", "mask"), torch.ones(ids.shape, dtype=torch.bool))
        assert set(ids[mask].tolist()) <= set(self.live), "an item that is not live was drawn"
        flat = sample.reshape(-1)[mask.reshape(-1)]
        assert facts_of(flat, "") == [self.items[number] for number in flat["replay", "id"].tolist()]
        if ids.ndim == 2:
            for row, counts in zip(sample, mask, strict=True):
                steps = facts_of(row[counts], "")
                for (row_of, episode, now, after), later in zip(steps, steps[1:], strict=False):
                    assert later[0] == row_of and later[2] == after == now + 1
                    assert later[1] == episode or across


@pytest.mark.parametrize("prefetch", [0, 2])
@every_storage
@every_sampler
def test_only_live_items_are_drawn_as_they_were_written(sampler, kind, prefetch, make):
    """Over writes of all sizes, some of which break off, priorities, and throwing everything away."""
    chance, capacity = random.Random(3), 41
    player, truth = Player([5, 8], traj_ids=True), Truth(capacity)
    buffer = make(sampler, kind, capacity, prefetch=prefetch, seed=0)
    write, num_samples = buffer.storage.write, 0

    def broken(places, values):
        half = places[: len(places) // 2]
        write(half, {key: value[0, :1].expand(len(half), *value.shape[2:]) for key, value in values.items()})
        raise RuntimeError("in the middle of it")

    for turn in range(60):
        batch = player.play(chance.randint(1, 12))
        if turn > 2 and chance.random() < 0.15:
            buffer.storage.write = broken
            with pytest.raises(RuntimeError, match="in the middle of it"):
                buffer.extend(batch)
            buffer.storage.write = write
            truth.lose(batch.numel())
        elif chance.random() < 0.05:
            buffer.empty()
            truth.empty()
        else:
            buffer.extend(batch)
            truth.extend(batch)
        buffer._ahead.wait()
        buffer._ahead.clear()  # what was made before may hold what was live then
        assert len(buffer) == len(truth.live)
        if len(buffer):
            items = buffer.storage.read(buffer.storage.ledger.live_places)
            assert facts_of(items, "") == [truth.items[number] for number in truth.live]
        try:
            sample = buffer.sample(3)
        except ConfigError:
            continue
        num_samples += 1
        truth.require(sample, across="across" in sampler)
        if has_priorities(sampler):
            buffer.update_priority(sample, torch.rand(len(sample)))
    assert num_samples > 30


@every_storage
@every_sampler
def test_the_same_seed_draws_the_same(sampler, kind, make):
    one, other, different = (make(sampler, kind, 60, batch_size=12, seed=seed) for seed in (1, 1, 2))
    batch = Player([5, 8]).play(25)
    samples = []
    for buffer in (one, other, different):
        buffer.extend(batch)
        samples.append([buffer.sample()["replay", "id"].tolist() for _ in range(5)])
    assert samples[0] == samples[1] != samples[2]


@every_storage
@every_sampler
def test_a_sample_is_the_callers_own(sampler, kind, make):
    buffer = make(sampler, kind, 60, batch_size=12, seed=1)
    buffer.extend(Player([5, 8]).play(25))
    before = buffer[:].clone()
    sample = buffer.sample()
    for value in sample.exclude("replay").values(True, True):
        value.zero_()
    after = buffer[:]
    assert all(torch.equal(before[key], after[key]) for key in before.keys(True, True))


@pytest.mark.parametrize("prefetch", [0, 2])
@every_storage
@every_sampler
def test_a_state_goes_on_as_if_nothing_had_been(sampler, kind, prefetch, make, tmp_path):
    """Also through a file: samples, priorities, rounds, and which step follows which."""

    def made():
        return make(sampler, kind, 70, batch_size=12, prefetch=prefetch, seed=1)

    def go_on(buffer):
        samples = []
        for _ in range(4):
            samples.append(buffer.sample())
            if has_priorities(sampler):
                buffer.update_priority(samples[-1], torch.arange(1.0, len(samples[-1]) + 1))
        return samples

    player, buffer = Player([5, 8]), made()
    for _ in range(4):
        buffer.extend(player.play(9))
    buffer.save_in_pieces(tmp_path / "earlier")
    buffer.extend(player.play(9))
    go_on(buffer)
    buffer.save(tmp_path / "whole")
    buffer.save_in_pieces(tmp_path / "pieces", since=tmp_path / "earlier")
    others = [made(), made()]
    for other, name in zip(others, ("whole", "pieces"), strict=True):
        other.load(tmp_path / name)
        assert len(other) == len(buffer) == 70
    later = player.play(9)
    for one in (buffer, *others):
        one._ahead.wait()  # what is overwritten before it is read would be drawn anew
        one.extend(later)
    for ours, *theirs in zip(go_on(buffer), *map(go_on, others), strict=True):
        for key in ours.keys(True, True):
            assert all(torch.equal(ours[key], one[key]) for one in theirs), key
