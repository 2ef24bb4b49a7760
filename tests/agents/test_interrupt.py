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
