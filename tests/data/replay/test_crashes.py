"""Processes that are killed while they write or save: what was whole before is there, and nothing else is.

One process forks those that die, so that fifty deaths do not cost fifty starts of an interpreter. Half of them die at
a random line of the call, the others a random time after the copying of data began.
"""

import json
import shutil
import signal
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from cases.replay_processes import INSIDE, WRITING, WRITTEN, digest, report_in, started
from cases.replay_rows import num_torn, rows
from torchrl.data.replay import (
    MemmapStorage,
    PrioritizedSampler,
    PrioritizedSliceSampler,
    ReplayBuffer,
    SliceSampler,
    TensorStorage,
    UniformSampler,
)
from torchrl.errors import CheckpointError, StorageError

pytestmark = pytest.mark.usefixtures("leaves_nothing")
DEATHS, MOST_DEATHS = 50, 250  # a busy machine fires late, and takes more deaths to have seen enough in the middle
CAPACITY = 400


@contextmanager
def killing():
    """Yield a function that lets a process do a job until it is killed, and says by which signal."""
    server = started("serve")

    def die(**job):
        server.stdin.write(json.dumps(job).encode() + b"\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    try:
        yield die
    finally:
        server.stdin.close()
        try:
            server.wait()
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def require_consistent(buffer):
    """Compare a buffer's items with the ledger: each has its id as key, and all its entries are its own."""
    ledger = buffer.storage.ledger
    assert len(buffer) == len(ledger) == ledger.written - ledger.oldest <= ledger.capacity
    live = np.arange(ledger.oldest, ledger.written)
    assert (ledger.ids_at(ledger.live_places) == live).all()
    assert len(set(ledger.live_places.tolist())) == len(live)
    items = buffer.storage.read(ledger.live_places)
    assert items["key"].tolist() == live.tolist()
    assert num_torn(items) == 0


def require_samples(buffer, num=512):
    """Sample: only live items, whole, slices without a gap."""
    sample = buffer.sample(num)
    ids, ledger = sample["replay", "id"], buffer.storage.ledger
    assert (sample["key"] == ids).all()
    assert num_torn(sample) == 0
    assert ids.min() >= ledger.oldest and ids.max() < ledger.written
    if ids.ndim == 2:
        assert (ids.diff(dim=1) == 1).all()
        assert (ids // 50 == ids[:, :1] // 50).all()
    if "weight" in sample["replay"].keys():
        buffer.update_priority(sample, torch.rand(len(sample)))


def samplers():
    return [UniformSampler(), PrioritizedSampler(), SliceSampler(8), PrioritizedSliceSampler(8)]


def test_killed_while_it_extends(tmp_path):
    folder, report = tmp_path / "items", report_in(tmp_path / "report")
    storage = MemmapStorage(CAPACITY, folder)
    watching = [ReplayBuffer(storage, sampler=sampler, seed=0) for sampler in samplers()]  # over all deaths
    watching[0].extend(rows(0, 0, 100, in_time=True))
    report[:] = 0, 100, 100
    furthest, stages, num_cut, wrapped_mid_write = 100, Counter(), 0, 0

    def saw_enough():
        between = stages[INSIDE] + stages[WRITTEN]
        return stages[WRITING] >= 10 and between >= 15 and num_cut >= 20 and wrapped_mid_write >= 3

    with killing() as die:
        for death in range(MOST_DEATHS):
            if death >= DEATHS and saw_enough():
                break
            job = {"folder": str(folder), "report": str(tmp_path / "report"), "seed": death, "capacity": CAPACITY}
            assert die(work="extend", **job) == signal.SIGKILL
            stage, begun, done = report.tolist()
            stages[stage] += 1
            furthest = max(furthest, begun)
            reopened = MemmapStorage.open(folder)
            buffers = [ReplayBuffer(reopened, sampler=sampler, seed=death) for sampler in samplers()]
            ledger = reopened.ledger
            require_consistent(buffers[0])
            assert ledger.written in (done, begun), "an extend that was completed is gone, or half of one is there"
            assert ledger.oldest <= max(0, furthest - CAPACITY), "more is gone than made way"
            num_cut += ledger.written == done < begun
            wrapped_mid_write += stage == WRITING and begun % CAPACITY < done % CAPACITY
            for buffer in buffers + watching:
                require_samples(buffer)
            added = buffers[0].extend(rows(0, ledger.written, 20 + death, in_time=True))
            assert len(added) == 20 + death
            require_consistent(watching[0])
            furthest = max(furthest, ledger.written)
            report[2] = ledger.written
            for buffer in buffers + watching:
                require_samples(buffer)
            reopened.close()
    storage.close()
    print(f"Deaths at stages {dict(stages)}, {num_cut} extends cut short, {ledger.written:,} items written")
    assert saw_enough(), "too few died in the middle of a call"


def test_killed_at_the_first_extend(tmp_path):
    report_in(tmp_path / "report")
    num_made = 0
    with killing() as die:
        for death in range(12):
            folder = tmp_path / f"items-{death}"
            job = {"folder": str(folder), "report": str(tmp_path / "report"), "seed": -1 - death, "capacity": CAPACITY}
            assert die(work="extend", **job) == signal.SIGKILL
            try:
                storage = MemmapStorage.open(folder)
                num_made += 1
            except StorageError as error:
                assert "expected a file" in str(error)
                storage = MemmapStorage(CAPACITY, folder)
            buffer = ReplayBuffer(storage)
            first = storage.ledger.written
            buffer.extend(rows(0, first, 30, in_time=True))
            require_consistent(buffer)
            require_samples(buffer)
            buffer.close()
    assert 1 <= num_made <= 11, "all died before the files were made, or none"


def test_killed_while_it_saves(tmp_path):
    folder, report = tmp_path / "save", report_in(tmp_path / "report")
    report[:] = 0
    job = {"folder": str(folder), "report": str(tmp_path / "report"), "capacity": CAPACITY}
    file, stages, found = folder / "replay.pt", Counter(), Counter()

    def saw_enough():
        return stages[WRITING] >= 10 and stages[INSIDE] >= 10 and found["old"] >= 20 and found["cut short"] >= 3

    with killing() as die:
        for death in range(MOST_DEATHS):
            if death >= DEATHS and saw_enough():
                break
            had_one = file.exists()
            assert die(work="save", seed=death, **job) == signal.SIGKILL
            stage, begun, done = report.tolist()
            stages[stage] += 1
            if not file.exists():
                assert not had_one, "a save is gone"
                is_there = any(folder.glob(".partial*"))
                found["cut short" if is_there else "none"] += 1
                got = "one that was cut short" if is_there else "none"
                with pytest.raises(CheckpointError, match=f"^ReplayBuffer.load: expected a save in .*, got {got}"):
                    ReplayBuffer(TensorStorage(CAPACITY)).load(folder)
                if death % 4 < 2:
                    continue
                whole = ReplayBuffer(TensorStorage(CAPACITY))
                whole.extend(rows(0, 0, CAPACITY))
                whole.save(folder)
                (folder / "digest").write_text(digest(file))
                report[2] = CAPACITY
                assert not any(folder.glob(".partial*")), "what was cut short is still there"
                continue
            buffer = ReplayBuffer(TensorStorage(CAPACITY))
            buffer.load(folder)
            is_old = digest(file) == (folder / "digest").read_text() if (folder / "digest").exists() else False
            assert buffer.storage.ledger.written == (done if is_old else begun)
            found["old" if is_old else "new"] += 1
            if stage == WRITING:  # outside, it may have died before it noted the digest
                assert is_old
            require_consistent(buffer)
            require_samples(buffer)
            buffer.extend(rows(0, buffer.storage.ledger.written, 10))
            require_consistent(buffer)
            (folder / "digest").write_text(digest(file))
            report[2] = done if is_old else begun
            if death % 5 == 4:
                shutil.rmtree(folder)
                report[2] = 0
    print(f"Deaths at stages {dict(stages)}, found {dict(found)}")
    assert saw_enough(), "too few died in the middle of a call"


def test_a_save_of_any_shorter_length_is_refused(tmp_path):
    buffer = ReplayBuffer(TensorStorage(20), seed=0)
    buffer.extend(rows(0, 0, 30)[10:])
    buffer.save(tmp_path)
    whole = (tmp_path / "replay.pt").read_bytes()
    other = ReplayBuffer(TensorStorage(20), seed=1)
    other.extend(rows(0, 0, 20))
    for length in [*range(0, len(whole), len(whole) // 150), len(whole) - 1]:
        (tmp_path / "replay.pt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="^ReplayBuffer.load: expected a whole file .*replay.pt, got"):
            other.load(tmp_path)
    require_consistent(other)
    (tmp_path / "replay.pt").write_bytes(whole)
    other.load(tmp_path)
    assert other[:]["key"].tolist() == list(range(10, 30))
