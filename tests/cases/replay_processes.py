"""Processes that write to a replay buffer, read from it, or die in the middle of it: ``python replay_processes.py``."""

import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from cases.replay_rows import Witness, rows
from torchrl.data.replay import MemmapStorage, ReplayBuffer, TensorStorage

TESTS = Path(__file__).parents[1]
REPORT = ("stage", "begun", "done")  # int64 each, in a file that is mapped, so that it outlives who wrote it
OUTSIDE, INSIDE, WRITING, WRITTEN = range(4)  # stages
FILES = ("torchrl/data/replay/", "torchrl/files.py")
FIRST_LINES = 1300  # about as many as the first extend runs through, which cannot be counted before


def started(*arguments, **options):
    """Start one of these processes."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def report_in(path):
    return np.memmap(path, np.int64, "r+" if os.path.exists(path) else "w+", shape=(len(REPORT),))


# ---- at the same time --------------------------------------------------------------------------------------------


def write(pickled, writer, enough, stop):
    """Extend until a file appears, or the parent is gone; say when so many items were written."""
    buffer, number, parent = pickle.loads(Path(pickled).read_bytes()), 0, os.getppid()
    sizes = random.Random(writer)
    while not os.path.exists(stop) and os.getppid() == parent:
        num = sizes.randint(1, 100)
        buffer.extend(rows(int(writer), number, num))
        if number <= int(enough) < number + num:
            print(flush=True)
        number += num
        time.sleep(0.001)
    buffer.close()
    print(json.dumps({"written": number}))


def read(pickled, num_samples, found):
    """Sample, and leave what was seen in a file."""
    buffer = pickle.loads(Path(pickled).read_bytes())
    witness = Witness(buffer)
    for _ in range(int(num_samples)):
        witness.sample()
    buffer.close()
    np.save(found, np.stack(witness.seen()))
    print(json.dumps({"rows": witness.rows, **witness.faults()}))


# ---- killed ------------------------------------------------------------------------------------------------------


class Killer:
    """Kills this process at a moment within a call: at a random line of it, or a random time after a given one."""

    def __init__(self, chance):
        self.chance = chance
        self._begun = threading.Event()
        self._seconds = 0.0

    def arm(self, longest):
        self._seconds = self.chance.uniform(0, longest)
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self):
        self._begun.wait()
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    def begin(self):
        self._begun.set()

    def at_line(self, call, num_lines, files=FILES):
        """Die at a random one of so many lines of these files that a call runs through; it may be over before."""
        last = self.chance.randint(1, num_lines)

        def die(count):
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

        _traced(call, files, die)


def lines_of(call, files=FILES):
    """Make a call and count the lines of these files that it runs through."""
    return _traced(call, files, lambda count: None)


def _traced(call, files, at_each):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if not any(name in frame.f_code.co_filename for name in files):
            return None
        if event == "line":
            count += 1
            at_each(count)
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return count


def extend_until_killed(folder, report, seed, capacity):
    """Extend a buffer in files, whose items have their ids as keys; die in one of the calls."""
    chance, report = random.Random(seed), report_in(report)
    is_new = not (Path(folder) / "layout.json").exists()
    storage = MemmapStorage(capacity, folder) if is_new else MemmapStorage.open(folder)
    buffer, killer = ReplayBuffer(storage), Killer(chance)
    longest = 0.0

    def extend(num=None, call=lambda extend: extend()):
        number = storage.ledger.written
        batch = rows(0, number, chance.randint(1, capacity // 2) if num is None else num, in_time=True)
        report[1] = number + batch.numel()
        report[0] = INSIDE
        call(lambda: buffer.extend(batch))
        report[0] = OUTSIDE
        report[2] = report[1]

    if is_new and seed < 0:
        extend(call=lambda extend: killer.at_line(extend, FIRST_LINES))
    original = storage.write

    def timed(places, values):
        nonlocal longest
        began = time.perf_counter()
        original(places, values)
        longest = max(longest, time.perf_counter() - began)

    storage.write = timed
    for _ in range(chance.randint(1, 4)):
        extend()
    if seed % 2:
        files = ("replay/ledger.py",) if seed % 4 == 3 else FILES
        num_lines = []
        extend(call=lambda extend: num_lines.append(lines_of(extend, files)))
        extend(call=lambda extend: killer.at_line(extend, *num_lines, files))
    killer.arm(longest)

    def overtaken(places, values):
        report[0] = WRITING
        killer.begin()
        original(places, values)
        report[0] = WRITTEN

    storage.write = overtaken
    while True:
        extend(capacity // 2)


def save_until_killed(folder, report, seed, capacity):
    """Load what was saved before, add to it and save, and die in one of the saves. Items have their ids as keys."""
    chance, folder, report = random.Random(seed), Path(folder), report_in(report)
    buffer, killer = ReplayBuffer(TensorStorage(capacity), seed=seed), Killer(chance)
    is_first = not (folder / "replay.pt").exists()
    if is_first:
        buffer.extend(rows(0, 0, capacity))
    else:
        buffer.load(folder)
    longest, original = 0.0, torch.save

    def save(call=lambda save: save()):
        buffer.extend(rows(0, buffer.storage.ledger.written, chance.randint(1, capacity // 3)))
        report[1] = buffer.storage.ledger.written
        report[0] = INSIDE
        call(lambda: buffer.save(folder))
        report[0] = OUTSIDE
        report[2] = report[1]
        (folder / "digest").write_text(digest(folder / "replay.pt"))

    def timed(*arguments):
        nonlocal longest
        began = time.perf_counter()
        original(*arguments)
        longest = time.perf_counter() - began

    def overtaken(*arguments):
        report[0] = WRITING
        killer.begin()
        original(*arguments)
        report[0] = WRITTEN

    torch.save = timed
    buffer.save(folder.parent / "elsewhere")
    for _ in range(0 if is_first else chance.randint(0, 2)):
        save()
    if seed % 2:
        num_lines = []
        save(lambda save: num_lines.append(lines_of(save)))
        save(lambda save: killer.at_line(save, *num_lines))
    killer.arm(longest)
    torch.save = overtaken
    while True:
        save()


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def serve():
    """For each line of standard input fork a process that dies of it; say how it ended. No threads live here."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        job = json.loads(line)
        if not (child := os.fork()):
            signal.alarm(300)
            try:
                {"extend": extend_until_killed, "save": save_until_killed}[job.pop("work")](**job)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status), flush=True)


if __name__ == "__main__":
    {"write": write, "read": read, "serve": serve}[sys.argv[1]](*sys.argv[2:])
