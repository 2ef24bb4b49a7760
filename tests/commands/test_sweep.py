import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from cases import toy_runs
from fakes import LIMIT_S
from sources import ROOT
from torchrl.commands import sweep
from torchrl.commands.study import JOURNAL, Study
from torchrl.recipes.config import load_config
from torchrl.recipes.ranges import Choice, Range

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("leaves_nothing")
SEARCHED = "gamma = 0.98\nlr = range(1e-5, 1e-2, log)\nnum_cells = choice(8 8, 16)\n"
FLAGS = ["--trials=4", "--seed=3", "--total_frames=64"]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "ppo" / "lr.txt"
    path.parent.mkdir()
    path.write_text(SEARCHED)
    return str(path)


@pytest.fixture
def search(torchrl, config, monkeypatch):
    """Run a sweep of toys in a folder; return the lines that it prints."""
    monkeypatch.setattr(sweep, "train_trial", toy_runs.train_trial)
    return lambda folder, *flags: torchrl("sweep", config, f"--folder={folder}", *FLAGS, *flags)


def wait_for(path, text):
    deadline = time.monotonic() + LIMIT_S
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_sweep_goes_on_as_if_it_had_not_been(search, config, tmp_path):
    search("whole")
    code = "import sys; from torchrl.commands import sweep; from cases import toy_runs\n"
    code += "sweep.train_trial = toy_runs.train_trial; sweep.run(sys.argv[1:])"
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "hang").touch()
    command = [sys.executable, "-c", code, config, "--folder=torn", *FLAGS]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}) as killed:
        wait_for(tmp_path / "torn" / "log.txt", "sleep trial_2")
        os.kill(killed.pid, signal.SIGKILL)
    (tmp_path / "torn" / "hang").unlink()
    with (tmp_path / "torn" / JOURNAL).open("a") as journal:
        journal.write('{"op_code":5,"wor')  # what a kill in the middle of a line leaves
    lines = search("torn")
    assert any(line.startswith("trial 2 again: lr = ") for line in lines)
    log = Counter((tmp_path / "torn" / "log.txt").read_text().splitlines())
    assert {f"end trial_{k}": 1 for k in range(4)}.items() <= log.items()
    assert [log[f"begin trial_{k}"] for k in range(4)] == [1, 1, 2, 1]
    assert (tmp_path / "torn" / "trials.csv").read_text() == (tmp_path / "whole" / "trials.csv").read_text()
    assert (tmp_path / "torn" / "best.txt").read_text() == (tmp_path / "whole" / "best.txt").read_text()


def test_the_best_trial_has_a_config_and_other_ranges_another_folder(search, refused, config, tmp_path, monkeypatch):
    lines = search("runs", "--processes=2")
    rows = [line.split(",") for line in (tmp_path / "runs" / "trials.csv").read_text().splitlines()]
    assert rows[0] == ["trial", "state", "return", "lr", "num_cells"]
    assert sorted(row[0] for row in rows[1:]) == ["0", "1", "2", "3"] and {row[1] for row in rows[1:]} == {"complete"}
    best = max(rows[1:], key=lambda row: float(row[2]))
    text = (tmp_path / "runs" / "best.txt").read_text()
    assert f"lr = {best[3]}" in text.splitlines() and "seed = 3" in text.splitlines()
    assert lines[-1] == "config: torchrl train ppo --config=runs/best.txt"
    kind, _ = sweep.load_script("ppo")
    assert load_config(sweep.parser_of(kind), tmp_path / "runs" / "best.txt").lr == float(best[3])
    message = refused("sweep", config, "--folder=runs", "--trials=4", "--seed=4", "--total_frames=64")
    assert "expected seed = 3, as it began, got seed = 4. Take another --folder" in message
    assert search("runs")[0] == "ppo, lr.txt: 4 trials, 4 ended; runs"


def test_a_trial_ends_where_it_is_below_the_median_of_five(tmp_path):
    study = Study(tmp_path, {"lr": Range(0.1, 0.2), "num_cells": Choice(("8", "16"))}, seed=0)
    for mean in range(5):
        number = study.begin().number
        assert study.goes_on(number, 1, {1: float(mean)})
        study.end(number, "complete", float(mean))
    number = study.begin().number
    assert study.goes_on(number, 1, {1: 2.5}) and not study.goes_on(number, 1, {1: 1.5})
    study.end(number, "pruned", 1.5)
    states = [(trial.state, trial.result) for trial in Study(tmp_path, {}, seed=0).trials()]
    assert states == [*(("complete", float(mean)) for mean in range(5)), ("pruned", 1.5)]


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("lr = 0.1", [], "expected a range for at least one key"),
        (SEARCHED, ["--lr=1e-3", "--num_cells", "8"], "expected a range for at least one key"),
        (SEARCHED + "record_interval = range(1, 9)", [], "expected no range for what says how a run is measured"),
        (SEARCHED, ["--seeds=0..1"], "expected flags that fit several runs, got --seeds"),
        (SEARCHED, ["--trials=0"], "--trials: expected a whole number of at least 1"),
    ],
)
def test_a_mistake_is_one_message(text, flags, message, config, refused, tmp_path):
    (tmp_path / "ppo" / "lr.txt").write_text(text)
    assert message in refused("sweep", config, *flags)
