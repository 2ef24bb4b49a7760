"""A pool of workers: calls to all, to some, requests that last, losses, replacement, and one close for all of it."""

import os
import signal
import threading
from functools import partial

import pytest

from cases.things import SERVE, Awkward, Thing
from fakes import FOREVER_S, LIMIT_S, wait_until
from torchrl.errors import ConfigError, DeadlineError, ProcessError
from torchrl.processes.pool import Job, WorkerPool

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def job(index):
    return Job(f"worker {index}", Thing, (10 * index,))


@pytest.fixture
def make(keep):
    def make(job_of=job, num_workers=2, **options):
        pool = keep(WorkerPool("Pool", SERVE, job_of, num_workers, **{"timeout_s": LIMIT_S, **options}))
        pool.start()
        return pool

    return make


def outcomes(pool):
    """Wait for the next requests to end."""
    found = []
    while not found:
        found = pool.finished(1.0)
    return dict(found)


def test_calls_go_to_all_or_to_some_and_are_answered_in_order(make):
    pool = make(num_workers=3)
    assert pool.is_running and len(set(pool.pids)) == 3
    assert pool.call("add", 1) == [1, 11, 21]
    assert pool.call_each("add", {2: (5,), 0: (7,)}) == [25, 7]
    assert pool.call_one(1, "add", 2) == 12


def test_an_exception_of_a_method_leaves_the_pool_running(make):
    pool = make()
    with pytest.raises(Awkward, match="7: planted") as caught:
        pool.call("fail")
    assert "worker 0" in caught.value.__notes__[0]
    assert pool.call("add", 1) == [1, 11]


def test_arguments_that_cannot_be_sent_leave_no_answer_of_another_worker_behind(make):
    pool = make()
    with pytest.raises(TypeError, match="pickle"):
        pool.call_each("add", {0: (5,), 1: (threading.Lock(),)})
    assert pool.call("add", 1) == [1, 11]


def test_a_call_that_loses_a_worker_closes_all(make):
    pool = make()
    os.kill(pool.pids[1], signal.SIGKILL)
    with pytest.raises(ProcessError, match="worker 1.*killed by SIGKILL"):
        pool.call("sleep", 0)
    assert not pool.is_running and not pool.pids
    with pytest.raises(ProcessError, match="Pool: expected running workers, got workers that were closed"):
        pool.call("add", 1)
    pool.start()
    assert pool.call("add", 1) == [1, 11]


def test_what_cannot_be_built_is_raised_by_the_start_and_nothing_runs():
    pool = WorkerPool("Pool", SERVE, lambda index: Job("worker", Thing, (None if index else 0,)), 2, timeout_s=LIMIT_S)
    with pytest.raises(Awkward, match="planted in __init__"):
        pool.start()
    assert not pool.is_running


def test_a_request_returns_at_once_and_is_reported_once(make):
    pool = make()
    pool.request(0, "sleep", FOREVER_S)
    pool.request(1, "add", 1)
    assert outcomes(pool) == {1: 11} and pool.is_busy(0) and not pool.is_busy(1)
    assert pool.finished(0.0) == [] and pool.has_requests
    pool.kill(0)
    assert not pool.has_requests


def test_the_outcome_of_a_request_may_be_an_exception(make):
    pool = make()
    pool.request(0, "fail")
    assert isinstance(outcomes(pool)[0], Awkward)
    assert pool.call("add", 1) == [1, 11]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_loss_is_the_outcome_of_a_request_and_the_worker_can_be_replaced(make, when):
    pool = make()
    first = pool.pids
    if when == "before":
        os.kill(first[0], signal.SIGKILL)
        wait_until(partial(pool.has_died, 0))
    pool.request(0, "sleep", FOREVER_S)
    pool.request(1, "add", 1)
    if when == "after":
        os.kill(first[0], signal.SIGKILL)
    found = {}
    while len(found) < 2:
        found |= outcomes(pool)
    assert isinstance(found[0], ProcessError) and found[1] == 11
    pool.replace(0)
    assert pool.pids[1] == first[1] and pool.pids[0] != first[0]
    assert pool.call("add", 1) == [1, 11] and not pool.losses()


def test_one_that_is_lost_again_and_again_is_given_up(make):
    pool = make(max_restarts=2)
    prepared = []
    for expected in ([0], [0, 1]):
        pool.request(0, "stop")
        pool.revive(0, outcomes(pool)[0], lambda: prepared.append(len(prepared)))
        assert prepared == expected
    pool.request(0, "stop")
    with pytest.raises(ProcessError, match="exited with status 3") as caught:
        pool.revive(0, outcomes(pool)[0])
    assert "3 processes in a row were lost without an answer" in caught.value.__notes__[0]


def test_a_request_that_succeeds_begins_the_count_anew(make):
    pool = make(max_restarts=1)
    for _ in range(2):
        pool.request(0, "stop")
        pool.revive(0, outcomes(pool)[0])
        pool.request(0, "add", 1)
        assert outcomes(pool) == {0: 1}


def test_a_request_that_is_late_is_killed_and_says_what_was_awaited(make):
    pool = make(timeout_s=0.5, awaited="a batch")
    pool.request(0, "sleep", FOREVER_S)
    late = outcomes(pool)[0]
    assert isinstance(late, DeadlineError) and "worker 0" in str(late) and "a batch within 0.5 s" in str(late)
    assert list(pool.losses()) == [0]


def test_closed_if_lost_lets_other_exceptions_pass(make):
    pool = make()
    with pytest.raises(ValueError, match="mine"), pool.closed_if_lost():
        raise ValueError("mine")
    assert pool.is_running
    with pytest.raises(KeyboardInterrupt), pool.closed_if_lost():
        raise KeyboardInterrupt
    assert not pool.is_running


@pytest.mark.parametrize("name", ["timeout_s", "start_timeout_s"])
def test_deadlines_are_positive(name):
    with pytest.raises(ConfigError, match=f"Pool, {name}: expected a positive number of seconds, got 0"):
        partial(WorkerPool, "Pool", SERVE, job)(**{"timeout_s": 1.0, name: 0})
