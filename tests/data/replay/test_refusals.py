"""What a buffer refuses: a clear error, and everything that was there before is as it was."""

import errno
import fcntl
import os

import pytest
import torch
from tensordict import TensorDict

from cases.replay import Player, plain
from torchrl.data.replay import (
    ListStorage,
    MemmapStorage,
    PrioritizedSampler,
    PrioritizedSliceSampler,
    ReplayBuffer,
    Sampler,
    SamplerWithoutReplacement,
    SliceSampler,
    Storage,
    TensorStorage,
    UniformSampler,
    Writer,
)
from torchrl.errors import CheckpointError, ConfigError, KeyMissing, NonFiniteError, SpecError, StorageError

SAMPLERS = [UniformSampler, SamplerWithoutReplacement, PrioritizedSampler]


@pytest.fixture(params=["list", "tensor", "memmap"])
def storage(request, storage_of):
    return storage_of(request.param, 8)


def capture(buffer):
    """Everything of a buffer, to compare."""
    return str(buffer.state_dict()), buffer[:]["x"].tolist() if len(buffer) else []


def require_refused(buffer, error, message, call):
    before = capture(buffer)
    with pytest.raises(error, match=message):
        call()
    assert capture(buffer) == before


# ---- items -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items.set("y", torch.zeros(2)), "'y' is new"),
        (lambda items: items.exclude("x"), "'x' is missing"),
        (lambda items: items.set("x", torch.zeros(2, 3)), r"'x' is \[3\] torch.float32 instead of \[\] torch.float32"),
        (
            lambda items: items.set("x", torch.zeros(2).double()),
            "'x' is .* torch.float64 instead of .* torch.float32",
        ),
        (lambda items: items.set(("n", "z"), torch.zeros(2)), "'n/z' is new"),
    ],
    ids=["new", "missing", "shape", "dtype", "nested"],
)
def test_items_of_another_form(storage, change, message):
    buffer = ReplayBuffer(storage, seed=0)
    buffer.extend(plain(3))
    expected = "Storage: expected items with the keys, shapes and dtypes of the first, got .*"
    require_refused(buffer, SpecError, expected + message, lambda: buffer.extend(change(plain(2))))
    buffer.extend(plain(2))
    assert len(buffer) == 5


def test_what_is_no_batch(storage):
    buffer = ReplayBuffer(storage, seed=0)
    buffer.extend(plain(3))
    for batch, error in (
        ({"x": torch.zeros(2)}, "got dict"),
        (TensorDict({"x": torch.zeros(())}), r"got \[\]|size \[\]"),
    ):
        require_refused(buffer, SpecError, error, lambda batch=batch: buffer.extend(batch))
    require_refused(buffer, SpecError, "add: expected a TensorDict", lambda: buffer.add(3))
    require_refused(buffer, SpecError, "add: expected one item", lambda: buffer.add(plain(2)))
    text = plain(2)
    text.set_non_tensor("name", "a")
    require_refused(buffer, SpecError, "key 'name': expected tensors", lambda: buffer.extend(text))
    require_refused(buffer, SpecError, "at most 8 items, the capacity, got 9", lambda: buffer.extend(plain(9)))
    assert buffer.extend(plain(0)).tolist() == [] and len(buffer) == 3


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [*SAMPLERS, lambda: SliceSampler(2), lambda: PrioritizedSliceSampler(2)])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_empty_buffer(sampler, prefetch):
    buffer = ReplayBuffer(TensorStorage(8), sampler=sampler(), prefetch=prefetch, seed=0)
    for _ in range(2):
        with pytest.raises(ConfigError, match="sample: expected a buffer with items, got an empty one"):
            buffer.sample(2)
        buffer.extend(Player([5]).play(4))
        assert buffer.sample(2)["replay", "id"].numel() == 2
        buffer.empty()
    with pytest.raises(IndexError, match="empty"):
        buffer[0]
    buffer.close()


def test_places_that_are_not_there(storage):
    buffer = ReplayBuffer(storage, seed=0)
    buffer.extend(plain(3))
    for index in (3, -4, [0, 3], torch.tensor([5])):
        with pytest.raises(IndexError):
            buffer[index]
    assert buffer[-1]["x"] == buffer[2]["x"] == 2


