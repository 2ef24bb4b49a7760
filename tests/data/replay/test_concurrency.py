"""Threads and processes that write and sample at the same time: no item is torn, none is staler than it may be.

A sample may hold what was live when it was drawn: with W items written before the call began, ids from W - capacity on.
A sample that was made ahead was drawn prefetch + 1 calls before, of all readers together, so not before the call that
this reader made prefetch + 1 calls ago.
"""

import json
import pickle
import sys
import threading
import time
from collections import deque

import numpy as np
import pytest
import torch

from cases.replay_processes import started
from cases.replay_rows import BATCH, NO_FAULTS, Witness, num_swapped, rows
from torchrl.data.replay import (
    MemmapStorage,
    PrioritizedSampler,
    PrioritizedSliceSampler,
    ReplayBuffer,
    SliceSampler,
    TensorStorage,
)

pytestmark = [pytest.mark.usefixtures("leaves_nothing", "often_switched")]
CAPACITY = 2000
SAMPLES = 1960  # of each of two reading processes: 1,003,520 items in all; threads read a quarter
HIGHEST = 1000.0


@pytest.fixture
def often_switched():
    """Let threads take turns fifty times as often; one thread for each operation, as there are several already."""
    interval, num_threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-4)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(num_threads)


def run_all(readers, writers):
    """Run threads; writers go on until all readers are through. Raise what any of them raised."""
    stop, raised = threading.Event(), []

    def guarded(call):
        try:
            call()
        except BaseException as error:
            raised.append(error)

    def for_ever(write):
        while not stop.is_set() and not raised:
            write()
            time.sleep(2e-4)

    reading = [threading.Thread(target=guarded, args=(reader,)) for reader in readers]
    writing = [threading.Thread(target=guarded, args=(lambda write=write: for_ever(write),)) for write in writers]
    for thread in reading + writing:
        thread.start()
    for thread in reading:
        thread.join()
    stop.set()
    for thread in writing:
        thread.join()
    if raised:
        raise raised[0]


def writer_of(buffer, writer, in_time):
    """Return what adds the next items of a writer: batches of many sizes, made beforehand."""
    number, sizes = 0, np.random.default_rng(writer).integers(1, 101, 1000)

    def write():
        nonlocal number
        num = int(sizes[number % len(sizes)])
        buffer.extend(rows(writer, number, num, in_time=in_time))
        number += num

    return write


