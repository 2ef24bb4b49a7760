"""Stretches of time: every possible one and no other, whatever the batches were."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from cases.replay import Player, plain
from torchrl.data.replay import PrioritizedSliceSampler, ReplayBuffer, SliceSampler, TensorStorage
from torchrl.data.replay.slices import PlaceSet
from torchrl.errors import ConfigError

MASK = ("collector", "mask")


def filled(sampler, capacity, batches):
    buffer = ReplayBuffer(TensorStorage(capacity), sampler=sampler, seed=0)
    for batch in batches:
        buffer.extend(batch)
    return buffer


def stretches(sample):
    """Return the beginnings of stretches, ``(row, episode, step)``."""
    return list(zip(*[sample[key].flatten().tolist() for key in ("row", "episode", "observation")], strict=True))


def possible(buffer, length):
    """List by brute force the stretches that are stored whole, by their beginnings."""
    steps = set(stretches(buffer[:]))
    return {
        (row, episode, step)
        for row, episode, step in steps
        if all((row, episode, step + further) in steps for further in range(length))
    }


def require_stretches(sample, mask=None):
    """Hold that consecutive steps of each slice follow each other in one episode."""
    mask = torch.ones(sample.batch_size, dtype=torch.bool) if mask is None else mask
    pairs = mask[:, 1:]
    assert (sample["observation"][:, 1:] == sample["next", "observation"][:, :-1])[pairs].all()
    for key in ("row", "episode"):
        assert (sample[key][:, 1:] == sample[key][:, :-1])[pairs].all()


@pytest.mark.parametrize("traj_ids", [False, True])
@pytest.mark.parametrize("num_steps", [1, 3, 7, 20])
@pytest.mark.parametrize("capacity", [62, 64, 1000])
def test_all_possible_slices_are_drawn_and_no_other(capacity, num_steps, traj_ids):
    player = Player([5, 8, 6], traj_ids=traj_ids)
    buffer = filled(SliceSampler(4), capacity, [])
    for _ in range(60 // num_steps):
        buffer.extend(player.play(num_steps))
    seen = set()
    for _ in range(60):
        sample = buffer.sample(4 * 32)
        assert sample.batch_size == (32, 4)
        require_stretches(sample)
        seen |= set(stretches(sample[:, 0]))
    assert seen == possible(buffer, 4)


def test_slices_are_drawn_alike():
    """Also those whose steps lie at the write head, where some last steps have lost their first."""
    buffer = filled(SliceSampler(3), 50, [Player([9, 4]).play(5) for _ in range(1)])
    player = Player([9, 4])
    for _ in range(12):
        buffer.extend(player.play(5))
    wanted = possible(buffer, 3)
    counts: dict = {}
    for _ in range(100):
        for key in stretches(buffer.sample(3 * 100)[:, 0]):
            counts[key] = counts.get(key, 0) + 1
    assert counts.keys() == wanted
    expected = 10_000 / len(wanted)
    degrees = len(wanted) - 1
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < degrees + 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("capacity", [70, 300])
def test_sources_in_turn_and_batches_of_other_lengths(capacity):
    """Also where the step before the last lies far back and the others near, so that a ring holds them just so."""
    players = [Player([6, 9], traj_ids=True), Player([7], traj_ids=True, first_id=1000)]
    players[1].episodes = [100]
    buffer = filled(SliceSampler(5), capacity, [])
    rng = np.random.default_rng(0)
    for _ in range(60):
        buffer.extend(players[rng.integers(2)].play(int(rng.integers(1, 5))))
    sample = buffer.sample(5 * 4000)
    require_stretches(sample)
    seen = set(stretches(sample[:, 0]))
    assert seen == possible(buffer, 5) and {episode >= 100 for _, episode, _ in seen} == {True, False}


def test_shorter_slices_carry_a_mask():
    player = Player([3, 10])
    buffer = filled(SliceSampler(6, min_len=2), 200, [player.play(10) for _ in range(4)])
    sample = buffer.sample(6 * 300)
    mask = sample[MASK]
    require_stretches(sample, mask)
    lengths = mask.sum(1)
    assert set(lengths.tolist()) == {2, 3, 4, 5, 6}
    assert (mask.long().diff(dim=1) <= 0).all()  # the valid steps are the first
    short = lengths < 6
    assert sample["is_init"][short, 0].all()  # shorter only where an episode begins


def test_slices_across_episodes():
    player = Player([4, 5])
    buffer = filled(SliceSampler(8, across=True), 200, [player.play(6) for _ in range(5)])
    sample = buffer.sample(8 * 100)
    assert (sample["row"] == sample["row"][:, :1]).all()
    follows = sample["observation"][:, 1:] == sample["observation"][:, :-1] + 1
    assert follows.all()  # the player counts on through episodes
    assert sample["is_init"][:, 1:].any()


def test_masked_steps_are_left_out_and_cut_the_slice():
    batch = Player([20, 20]).play(10)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[0, 4] = False
    mask[1, 7:] = False
    batch["collector"] = TensorDict({"mask": mask}, [2, 10])
    buffer = filled(SliceSampler(4), 100, [batch])
    assert len(buffer) == 16
    sample = buffer.sample(4 * 200)
    require_stretches(sample)
    starts = set(zip(sample["row"][:, 0, 0].tolist(), sample["observation"][:, 0, 0].tolist(), strict=True))
    assert starts == {(0, 0), (0, 5), (0, 6), (1, 0), (1, 1), (1, 2), (1, 3)}
    assert MASK not in sample.keys(True)


def test_priorities_of_slices():
    sampler = PrioritizedSliceSampler(4)
    player = Player([9, 9])
    buffer = filled(sampler, 100, [player.play(9)])
    sample = buffer.sample(4 * 64)
    require_stretches(sample)
    last = sample["replay", "index"][:, -1]
    chosen = last[0]
    buffer.update_priority(sample, torch.where(last == chosen, 100.0, 0.0))
    again = buffer.sample(4 * 64)
    require_stretches(again)
    share = (again["replay", "index"][:, -1] == chosen).float().mean()
    assert share > 0.8
    assert again["replay", "weight"].shape == (64, 4) and again["replay", "weight"].max() == 1
    late = buffer.sample(4 * 8)
    for _ in range(8):
        buffer.extend(player.play(9))
    tree = sampler.priorities.shares(np.arange(100)).copy()
    buffer.update_priority(late, torch.full((8,), 1e6))
    assert np.array_equal(sampler.priorities.shares(np.arange(100)), tree)


def test_nothing_long_enough_is_an_error():
    buffer = filled(SliceSampler(5), 100, [Player([4]).play(20)])
    with pytest.raises(ConfigError, match="trajectories with 5 steps in a row, got none.*is_init"):
        buffer.sample(5)
    buffer = filled(SliceSampler(2), 100, [plain(20)])
    with pytest.raises(ConfigError, match="trajectories with 2 steps in a row"):
        buffer.sample(2)
    with pytest.raises(ConfigError, match="a multiple of the slice_len of 2, got 3.*Use 4"):
        buffer.sample(3)


@pytest.mark.parametrize(("arguments", "message"), [((0,), "slice_len of at least 1"), ((4, 5), "min_len from 1 to")])
def test_lengths_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SliceSampler(arguments[0], min_len=arguments[1] if len(arguments) > 1 else None)


def test_a_set_of_places_equals_a_python_set():
    rng = np.random.default_rng(0)
    places, reference = PlaceSet(40), set()
    for _ in range(500):
        some = rng.choice(40, rng.integers(0, 20), replace=False)
        if rng.random() < 0.5:
            places.add(some)
            reference |= set(some.tolist())
        else:
            places.discard(some)
            reference -= set(some.tolist())
        assert len(places) == len(reference) and set(places.members.tolist()) == reference
