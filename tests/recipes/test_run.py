import atexit
import gc

import pytest

from cases.examples import load


def test_python_searches_nothing_for_garbage_when_a_command_ends(monkeypatch):
    at_exit, num_frozen = [], gc.get_freeze_count()
    monkeypatch.setattr(atexit, "register", at_exit.append)
    with pytest.raises(SystemExit):
        load("a2c").main(["--help"])
    assert at_exit == [gc.freeze]
    assert gc.get_freeze_count() <= num_frozen  # a program that calls the command goes on
