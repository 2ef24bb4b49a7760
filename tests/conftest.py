"""Fixtures that several folders use: nothing outlives processes, stand-ins for wrappers, graphs without a compiler."""

import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fakes import LIMIT_S
from torchrl import graphs
from torchrl.processes import children


def pytest_configure():
    """Hear Ctrl-C also in a suite that a shell started in the background: tests send it, and would wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Mark the laws of what exists with a GPU only, whose cases come from a table."""
    for item in items:
        if "PinMemory" in item.nodeid:
            item.add_marker(pytest.mark.cuda)


def pytest_collection_finish():
    """Take what is there before the tests out of the sight of garbage collection: a look at all of it takes 0.2 s."""
    gc.collect()
    gc.freeze()


def descendants(pid):
    """List the processes below one, the fork servers, which are kept for the next worker, aside."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    servers = {server._process.pid for server in children._servers.values()}
    found, pending = set(), [pid]
    while pending:
        above = pending.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found.update(below)
        pending += below
    return found - servers


def shared_files():
    return set(os.listdir("/dev/shm"))


def num_descriptors():
    """Count the open descriptors, without those of fonts, which matplotlib keeps open for good."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(1 for link in links if os.path.lexists(link) and not os.readlink(link).endswith(".ttf"))


@pytest.fixture
def leaves_nothing():
    """Fail if a child, a shared-memory file or a descriptor outlives the test; those of fork servers are kept."""
    gc.collect()
    gc.freeze()  # what libraries made since the tests began, such as jax: the looks below are at what this test makes
    before, files, descriptors = descendants(os.getpid()), shared_files(), num_descriptors()
    yield
    deadline = time.monotonic() + LIMIT_S  # only what stays takes so long
    while descendants(os.getpid()) - before and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    gc.collect()
    assert not descendants(os.getpid()) - before, "a child process outlives the test"
    assert not shared_files() - files, "a shared-memory file outlives the test"
    servers = len(children._servers)
    assert num_descriptors() <= descriptors + 2 * servers, "open descriptors outlive the test"


@pytest.fixture
def stand_ins_of_wrappers(monkeypatch):
    """Put modules in place that gymnasium's wrappers import; one fills a picture of another size."""
    cv2 = ModuleType("cv2")
    cv2.INTER_AREA = 0
    cv2.resize = lambda picture, size, interpolation=None: np.resize(picture, (*size[::-1], 3))
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    for name in ("moviepy", "moviepy.video", "moviepy.video.io"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def keep():
    """Close what a test makes at its end, the last thing first: ``keep(ParallelEnv(...))`` returns the environment."""
    kept = []

    def keep(thing):
        kept.append(thing)
        return thing

    yield keep
    while kept:
        thing = kept.pop()
        (thing.shutdown if hasattr(thing, "shutdown") else thing.close)()


@pytest.fixture
def traced(monkeypatch):
    """Run graphs as they were traced, without a compiler; return the list of them."""
    found = []

    def load_program(graph, inputs):
        found.append(graph)
        return lambda values: list(graph(*values))

    monkeypatch.setattr(graphs, "load_program", load_program)
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest would format all it says
    return found