def test_more_than_there_is_without_replacement(storage):
    buffer = ReplayBuffer(storage, sampler=SamplerWithoutReplacement(), seed=0)
    buffer.extend(plain(3))
    message = "sample without replacement: expected at most the 3 items there are, got 4"
    require_refused(buffer, ConfigError, message, lambda: buffer.sample(4))
    assert sorted(buffer.sample(3)["x"].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_numbers_of_items_that_are_none(batch_size):
    buffer = ReplayBuffer(TensorStorage(8), seed=0)
    buffer.extend(plain(3))
    require_refused(buffer, ConfigError, "a batch_size of at least 1", lambda: buffer.sample(batch_size))


# ---- priorities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priority", "error", "message"),
    [
        ([1.0, -0.5, 1.0], SpecError, "expected priorities of 0 or more, got -0.5.*absolute TD error"),
        ([1.0, float("nan"), 1.0], NonFiniteError, r"expected finite priorities, got \[nan\]"),
        ([1.0, 1.0, float("inf")], NonFiniteError, r"expected finite priorities, got \[inf\]"),
        ([1.0, 1.0], SpecError, r"one priority for each of the 3 items, got shape \[2\]"),
        (-1.0, SpecError, "expected priorities of 0 or more, got -1"),
        (None, KeyMissing, 'priorities, as an argument or under the key "priority"'),
    ],
    ids=["negative", "nan", "infinite", "number", "one", "none"],
)
@pytest.mark.parametrize("sliced", [False, True])
def test_priorities_that_are_none(sliced, priority, error, message):
    sampler = PrioritizedSliceSampler(2) if sliced else PrioritizedSampler()
    buffer = ReplayBuffer(TensorStorage(8), sampler=sampler, seed=0)
    buffer.extend(Player([9]).play(6).set("x", torch.zeros(1, 6)))
    sample = buffer.sample(6 if sliced else 3)
    value = torch.tensor(priority) if isinstance(priority, list) else priority
    require_refused(buffer, error, message, lambda: buffer.update_priority(sample, value))


def test_priorities_of_no_items():
    buffer = ReplayBuffer(TensorStorage(8), sampler=PrioritizedSampler(), seed=0)
    buffer.extend(plain(3))
    for places in ([8], [-1]):
        message = "expected places from 0 to 7"
        call = lambda places=places: buffer.update_priority(torch.tensor(places), 1.0)  # noqa: E731
        require_refused(buffer, SpecError, message, call)
    require_refused(buffer, KeyMissing, "a sample, with the key", lambda: buffer.update_priority(plain(2), 1.0))


# ---- memory and disks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [ListStorage, TensorStorage, lambda num: MemmapStorage(num, "nowhere")])
def test_places_whose_ledger_would_not_fit_into_memory(storage):
    message = (
        r"Storage: expected at most [0-9.]+ GB, the memory that is free, got 16,000,000.0 GB for 1,000,000,000,000,000"
    )
    with pytest.raises(StorageError, match=message):
        storage(10**15)


def test_items_that_would_not_fit_into_memory():
    buffer = ReplayBuffer(TensorStorage(10**6))
    large = TensorDict({"x": torch.zeros(1, 1).expand(1, 10**8)}, [1])
    message = (
        r"TensorStorage: expected at most [0-9.]+ GB, the memory that is free, got 400,000.0 GB for 1,000,000 items"
    )
    with pytest.raises(StorageError, match=message):
        buffer.extend(large)
    buffer.extend(plain(2))
    assert len(buffer) == 2


def test_a_memmap_larger_than_the_disk(small_disk):
    buffer = ReplayBuffer(MemmapStorage(10**6, small_disk / "items"))
    message = "MemmapStorage: expected room for its files in .*No space left on device. .*Take a smaller capacity"
    for _ in range(2):
        with pytest.raises(StorageError, match=message):
            buffer.extend(plain(3))
        assert len(buffer) == 0
        assert not list((small_disk / "items").glob("*.memmap")), "what was begun still fills the disk"
    buffer.close()
    buffer = ReplayBuffer(MemmapStorage(100, small_disk / "items"))
    buffer.extend(plain(3))
    (small_disk / "filler").write_bytes(bytes(700_000))  # nothing that comes later needs room
    for _ in range(50):
        buffer.extend(plain(90))
    assert len(buffer) == 100
    buffer.close()


