"""Objects in processes of their own: calls, exceptions, deadlines, deaths, and what is left behind (nothing)."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cases.things import SERVE, Awkward, Sealed, Thing
from fakes import FOREVER_S, LIMIT_S, wait_until
from torchrl.errors import ConfigError, DeadlineError, ProcessError
from torchrl.processes import children
from torchrl.processes.children import START_METHODS, start_child
from torchrl.processes.remote import RemoteObject, answers, close_all, ready

pytestmark = pytest.mark.usefixtures("leaves_nothing")
every_method = pytest.mark.parametrize("method", START_METHODS)


@pytest.fixture
def start():
    """Start things that are closed at the end."""
    started = []

    def start(*arguments, method="forkserver", build=Thing):
        started.append(RemoteObject(f"worker {len(started)}", SERVE, build, *arguments, start_method=method))
        started[-1].answer(LIMIT_S)
        return started[-1]

    yield start
    close_all(started)


@every_method
def test_calls_are_answered_in_their_order(start, method):
    thing = start(10, method=method)
    for number in range(3):
        thing.post("add", number)
    assert [thing.answer(LIMIT_S) for _ in range(3)] == [10, 11, 12]


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_child_has_no_torch_until_it_asks_for_it(start, method):
    assert start(method=method).call("imported", timeout_s=LIMIT_S) is False


@every_method
def test_an_exception_keeps_its_type_and_attributes_and_says_where(start, method):
    thing = start(method=method)
    with pytest.raises(Awkward, match="7: planted") as caught:
        thing.call("fail", timeout_s=LIMIT_S)
    assert caught.value.code == 7
    (note,) = caught.value.__notes__
    assert f"worker 0, process {thing.pid}" in note and "in fail" in note
    assert thing.call("add", 1, timeout_s=LIMIT_S) == 1  # it lives on


def test_a_class_of_a_function_is_the_same_class_again(start):
    class Local(Exception):
        pass

    with pytest.raises(Local):
        start().call("fail_with", Local("x"), timeout_s=LIMIT_S)


def test_an_exception_that_cannot_be_sent_is_told(start):
    class Thread(Thing):
        def fail(self):
            error = RuntimeError("holds a lock")
            error.lock = __import__("threading").Lock()
            raise error

    with pytest.raises(ProcessError, match="RuntimeError, which cannot be pickled") as caught:
        start(build=Thread).call("fail", timeout_s=LIMIT_S)
    assert "holds a lock" in caught.value.__notes__[0]


def test_an_exception_while_building_is_raised_by_the_first_answer():
    thing = RemoteObject("worker 3", SERVE, Thing, None)
    with pytest.raises(Awkward, match="planted in __init__"):
        thing.answer(LIMIT_S)
    thing.close()


def test_what_cannot_be_pickled_or_unpickled_is_raised_here_and_leaves_the_others_in_step(start):
    one, two = start(), start(5)
    with pytest.raises(TypeError, match="cannot pickle"):
        one.call("fail_with_lock", timeout_s=LIMIT_S)
    with pytest.raises(ValueError, match="sealed"):
        one.call("add", Sealed(), timeout_s=LIMIT_S)
    one.post("give", "Sealed")
    two.post("add", 1)
    with pytest.raises(ValueError, match="sealed"):
        answers([one, two], LIMIT_S)
    assert [one.call("add", 2, timeout_s=LIMIT_S), two.call("add", 2, timeout_s=LIMIT_S)] == [2, 7]


def test_a_message_that_comes_in_parts_is_waited_for_within_the_deadline(start):
    thing = start(bytes(1))
    thing.post("add", bytes(30_000_000))  # more than the socket holds
    os.kill(thing.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineError):
        thing.answer(0.5)
    assert thing.has_died()


def test_an_answer_that_nobody_reads_for_long_stays(start):
    thing = start(bytes(1))
    thing.post("add", bytes(5_000_000))
    time.sleep(0.3)  # it does not fit into the socket
    assert len(thing.answer(LIMIT_S)) == 5_000_001


def test_garbage_that_is_collected_while_the_server_is_asked_does_not_mix_up_its_answers(start, monkeypatch):
    send = children.socket.send_fds

    def collecting(*arguments):
        sent = send(*arguments)
        if arguments[1][0].endswith(b"fork"):
            gc.collect()
        return sent

    monkeypatch.setattr(children.socket, "send_fds", collecting)
    for _ in range(3):
        lost = start_child(SERVE)[0]
        ring = [lost]
        ring.append(ring)
        RemoteObject("lost", SERVE, Thing).me = ring
        assert start().call("add", 1, timeout_s=LIMIT_S) == 1
        lost.kill()


def test_a_copy_made_by_fork_leaves_the_childs_of_its_parent_alone(start):
    thing = start()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            thing.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert thing.call("add", 1, timeout_s=LIMIT_S) == 1


def test_only_listed_methods_can_be_called(start):
    with pytest.raises(ProcessError, match=r"expected one of add, .*got 'hidden'"):
        start().call("hidden", timeout_s=LIMIT_S)


@every_method
def test_a_child_that_dies_is_named_at_once(start, method):
    thing = start(method=method)
    with pytest.raises(ProcessError, match=rf"worker 0, process {thing.pid}.*exited with status 3"):
        thing.call("stop", timeout_s=FOREVER_S)
    with pytest.raises(ProcessError, match="was closed"):
        thing.call("add", 1, timeout_s=LIMIT_S)


def test_a_killed_child_is_named_while_another_is_still_busy(start):
    busy, victim = start(), start()
    busy.post("sleep", FOREVER_S)
    victim.post("sleep", FOREVER_S)
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(ProcessError, match=r"worker 1.*killed by SIGKILL"):
        answers([busy, victim], FOREVER_S)


def test_a_call_to_a_dead_child_names_it(start):
    thing = start()
    os.kill(thing.pid, signal.SIGKILL)
    wait_until(thing.has_died)
    with pytest.raises(ProcessError, match="killed by SIGKILL"):
        thing.call("add", 1, timeout_s=LIMIT_S)


def test_no_answer_in_time_is_an_error_that_ends_the_child(start):
    thing = start()
    with pytest.raises(DeadlineError, match=r"worker 0.*an answer within 0.2 s.*Raise timeout_s"):
        thing.call("sleep", 60, timeout_s=0.2)
    assert thing.has_died()


@every_method
def test_a_child_outlasts_the_sigterm_of_a_whole_job_and_what_it_forks_does_not(start, method):
    thing = start(method=method)
    os.kill(thing.pid, signal.SIGTERM)
    for server in children._servers.values():
        server._process.terminate()
    assert thing.call("copy_dies", timeout_s=LIMIT_S) == signal.SIGTERM
    assert start(method=method).call("add", 1, timeout_s=LIMIT_S) == 1


def test_the_first_answer_has_the_deadline_of_the_start_and_none_of_a_call():
    thing = RemoteObject("worker 0", SERVE, Thing, start_timeout_s=LIMIT_S)
    assert not thing.has_started
    assert thing.answer(0.0) is None and thing.has_started
    thing.close()
    late = RemoteObject("worker 0", SERVE, time.sleep, FOREVER_S, start_timeout_s=0.1)
    with pytest.raises(DeadlineError, match=r"expected a start \(imports .* within 0.1 s.*Raise start_timeout_s"):
        late.answer(FOREVER_S)
    assert late.has_died()


def test_all_answers_are_read_before_the_first_exception_is_raised(start):
    one, two = start(), start(5)
    one.post("fail")
    two.post("add", 1)
    with pytest.raises(Awkward):
        answers([one, two], LIMIT_S)
    assert [one.call("add", 1, timeout_s=LIMIT_S), two.call("add", 1, timeout_s=LIMIT_S)] == [1, 6]


def test_one_that_could_not_be_built_and_ended_is_heard_while_another_is_waited_for(start):
    """It has said why, and its process is gone by the time it is its turn."""
    other = start()
    broken = RemoteObject("broken", SERVE, Thing, None)
    while not broken.has_died():
        time.sleep(0.01)
    other.post("sleep", 0.5)
    with pytest.raises(Awkward, match="planted in __init__"):
        answers([other, broken], LIMIT_S)
    assert other.call("add", 1, timeout_s=LIMIT_S) == 1


def test_ready_tells_who_has_answered(start):
    one, two = start(), start()
    assert ready([one, two], 0) == []
    two.post("add", 1)
    assert ready([one, two], LIMIT_S) == [two]
    two.answer(LIMIT_S)


def test_closing_is_bounded_and_may_be_repeated(start):
    things = [start(build=lambda: Thing(closes_slowly=True)) for _ in range(3)]
    close_all(things, timeout_s=0.3)
    close_all(things)
    assert all(thing.has_died() for thing in things)


def test_one_that_nobody_closes_ends_with_its_last_reference(start):
    RemoteObject("worker 0", SERVE, Thing).answer(LIMIT_S)  # the fixture finds it if it stays


@every_method
def test_the_surroundings_are_those_of_the_parent_now(start, method, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHRL_TEST", method)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    value, threads, folder = start(method=method).call("environment", "TORCHRL_TEST", timeout_s=LIMIT_S)
    assert value == method and folder == str(tmp_path)
    assert threads == "1" or method == "fork"  # workers share the cores


def test_a_large_message_goes_both_ways(start):
    thing = start(bytes(1))
    assert thing.call("add", bytes(5_000_000), timeout_s=LIMIT_S) == bytes(5_000_001)


def test_no_such_start_method_is_refused():
    with pytest.raises(ConfigError, match="forkserver, spawn, fork, got 'thread'"):
        start_child(SERVE, start_method="thread")


PARENT = """
import sys, time
sys.path.insert(0, {folder!r})
from cases.things import SERVE, Thing
from fakes import LIMIT_S
from torchrl.processes.remote import RemoteObject
things = [RemoteObject("worker", SERVE, Thing, start_method={method!r}) for _ in range(2)]
for thing in things:
    thing.answer(LIMIT_S)
    thing.post("sleep", 3600)
print(*[thing.pid for thing in things], flush=True)
time.sleep(3600)
"""


@every_method
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_end_when_their_parent_does_however_it_ends(method, number):
    code = PARENT.format(folder=str(Path(__file__).parents[1]), method=method)
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    parent = subprocess.Popen([sys.executable, "-c", code], text=True, **quiet)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # whoever adopted it has not looked yet


@every_method
def test_fifty_rounds_leave_no_child_and_no_descriptor(method):
    RemoteObject("first", SERVE, Thing, start_method=method).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50 if method == "forkserver" else 8):
        thing = RemoteObject("worker", SERVE, Thing, start_method=method)
        assert thing.answer(LIMIT_S) is None
        thing.close()
    assert len(os.listdir("/proc/self/fd")) == before
