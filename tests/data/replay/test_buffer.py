"""The buffer over all storages: what goes in comes out; writers, continuation, threads that work ahead."""

import logging
import pickle
import threading
from functools import partial

import pytest
import torch
from tensordict import TensorDict

from cases.devices import DEVICES
from cases.replay import Player, plain
from fakes import wait_until
from torchrl.data.replay import (
    KeepBest,
    KeepHighestPriority,
    ListStorage,
    MemmapStorage,
    PrioritizedSampler,
    ReplayBuffer,
    SliceSampler,
    StackedFrames,
    TensorStorage,
)
from torchrl.errors import CheckpointError, ConfigError, SpecError, StorageError


@pytest.fixture(params=["list", "tensor", "memmap"])
def make_storage(request, storage_of):
    """Make storages of one kind."""
    return partial(storage_of, request.param)


def wide(num, start=0):
    """Items with every kind of entry: many dtypes and shapes, nested, some too large for a record."""
    base = torch.arange(start, start + num)
    return TensorDict(
        {
            "byte": base.to(torch.uint8).view(num, 1).expand(num, 3).contiguous(),
            "half": base.half(),
            "double": base.double().view(num, 1, 1).expand(num, 2, 5).contiguous(),
            "flag": base.remainder(2).bool().unsqueeze(-1),
            "image": base.to(torch.uint8).view(num, 1, 1).expand(num, 40, 40).contiguous(),
            "complex": torch.complex(base.float(), -base.float()),
            "deep": {"er": {"int": base.int(), "empty": torch.zeros(num, 0)}, "long": base},
        },
        [num],
    )


def equal(one, other):
    keys = set(one.keys(True, True)) & set(other.keys(True, True))
    assert {key for key in one.keys(True, True) if "replay" not in key} <= keys
    return all(torch.equal(one.get(key), other.get(key)) and one.get(key).dtype is other.get(key).dtype for key in keys)


def test_what_goes_in_comes_out(make_storage):
    buffer = ReplayBuffer(make_storage(10), seed=0)
    assert len(buffer) == 0
    assert buffer.extend(wide(4)).tolist() == [0, 1, 2, 3]
    assert buffer.add(wide(1, 4)[0]) == 4
    assert len(buffer) == 5 and equal(buffer[:], wide(5))
    sample = buffer.sample(30)
    index = sample["replay", "index"]
    assert equal(sample.exclude("replay"), wide(5)[index]) and all(
        value.is_contiguous() for value in sample.values(True, True)
    )
    assert buffer.extend(wide(7, 5)).tolist() == [5, 6, 7, 8, 9, 0, 1]  # over the edge of the ring
    assert equal(buffer[:], torch.cat([wide(2, 10), wide(8, 2)])) and len(buffer) == 10
    assert equal(buffer[3], wide(1, 3)[0]) and equal(buffer[-1], wide(1, 9)[0])
    assert equal(buffer[[9, 2]], wide(10)[[9, 2]]) and equal(buffer[torch.tensor([4])], wide(1, 4))
    assert buffer[2:8:3]["deep", "long"].tolist() == [2, 5]
    with pytest.raises(IndexError):
        buffer[10]


def test_batches_of_time_become_steps(make_storage):
    batch = Player([3, 4]).play(5)
    buffer = ReplayBuffer(make_storage(20))
    buffer.extend(batch)
    items = buffer[:]
    assert items["row"].flatten().tolist() == [0, 1] * 5
    assert items["observation"].flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert torch.equal(items["next", "observation"], items["observation"] + 1)
    buffer.extend(batch[:, 0].unsqueeze(-1)), buffer.extend(batch[:, :1].unsqueeze(0))
    assert len(buffer) == 14


