import os
import select
import signal
import subprocess
import sys
from functools import partial

import pytest

from cases import toy_runs
from fakes import LIMIT_S
from torchrl.commands.run_processes import OUTPUT, Run, held, run_all
from torchrl.errors import ConfigError

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def run_toys(folder, works, num_processes=1, hear=lambda *_: True):
    """Run toys; return their names with the errors that they ended with, in the order of their ends."""
    starts = [partial(Run, name, work, folder / name) for name, work in works.items()]
    ended = []
    run_all(starts, num_processes, hear=hear, conclude=lambda run: ended.append((run.name, run.error())))
    return ended


def test_runs_tell_of_evaluations_and_end_where_they_are_told_to(tmp_path):
    heard = []

    def hear(run, evaluation, frames, mean):
        heard.append((run.name, evaluation, frames, mean))
        return mean < 3.0

    works = {
        "one": partial(toy_runs.evaluated, returns=[1.0, 2.0]),
        "two": partial(toy_runs.evaluated, returns=[3.0, 4.0]),
    }
    assert run_toys(tmp_path, works, hear=hear) == [("one", None), ("two", None)]
    assert heard == [("one", 1, 100, 1.0), ("one", 2, 200, 2.0), ("two", 1, 100, 3.0)]
    assert (tmp_path / "two" / "done.txt").read_text() == "1"
    assert (tmp_path / "one" / OUTPUT).read_text() == "2 evaluations\n"


def test_a_run_that_fails_leaves_the_others_and_says_why(tmp_path):
    works = {"bad": toy_runs.failing, "dead": toy_runs.killed, "good": partial(toy_runs.evaluated, returns=[])}
    assert dict(run_toys(tmp_path, works, num_processes=3)) == {
        "bad": "ppo.py: --lr: expected a number above 0",
        "dead": "killed by SIGKILL",
        "good": None,
    }


def test_an_error_ends_what_runs(tmp_path):
    def hear(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_toys(tmp_path, {"one": toy_runs.endless, "two": toy_runs.endless}, num_processes=2, hear=hear)


def test_a_lock_is_one_process_alone_and_goes_with_it(tmp_path):
    path = tmp_path / "lock"
    code = "import time; from pathlib import Path; from torchrl.commands.run_processes import held\n"
    code += f"with held(Path({str(path)!r})): print('held', flush=True); time.sleep({LIMIT_S})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert select.select([other.stdout], [], [], LIMIT_S)[0]
        with pytest.raises(ConfigError, match="expected a lock that is free"), held(path, timeout_s=0.0):
            pass
        os.kill(other.pid, signal.SIGKILL)
    with held(path, timeout_s=LIMIT_S), held(tmp_path / "other", shared=True), held(tmp_path / "other", shared=True):
        pass
