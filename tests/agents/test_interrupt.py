"""Ctrl-C as a flag, then as an exception, and the handler that was there before."""

import signal
import threading

import pytest

from torchrl.agents import InterruptGuard


def press():
    signal.raise_signal(signal.SIGINT)


def test_the_first_is_a_flag_the_second_raises(capsys):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), InterruptGuard("wait") as guard:
        assert not guard.is_requested
        press()
        assert guard.is_requested and capsys.readouterr().err == "\nwait\n"
        press()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_inner_guard_gives_back_the_outer_ones_handler():
    with InterruptGuard() as outer:
        with InterruptGuard() as inner:
            press()
        assert inner.is_requested and not outer.is_requested
        press()
        assert outer.is_requested


def test_outside_the_main_thread_it_does_nothing():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run():
        with InterruptGuard() as guard:
            seen.append((guard.is_requested, signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_sigterm_is_a_flag_and_at_the_end_the_exit_status_by_which_schedulers_know_it(capsys):
    with pytest.raises(SystemExit) as ended, InterruptGuard() as guard:
        signal.raise_signal(signal.SIGTERM)
        assert guard.is_requested and "SIGTERM: stopping" in capsys.readouterr().err
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_sigterm_ends_at_once_and_one_after_ctrl_c_is_the_first():
    reached = []
    with pytest.raises(SystemExit) as ended, InterruptGuard():
        press()
        signal.raise_signal(signal.SIGTERM)
        reached.append("after the first")
        signal.raise_signal(signal.SIGTERM)
        reached.append("after the second")
    assert ended.value.code == 143 and reached == ["after the first"]


def test_an_error_after_sigterm_is_the_error():
    with pytest.raises(ValueError, match="planted"), InterruptGuard():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("planted")


def test_who_handles_sigterm_goes_on_to():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        with InterruptGuard() as guard:
            signal.raise_signal(signal.SIGTERM)
        assert seen == [True] and not guard.is_requested
    finally:
        signal.signal(signal.SIGTERM, before)