def test_masked_steps_are_left_out(make_storage):
    batch = Player([9, 9]).play(3)
    batch["observation"][1, 1] = torch.nan
    batch["collector"] = TensorDict({"mask": torch.tensor([[True, True, False], [True, False, True]])}, [2, 3])
    buffer = ReplayBuffer(make_storage(20))
    assert len(buffer.extend(batch)) == 4
    assert buffer[:]["observation"].flatten().tolist() == [0, 1, 0, 2]
    assert ("collector", "mask") not in buffer[:].keys(True)
    batch["collector", "mask"].fill_(False)
    assert len(buffer.extend(batch)) == 0 and len(buffer) == 4


def test_samples_can_be_added_to_another_buffer(make_storage):
    one, other = ReplayBuffer(make_storage(8), seed=0), ReplayBuffer(make_storage(8), seed=0)
    one.extend(plain(8))
    sample = one.sample(5)
    other.extend(sample)
    assert equal(other[:], sample.exclude("replay"))


def test_empty_throws_everything_away(make_storage):
    buffer = ReplayBuffer(make_storage(4), sampler=PrioritizedSampler(), seed=0)
    buffer.extend(plain(3))
    late = buffer.sample(5)
    buffer.empty()
    assert len(buffer) == 0
    with pytest.raises(ConfigError, match="expected a buffer with items, got an empty one"):
        buffer.sample(1)
    assert buffer.extend(plain(2, 10)).tolist() == [0, 1]
    buffer.update_priority(late, torch.full((5,), 1e9))
    assert set(buffer.sample(50)["x"].tolist()) == {10, 11}
    buffer.extend(plain(4, 20))
    assert buffer[:]["x"].tolist() == [22, 23, 20, 21]


def test_only_the_best_are_kept(make_storage):
    if isinstance(storage := make_storage(3), MemmapStorage):
        with pytest.raises(ConfigError, match="a RingWriter with a MemmapStorage, got KeepBest"):
            ReplayBuffer(storage, writer=KeepBest("x"))
        return
    buffer = ReplayBuffer(storage, writer=KeepBest("x"), seed=0)

    def scored(*scores):
        return TensorDict({"x": torch.tensor(scores, dtype=torch.float32)}, [len(scores)])

    assert buffer.extend(scored(5, 1)).tolist() == [0, 1]
    assert buffer.extend(scored(3, 0, 4)).tolist() == [2, -1, 1]  # 4 takes the place of 1
    assert buffer[:]["x"].tolist() == [5, 4, 3]
    assert buffer.extend(scored(6, 7)).tolist() == [2, 1]
    assert sorted(buffer[:]["x"].tolist()) == [5, 6, 7]
    assert buffer.extend(scored(1)).tolist() == [-1] and len(buffer) == 3
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(500, generator=generator)
    for part in values.split(20):
        buffer.extend(scored(*part.tolist()))
    assert sorted(buffer[:]["x"].tolist()) == [5, 6, 7]
    assert set(buffer.sample(40)["x"].tolist()) == {5, 6, 7}


def test_the_lowest_priority_makes_way():
    buffer = ReplayBuffer(TensorStorage(4), writer=KeepHighestPriority(), sampler=PrioritizedSampler(), seed=0)
    buffer.extend(plain(4))
    buffer.update_priority(torch.arange(4), torch.tensor([0.5, 3.0, 0.1, 2.0]))
    assert buffer.extend(plain(2, 10)).tolist() == [2, 0]
    assert buffer[:]["x"].tolist() == [11, 1, 10, 3]
    buffer.update_priority(torch.tensor([0, 1]), torch.tensor([9.0, 0.0]))
    assert buffer.extend(plain(1, 20)).tolist() == [1]


def test_a_memmap_is_opened_again_and_shared(tmp_path):
    buffer = ReplayBuffer(MemmapStorage(10, tmp_path / "a"), seed=0)
    with pytest.raises(StorageError, match="memory is made, to hand it to another process, got an empty one"):
        pickle.dumps(buffer)
    buffer.extend(plain(7))
    again = ReplayBuffer(MemmapStorage.open(tmp_path / "a"), sampler=PrioritizedSampler(), seed=0)
    assert equal(again[:], plain(7))
    shared = pickle.loads(pickle.dumps(buffer))
    shared.extend(plain(6, 7))
    assert len(buffer) == len(again) == 10 and equal(buffer[:], again[:])
    assert set(again.sample(200)["x"].tolist()) == set(range(3, 13))
    with pytest.raises(SpecError, match="'x' is missing"):
        again.extend(TensorDict({"pair": torch.zeros(1, 2)}, [1]))
    with pytest.raises(ConfigError, match="memory can be shared.*got TensorStorage.*MemmapStorage"):
        pickle.dumps(ReplayBuffer(TensorStorage(3)))
    for one in (buffer, again, shared):
        one.close()