def readers_and_writers(buffer, *, in_time=False, lag=0, after=None):
    """Let two threads write and two sample, a quarter of a million items in all; return the readers' witnesses."""
    buffer.extend(rows(3, 0, BATCH, in_time=in_time))
    witnesses = [Witness(buffer, lag), Witness(buffer, lag)]

    def reader(witness):
        def read():
            for _ in range(SAMPLES // 4):
                sample = witness.sample()
                if after is not None:
                    after(sample)

        return read

    began = time.perf_counter()
    run_all([reader(witness) for witness in witnesses], [writer_of(buffer, number, in_time) for number in (1, 2)])
    num_rows, written = sum(witness.rows for witness in witnesses), buffer.storage.ledger.written
    print(f"{num_rows:,} items sampled, {written:,} written, {time.perf_counter() - began:.1f} s")
    assert num_rows == 2 * (SAMPLES // 4) * BATCH
    assert written > 10 * CAPACITY, "the ring hardly came round"
    return witnesses


def require_no_faults(witnesses):
    for witness in witnesses:
        assert witness.faults() == NO_FAULTS
    assert not num_swapped([witness.seen() for witness in witnesses])


def test_uniform():
    buffer = ReplayBuffer(TensorStorage(CAPACITY), seed=0)
    require_no_faults(readers_and_writers(buffer))


@pytest.mark.parametrize("prioritized", [False, True], ids=["uniform", "prioritized"])
def test_slices_stay_in_one_trajectory(prioritized):
    sampler = PrioritizedSliceSampler(16) if prioritized else SliceSampler(16)
    buffer = ReplayBuffer(TensorStorage(CAPACITY), sampler=sampler, seed=0)
    update = (lambda sample: buffer.update_priority(sample, torch.rand(len(sample)))) if prioritized else None
    require_no_faults(readers_and_writers(buffer, in_time=True, after=update))


def priority_of(ids):
    """Give every item a priority that none of those in the same place for the next 997 rounds has."""
    return 1.0 + ids % 997


class LateUpdates:
    """Sets the priorities of samples some calls after they were taken, and looks into the tree.

    Every new item gets the highest priority there was, which is set once; later priorities tell the item.
    """

    def __init__(self, buffer, behind=4):
        self.buffer, self.behind = buffer, behind
        self.pending = threading.local()
        self.num_late = self.num_in_time = self.num_wrong = self.num_set = self.num_checks = 0
        buffer.extend(rows(4, 0, 1))
        buffer.update_priority(torch.tensor([0]), HIGHEST)

    def __call__(self, sample):
        if not hasattr(self.pending, "samples"):
            self.pending.samples = deque()
        samples = self.pending.samples
        samples.append(sample)
        if len(samples) > self.behind:
            self.update(samples.popleft())
        if np.random.random() < 0.05:
            self.check()

    def update(self, sample):
        ids, places = sample["replay", "id"], sample["replay", "index"]
        with self.buffer.storage.lock:
            is_late = torch.from_numpy(self.buffer.storage.ledger.ids_at(places.numpy())) != ids
            self.num_late += int(is_late.sum())
            self.num_in_time += int((~is_late).sum())
        self.buffer.update_priority(sample, priority_of(ids))

    def check(self):
        """Compare the tree with the ledger: an item has its own priority, or that of a new one."""
        with self.buffer.storage.lock:
            ledger, sampler = self.buffer.storage.ledger, self.buffer.sampler
            ids, found = ledger.ids_at(ledger.live_places), sampler.shares(ledger.live_places)
            own = np.isclose(found, priority_of(ids))
            self.num_wrong += int((~own & ~np.isclose(found, HIGHEST)).sum())
            self.num_set += int(own.sum())
            self.num_wrong += abs(int((sampler.shares(np.arange(CAPACITY)) > 0).sum()) - len(ledger))
            self.num_checks += 1


@pytest.mark.parametrize("prefetch", [0, 3])
def test_late_priorities_do_not_reach_what_came_after(prefetch):
    sampler = PrioritizedSampler(alpha=1.0, eps=0.0)
    buffer = ReplayBuffer(TensorStorage(CAPACITY), sampler=sampler, prefetch=prefetch, seed=0)
    updates = LateUpdates(buffer)
    lag = prefetch and prefetch + 1
    require_no_faults(readers_and_writers(buffer, lag=lag, after=updates))
    updates.check()
    buffer.close()
    assert updates.num_checks > 20 and updates.num_set > 1000
    assert updates.num_late > 5000 and updates.num_in_time > 5000
    assert updates.num_wrong == 0


def test_prefetched():
    buffer = ReplayBuffer(TensorStorage(CAPACITY), prefetch=3, seed=0)
    witnesses = readers_and_writers(buffer, lag=3 + 1)
    buffer.close()
    require_no_faults(witnesses)


def test_what_was_overwritten_since_it_was_drawn_is_drawn_anew():
    buffer = ReplayBuffer(TensorStorage(100), prefetch=3, seed=0)
    buffer.extend(rows(1, 0, 100))
    with buffer.storage.lock:
        buffer._ahead.add(buffer._read_later, BATCH, *buffer._draw(BATCH))  # drawn, while the thread cannot read
        buffer.extend(rows(1, 100, 60))
    sample = buffer._ahead.take().result()
    buffer.close()
    assert sample["replay", "id"].min() >= 60
    assert (sample["key"] % 2**40 == sample["replay", "id"]).all()


def test_processes(tmp_path):
    storage = MemmapStorage(CAPACITY, tmp_path / "items")
    buffer = ReplayBuffer(storage, seed=0)
    buffer.extend(rows(3, 0, BATCH))
    pickled, stop = tmp_path / "buffer", tmp_path / "stop"
    pickled.write_bytes(pickle.dumps(buffer))
    writers = [started("write", pickled, number, 2 * CAPACITY, stop) for number in (1, 2)]
    reader = started("read", pickled, SAMPLES, tmp_path / "seen.npy")
    try:
        for writer in writers:
            writer.stdout.readline()  # it came round
        witness, began = Witness(buffer), time.perf_counter()
        for _ in range(SAMPLES):
            witness.sample()
        output, _ = reader.communicate()
        print(f"{2 * witness.rows:,} items sampled, {storage.ledger.written:,} written")
        print(f"{time.perf_counter() - began:.1f} s")
        stop.touch()
        written = [json.loads(writer.communicate()[0])["written"] for writer in writers]
    finally:
        for process in [*writers, reader]:
            process.kill()
            process.communicate()
    buffer.close()
    theirs = json.loads(output)
    assert theirs.pop("rows") + witness.rows >= 1_000_000
    assert theirs == NO_FAULTS and witness.faults() == NO_FAULTS
    assert not num_swapped([witness.seen(), np.load(tmp_path / "seen.npy")])
    assert min(written) > 2 * CAPACITY
    assert sum(written) + BATCH == storage.ledger.written, "an item was lost"
