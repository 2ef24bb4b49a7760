"""Samples of several buffers: numbers by hand, where priorities go, and what is refused."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.data.replay import (
    MixedReplay,
    PrioritizedSampler,
    PrioritizedSliceSampler,
    ReplayBuffer,
    SliceSampler,
    TensorStorage,
)
from torchrl.errors import ConfigError, KeyMissing, SpecError

ORIGIN = ("replay", "buffer")


def make_buffer(start, num=20, sampler=None, **more):
    """A buffer whose items count from ``start`` on."""
    buffer = ReplayBuffer(TensorStorage(100), sampler=sampler, seed=0)
    entries = {"count": torch.arange(start, start + num), **{key: value.expand(num) for key, value in more.items()}}
    buffer.extend(TensorDict(entries, batch_size=[num]))
    return buffer


def make_episodes(start, sampler, num_steps=12):
    """A buffer with one episode that counts from ``start`` on."""
    buffer = ReplayBuffer(TensorStorage(100), sampler=sampler, seed=0)
    is_init = torch.zeros(num_steps, 1, dtype=torch.bool)
    is_init[0] = True
    steps = {"count": torch.arange(start, start + num_steps), "is_init": is_init}
    buffer.extend(TensorDict(steps, batch_size=[num_steps]))
    return buffer


@pytest.mark.parametrize(
    ("proportions", "batch_size", "expected"),
    [
        ([0.75, 0.25], 8, [6, 2]),
        ([3, 1], 8, [6, 2]),  # only ratios count
        ([0.75, 0.25], 10, [8, 2]),  # 7.5 and 2.5: of equal remainders the first
        ([0.7, 0.3], 9, [6, 3]),  # 6.3 and 2.7
        ([1, 1, 1], 10, [4, 3, 3]),
        ([0.1, 0.2, 0.7], 10, [1, 2, 7]),  # exact, whatever floats say
        ([0.1] * 10, 10, [1] * 10),
        ([1], 3, [3]),
    ],
)
def test_the_split_goes_by_largest_remainders(proportions, batch_size, expected):
    mixed = MixedReplay([make_buffer(0) for _ in proportions], proportions)
    assert mixed.split(batch_size) == expected


def test_a_sample_is_one_part_behind_the_other():
    online, shown = make_buffer(0), make_buffer(100, num=5)
    mixed = MixedReplay([online, shown], [0.75, 0.25], batch_size=8)
    sample = mixed.sample()
    assert sample.batch_size == (8,)
    assert sample[ORIGIN].tolist() == [0] * 6 + [1] * 2 and sample[ORIGIN].dtype is torch.int64
    assert (sample["count"][:6] < 20).all() and (sample["count"][6:] >= 100).all()
    assert torch.equal(sample["count"][6:], shown[sample["replay", "index"][6:]]["count"])
    assert ("replay", "weight") not in sample.keys(include_nested=True)
    assert len(mixed) == 25
    assert mixed.sample(4)[ORIGIN].tolist() == [0, 0, 0, 1]


def test_iterating_goes_on():
    mixed = MixedReplay([make_buffer(0), make_buffer(100)], [1, 1], batch_size=2)
    first, second = (sample for sample, _ in zip(mixed, range(2), strict=False))
    assert first[ORIGIN].tolist() == second[ORIGIN].tolist() == [0, 1]


def test_slices_of_one_length_are_mixed_in_whole_slices():
    mixed = MixedReplay([make_episodes(0, SliceSampler(4)), make_episodes(100, SliceSampler(4))], [0.75, 0.25])
    sample = mixed.sample(16)
    assert sample.batch_size == (4, 4)
    assert sample[ORIGIN].tolist() == [[0] * 4] * 3 + [[1] * 4]
    assert (sample["count"].diff(dim=1) == 1).all() and (sample["count"][3] >= 100).all()
    assert mixed.split(12) == [8, 4]  # 2.25 and 0.75 slices
    with pytest.raises(ConfigError, match="multiple of the slice_len of 4"):
        mixed.sample(10)


def test_where_one_sampler_gives_neither_weight_nor_mask_items_count_in_full():
    prioritized = make_buffer(0, sampler=PrioritizedSampler(beta=1.0))
    prioritized.update_priority(torch.tensor([3]), 50.0)
    sample = MixedReplay([prioritized, make_buffer(100)], [1, 1]).sample(8)
    assert sample["replay", "weight"][4:].tolist() == [1.0] * 4
    assert sample["replay", "weight"].dtype is torch.float32

    short = make_episodes(0, SliceSampler(4, min_len=1), num_steps=2)
    sample = MixedReplay([short, make_episodes(100, SliceSampler(4))], [1, 1]).sample(8)
    assert sample["collector", "mask"][0].sum() <= 2 and sample["collector", "mask"][1].all()


def test_each_priority_goes_to_the_buffer_of_its_item():
    buffers = [make_buffer(start, num=4, sampler=PrioritizedSampler(alpha=1.0, eps=0.0)) for start in (0, 100)]
    mixed = MixedReplay(buffers, [1, 1])
    sample = TensorDict(
        {
            "replay": {
                "index": torch.tensor([2, 1, 1]),
                "id": torch.tensor([2, 1, 1]),
                "buffer": torch.tensor([0, 1, 0]),
            }
        },
        batch_size=[3],
    )
    mixed.update_priority(sample, torch.tensor([[5.0], [7.0], [3.0]]))
    assert [buffer.sampler.state_dict()["tree"][:4].tolist() for buffer in buffers] == [[1, 3, 5, 1], [1, 7, 1, 1]]
    sample["priority"] = torch.tensor([0.0, 2.0, 0.0])
    mixed.update_priority(sample)
    assert [buffer.sampler.state_dict()["tree"][:4].tolist() for buffer in buffers] == [[1, 0, 0, 1], [1, 2, 1, 1]]
    mixed.update_priority(sample, 4.0)
    assert [buffer.sampler.state_dict()["tree"][:4].tolist() for buffer in buffers] == [[1, 4, 4, 1], [1, 4, 1, 1]]


def test_priorities_of_slices():
    buffers = [make_episodes(start, PrioritizedSliceSampler(4)) for start in (0, 100)]
    mixed = MixedReplay(buffers, [1, 1])
    sample = mixed.sample(8)
    mixed.update_priority(sample, torch.tensor([1e6, 1e6]))
    again = mixed.sample(80)
    share = (again["count"][:, -1].unsqueeze(1) == sample["count"][:, -1]).any(1).float().mean()
    assert share > 0.9  # the two slices are drawn nearly always now

    half = MixedReplay([buffers[0], make_episodes(200, SliceSampler(4))], [1, 1])
    sample = half.sample(8)
    assert sample["replay", "last"][1].tolist() == [-1] * 4
    half.update_priority(sample[sample[ORIGIN][:, 0] == 0], torch.tensor([2.0]))


def test_priorities_that_have_nowhere_to_go_are_refused_and_nothing_is_set():
    prioritized = make_buffer(0, num=4, sampler=PrioritizedSampler())
    mixed = MixedReplay([prioritized, make_buffer(100)], [1, 1])
    sample, before = mixed.sample(4), prioritized.sampler.state_dict()["tree"].clone()
    with pytest.raises(ConfigError, match="UniformSampler in buffer 1"):
        mixed.update_priority(sample, torch.full((4,), 9.0))
    assert torch.equal(prioritized.sampler.state_dict()["tree"], before)
    mixed.update_priority(sample[sample[ORIGIN] == 0], torch.full((2,), 9.0))
    assert not torch.equal(prioritized.sampler.state_dict()["tree"], before)
    own = sample[sample[ORIGIN] == 0]
    with pytest.raises(SpecError, match="one priority for each of the 2 rows"):
        mixed.update_priority(own, torch.ones(3))
    with pytest.raises(KeyMissing, match='"priority"'):
        mixed.update_priority(own)
    with pytest.raises(KeyMissing, match='"buffer"'):
        mixed.update_priority(prioritized.sample(2), 1.0)
    own[ORIGIN] = torch.tensor([0, 2])
    with pytest.raises(ConfigError, match="buffers from 0 to 1, got 2"):
        mixed.update_priority(own, 1.0)


def test_a_sample_has_what_all_buffers_have_and_says_once_what_it_leaves_out(caplog):
    own, shown = make_buffer(0, log_prob=torch.tensor(0.5), x=torch.tensor(1.0)), make_buffer(100, x=torch.tensor(2.0))
    mixed = MixedReplay([own, shown], [1, 1], batch_size=4)
    for _ in range(3):
        sample = mixed.sample()
        assert set(sample.keys()) == {"count", "x", "replay"} and sample["x"].tolist() == [1.0, 1.0, 2.0, 2.0]
    assert [record.getMessage() for record in caplog.records] == [
        "MixedReplay leaves out what not all buffers have: 'log_prob' in buffers [0] only."
    ]


def test_an_entry_here_and_a_level_there_are_both_left_out(caplog):
    own, shown = make_buffer(0, place=torch.tensor(0.5)), ReplayBuffer(TensorStorage(10))
    shown.extend(TensorDict({"count": torch.arange(4), "place": {"x": torch.zeros(4)}}, batch_size=[4]))
    assert set(MixedReplay([own, shown], [1, 1]).sample(4).keys()) == {"count", "replay"}
    assert "'place' in buffers [0] only; 'place/x' in buffers [1] only" in caplog.text


def test_sums_of_n_steps_beside_single_ones_are_refused():
    own, shown = make_buffer(0), make_buffer(100)
    sums = ReplayBuffer(TensorStorage(10))
    steps = {"count": torch.arange(4), "next": {"gamma": torch.full((4, 1), 0.9)}}
    sums.extend(TensorDict(steps, batch_size=[4]))
    for buffers in ([own, sums], [sums, shown]):
        with pytest.raises(
            SpecError, match=r"n steps in all buffers or in none, got 'next/gamma' in .* MultiStep\(1, gamma\)"
        ):
            MixedReplay(buffers, [1, 1]).sample(4)
    assert ("next", "gamma") in MixedReplay([sums, sums], [1, 1]).sample(4).keys(True)


def test_entries_that_differ_are_named():
    plain, other = make_buffer(0), ReplayBuffer(TensorStorage(10))
    other.extend(TensorDict({"count": torch.zeros(4, 2)}, batch_size=[4]))
    with pytest.raises(SpecError, match=r"in buffer 1 'count' is \[2\] torch.float32 .* instead of \[\] torch.int64"):
        MixedReplay([plain, other], [1, 1]).sample(4)
    unlike = ReplayBuffer(TensorStorage(10))
    unlike.extend(TensorDict({"number": torch.zeros(4)}, batch_size=[4]))
    with pytest.raises(
        SpecError, match=r"entries that all buffers have, got 'count' in buffers \[0\] only; 'number' in"
    ):
        MixedReplay([plain, unlike], [1, 1]).sample(4)


def test_an_empty_buffer_is_named():
    with pytest.raises(ConfigError, match="an empty one") as caught:
        MixedReplay([make_buffer(0), ReplayBuffer(TensorStorage(4))], [1, 1]).sample(4)
    assert caught.value.__notes__ == ["This was buffer 1 of a MixedReplay."]


@pytest.mark.parametrize(
    ("proportions", "batch_size", "message"),
    [
        ([1], 8, "2 proportions"),
        ([1, 0], 8, "positive, finite"),
        ([1, -1], 8, "positive, finite"),
        ([1, float("nan")], 8, "positive, finite"),
        ([1, "x"], 8, "positive, finite"),
        ([1, 1], 0, "batch_size of at least 1"),
        ([1, 1], 2.5, "batch_size of at least 1"),
        ([99, 1], 8, "items of each buffer"),
    ],
)
def test_numbers_that_cannot_be_are_refused_at_once(proportions, batch_size, message):
    with pytest.raises(ConfigError, match=message):
        MixedReplay([make_buffer(0), make_buffer(100)], proportions, batch_size=batch_size)


def test_parts_that_do_not_go_together_are_refused_at_once():
    with pytest.raises(ConfigError, match="at least one buffer"):
        MixedReplay([], [])
    with pytest.raises(ConfigError, match="a ReplayBuffer as buffer 1, got list"):
        MixedReplay([make_buffer(0), []], [1, 1])
    with pytest.raises(ConfigError, match=r"slice_len \[0, 4\]"):
        MixedReplay([make_buffer(0), make_episodes(0, SliceSampler(4))], [1, 1])
    with pytest.raises(ConfigError, match="a batch_size, got none"):
        MixedReplay([make_buffer(0)], [1]).sample()