def test_a_disk_that_says_it_is_full(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    storage = MemmapStorage(100, tmp_path / "items")
    buffer = ReplayBuffer(storage)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(StorageError, match="GB are free there"):
            buffer.extend(plain(3))
    buffer.extend(plain(3))
    assert buffer[:]["x"].tolist() == [0, 1, 2]
    buffer.close()


def test_a_save_that_finds_the_disk_full(small_disk):
    buffer = ReplayBuffer(TensorStorage(50_000), seed=0)
    buffer.extend(plain(1000))
    buffer.save(small_disk)
    buffer.extend(plain(49_000))
    message = f"ReplayBuffer.save: expected a folder with room for the save, {small_disk}, .*The last save there is"
    require_refused(buffer, CheckpointError, message, lambda: buffer.save(small_disk))
    assert [path.name for path in small_disk.iterdir()] == ["replay.pt"]
    other = ReplayBuffer(TensorStorage(50_000))
    other.load(small_disk)
    assert other[:]["x"].tolist() == list(range(1000))


def test_a_read_only_folder(read_only):
    folder, lock = read_only
    buffer = ReplayBuffer(MemmapStorage(8, folder / "items"))
    buffer.extend(plain(3))
    buffer.save(folder / "save")
    buffer.extend(plain(1))
    lock()
    with pytest.raises(CheckpointError, match=f"a folder with room for the save, {folder}.*Permission denied"):
        buffer.save(folder / "save")
    for make in (lambda: MemmapStorage(8, folder / "more"), lambda: MemmapStorage.open(folder / "items")):
        with pytest.raises(
            StorageError, match=f"MemmapStorage: expected room for its files in {folder}.*PermissionError"
        ):
            make()
    other = ReplayBuffer(TensorStorage(8))
    other.load(folder / "save")
    assert other[:]["x"].tolist() == [0, 1, 2]
    buffer.extend(plain(1, start=7))
    assert buffer[:]["x"].tolist() == [0, 1, 2, 0, 7], "a process that opened it before goes on"
    buffer.close()


def test_folders_of_other_contents(tmp_path):
    with pytest.raises(StorageError, match="expected a file .*layout.json, got none"):
        MemmapStorage.open(tmp_path)
    ReplayBuffer(MemmapStorage(8, tmp_path)).extend(plain(3))
    with pytest.raises(StorageError, match=r"expected an empty folder.*MemmapStorage.open\(folder\) goes on"):
        MemmapStorage(8, tmp_path)
    layout = (tmp_path / "layout.json").read_text()
    (tmp_path / "layout.json").write_text(layout.replace('"format": 1', '"format": 99'))
    with pytest.raises(StorageError, match="expected format 1 in .*layout.json, got 99"):
        MemmapStorage.open(tmp_path)
    (tmp_path / "layout.json").write_text(layout[:20])
    with pytest.raises(StorageError, match="expected a whole file .*layout.json"):
        MemmapStorage.open(tmp_path)
    (tmp_path / "layout.json").write_text(layout)
    (tmp_path / "records.memmap").write_bytes(bytes(8))
    with pytest.raises(StorageError, match="records.memmap.*8 bytes"):
        MemmapStorage.open(tmp_path)
    with pytest.raises(CheckpointError, match="expected a save in .*, got none"):
        ReplayBuffer(TensorStorage(8)).load(tmp_path)


def test_lock_of_files_is_free_after_a_refusal_on_entry(tmp_path):
    """One who holds the storage finds files that it cannot read: others, here another open file, are not locked out."""
    waiting = ReplayBuffer(MemmapStorage(8, tmp_path))
    ReplayBuffer(MemmapStorage(8, tmp_path)).extend(plain(3))
    layout = (tmp_path / "layout.json").read_text()
    (tmp_path / "layout.json").write_text(layout[:20])
    with pytest.raises(StorageError, match="expected a whole file .*layout.json"):
        len(waiting)
    with (tmp_path / "lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (tmp_path / "layout.json").write_text(layout)
    assert len(waiting) == 3


@pytest.mark.parametrize(
    ("base", "name", "now"),
    [
        (Sampler, "wrote", "on_write"),
        (Sampler, "dropped", "on_drop"),
        (Writer, "reprioritized", "on_priority"),
        (Storage, "wrote", "after_write"),
        (Storage, "keep_what_others_need", "before_write"),
    ],
)
def test_a_former_name_of_a_hook_is_refused(base, name, now):
    with pytest.raises(ConfigError, match=f"got {name!r}, which nobody would call. Did you mean {now!r}"):
        type("Own", (base,), {name: lambda self, *arguments: None, "__module__": "user"})