def test_a_buffer_that_was_shared_before_the_first_item_sees_what_others_add(tmp_path):
    buffer = ReplayBuffer(MemmapStorage(10, tmp_path / "a"), seed=0)
    buffer.extend(plain(1))
    buffer.empty()
    other = ReplayBuffer(MemmapStorage.open(tmp_path / "a"), seed=0)
    other.extend(plain(3, 5))
    assert buffer[:]["x"].tolist() == [5, 6, 7] and set(buffer.sample(20)["x"].tolist()) == {5, 6, 7}
    buffer.close(), other.close()


def test_the_first_item_of_a_second_buffer_goes_behind_those_of_the_first(tmp_path):
    first, second = (ReplayBuffer(MemmapStorage(10, tmp_path / "replay"), seed=0) for _ in range(2))
    first.extend(plain(4))
    second.extend(plain(3, 4))
    assert len(first) == len(second) == 7
    assert first[:]["x"].tolist() == second[:]["x"].tolist() == list(range(7))


def test_prefetch_makes_samples_while_the_caller_works():
    threads = []

    def noting(sample):
        threads.append(threading.current_thread())
        return sample

    buffer = ReplayBuffer(TensorStorage(10), batch_size=4, prefetch=2, transform=noting, seed=0)
    buffer.extend(plain(10))
    buffer.sample()
    wait_until(lambda: len(threads) >= 1 + 2)  # the caller works, meanwhile two samples are made
    assert threading.main_thread() not in threads
    buffer.close()
    buffer.close()


def test_what_goes_wrong_ahead_is_raised_by_the_sample():
    def broken(sample):
        raise ZeroDivisionError("planted")

    buffer = ReplayBuffer(TensorStorage(4), batch_size=2, prefetch=1, transform=broken, seed=0)
    buffer.extend(plain(4))
    with pytest.raises(ZeroDivisionError, match="planted"):
        buffer.sample()
    buffer.close()


def test_another_batch_size_drops_what_was_made_ahead():
    buffer = ReplayBuffer(TensorStorage(10), batch_size=4, prefetch=2, seed=0)
    buffer.extend(plain(10))
    assert [len(buffer.sample(size)) for size in (4, 3, 4, 4)] == [4, 3, 4, 4]
    buffer.close()


@pytest.mark.parametrize("device", DEVICES)
def test_memory_on_a_device(device):
    buffer = ReplayBuffer(TensorStorage(8, device=device), sampler=PrioritizedSampler(), seed=0)
    buffer.extend(wide(6)), buffer.extend(wide(6, 6))
    sample = buffer.sample(5)
    assert sample["image"].device.type == device
    assert equal(sample.cpu().exclude("replay"), wide(12)[sample["replay", "id"].cpu()])
    buffer.update_priority(sample, torch.ones(5, device=device))


def test_the_size_is_said_ahead(caplog):
    caplog.set_level(logging.INFO, "torchrl.data.replay")
    ReplayBuffer(TensorStorage(1000)).extend(TensorDict({"x": torch.zeros(2, 125)}, [2]))
    assert "TensorStorage: 0.00 GB for 1000 items of 500 bytes" in caplog.text


