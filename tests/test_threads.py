"""Threads that follow their caller to its core."""

import os
import threading

import pytest

from fakes import LIMIT_S
from torchrl.threads import SameCore, start_apart

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"
)


class Sleeper(threading.Thread):
    """A thread that waits until it is let go, started when it is made."""

    def __init__(self):
        super().__init__(daemon=True)
        self.goes_on = threading.Event()
        self.start()

    def run(self):
        self.goes_on.wait(LIMIT_S)


@pytest.fixture
def ask():
    """Another thread, which starts sleepers when asked, and all of them."""
    sleepers, wanted, made = [], threading.Semaphore(0), threading.Semaphore(0)

    def serve():
        wanted.acquire()
        sleepers.append(Sleeper())
        made.release()

    server = threading.Thread(target=serve, daemon=True)
    server.start()

    def ask():
        wanted.release()
        assert made.acquire(timeout=LIMIT_S)
        return sleepers[-1]

    yield ask
    for sleeper in sleepers:
        sleeper.goes_on.set()


def test_what_was_started_is_told_from_what_others_started_meanwhile(ask):
    cores = os.sched_getaffinity(0)
    foreign = []

    def build():
        mine = Sleeper()
        foreign.append(ask())
        gone = Sleeper()
        gone.goes_on.set()
        gone.join()
        return mine, gone

    (mine, gone), threads = start_apart(build)
    assert threads[0] == mine.native_id and set(threads) <= {mine.native_id, gone.native_id}  # that may be ending still
    assert os.sched_getaffinity(0) == os.sched_getaffinity(mine.native_id) == cores
    for core in cores:
        os.sched_setaffinity(0, {core})
        try:
            SameCore([*threads, gone.native_id]).follow()
        finally:
            os.sched_setaffinity(0, cores)
        assert os.sched_getaffinity(mine.native_id) == {core}
        assert os.sched_getaffinity(foreign[0].native_id) == cores
    mine.goes_on.set()


def test_an_error_in_between_leaves_the_caller_its_cores():
    cores = os.sched_getaffinity(0)
    with pytest.raises(ValueError, match="no such thing"):
        start_apart(lambda: int("no such thing"))
    assert os.sched_getaffinity(0) == cores


def test_one_core_or_another_system_has_nothing_to_follow(monkeypatch):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert start_apart(lambda: 3) == (3, [])
    finally:
        os.sched_setaffinity(0, cores)
    monkeypatch.delattr(os, "sched_setaffinity")
    assert start_apart(lambda: 4) == (4, [])
    SameCore([]).follow()