def test_parts_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"expected a Storage, got 100.*TensorStorage\(capacity\)"):
        ReplayBuffer(100)
    with pytest.raises(ConfigError, match="a RingWriter with a SliceSampler, got KeepBest"):
        ReplayBuffer(TensorStorage(4), sampler=SliceSampler(2), writer=KeepBest("x"))
    for arguments, message in (({"batch_size": 0}, "batch_size of at least 1"), ({"prefetch": -1}, "prefetch of 0")):
        with pytest.raises(ConfigError, match=message):
            ReplayBuffer(TensorStorage(4), **arguments)
    for capacity in (0, True, 2.5):
        with pytest.raises(ConfigError, match="a capacity of at least 1"):
            TensorStorage(capacity)
    buffer = ReplayBuffer(TensorStorage(4))
    buffer.extend(plain(2))
    with pytest.raises(ConfigError, match="sample: expected a batch_size, got none"):
        buffer.sample()
    assert "ReplayBuffer(TensorStorage(4), UniformSampler, RingWriter, len=2)" in repr(buffer)


def test_states_of_other_buffers_are_refused():
    buffer = ReplayBuffer(TensorStorage(4), seed=0)
    buffer.extend(plain(3))
    framed = TensorStorage(4, frames=StackedFrames("x", num_frames=1, dim=-1))
    others = [
        ReplayBuffer(TensorStorage(5)),
        ReplayBuffer(ListStorage(4)),
        ReplayBuffer(framed),
        ReplayBuffer(TensorStorage(4), sampler=PrioritizedSampler()),
        ReplayBuffer(TensorStorage(4), writer=KeepBest("x")),
    ]
    for other in others:
        with pytest.raises(CheckpointError, match="expected a save of .*got one of"):
            other.load_state_dict(buffer.state_dict())
        assert len(other) == 0


def test_a_save_holds_what_there_is_and_no_more(make_storage, tmp_path):
    buffer = ReplayBuffer(make_storage(100_000), seed=0)
    buffer.extend(plain(10))
    buffer.save(tmp_path / "few")
    assert (tmp_path / "few" / "replay.pt").stat().st_size < 20_000
    state = buffer.state_dict()
    buffer.extend(plain(10, start=50))
    other = ReplayBuffer(make_storage(100_000))
    other.load_state_dict(state)
    assert len(other) == 10 and other[:]["x"].tolist() == list(range(10)), "a state is a copy"


def test_a_saved_key_with_a_slash_keeps_its_name(make_storage, tmp_path):
    buffer = ReplayBuffer(make_storage(10))
    buffer.extend(TensorDict({"camera/left": torch.arange(4), "goal": {"x/y": torch.arange(4)}}, [4]))
    buffer.save(tmp_path / "save")
    other = ReplayBuffer(make_storage(10))
    other.load(tmp_path / "save")
    assert other[2]["camera/left"] == 2 and other[2]["goal", "x/y"] == 2


def test_a_list_reads_the_saves_of_older_versions():
    storage = ListStorage(4)
    storage.load({"x": torch.arange(3), "next/x": torch.arange(1, 4)})
    assert list(storage._items[1]) == [("x",), ("next", "x")]


def test_folders_and_states_of_older_versions_go_on(tmp_path):
    """Their ledger and lanes had a column more, ``straight``."""
    player, folder, none = Player([9], traj_ids=True), tmp_path / "items", torch.zeros(1, dtype=torch.int32)
    buffer = ReplayBuffer(MemmapStorage(10, folder), sampler=SliceSampler(4), seed=0)
    buffer.extend(player.play(3))
    (folder / "straight.memmap").write_bytes(bytes(40))
    state = buffer.state_dict()
    state["ledger"]["straight"] = none.expand(3)
    state["lanes"] = [{**ends, "gap": none, "straight": none} for ends in state["lanes"]]
    reopened = ReplayBuffer(MemmapStorage.open(folder), sampler=SliceSampler(2), seed=0)
    loaded = ReplayBuffer(TensorStorage(10), sampler=SliceSampler(4), seed=0)
    loaded.load_state_dict(state)
    assert reopened.sample(2)["observation"].diff(dim=1).tolist() == [[[1.0]]]
    loaded.extend(player.play(1))
    assert loaded.sample(4)["observation"].flatten().tolist() == [0, 1, 2, 3]
    buffer.close(), reopened.close()
