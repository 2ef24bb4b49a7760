import json
import re
from statistics import fmean

import numpy as np
import pytest

from torchrl.record import bootstrap_interval


def numbers(line):
    return [float(text) for text in re.findall(r"-?\d+\.\d|\d+(?= episodes)", line)]


def test_it_prints_mean_std_and_interval_of_both_checkpoints(torchrl, saved_run):
    lines = torchrl("evaluate", str(saved_run), "--episodes=4")
    assert [line.partition(":")[0] for line in lines] == ["last.pt", "best.pt", "checkpoints"]
    mean, std, episodes, low, high = numbers(lines[0])
    assert episodes == 4 and low <= mean <= high and (std == 0) == (low == high)
    assert lines[-1] == "checkpoints: run/last.pt, run/best.pt"


def test_without_flags_it_repeats_the_last_report(torchrl, saved_run):
    summary = json.loads((saved_run / "summary.json").read_text())
    lines = torchrl("evaluate", str(saved_run))
    assert numbers(lines[0])[:3] == [round(summary[f"eval_return_{name}"], 1) for name in ("mean", "std")] + [2]
    assert numbers(lines[1])[0] == round(summary["best_eval_return_mean"], 1)


def test_other_starts_come_by_a_seed(torchrl, saved_run):
    lines = [torchrl("evaluate", f"{saved_run}/last.pt", "--episodes=3", f"--seed={seed}") for seed in (0, 1, 1)]
    assert len(lines[0]) == 2 and lines[1] == lines[2]


def test_several_seeds_are_joined(torchrl, saved_seeds):
    lines = torchrl("evaluate", str(saved_seeds), "--episodes=2")
    means = {name: [numbers(line)[0] for line in lines if line.startswith(name)] for name in ("last.pt", "best.pt")}
    assert [line for line in lines if line.endswith(":")] == ["seed_0:", "seed_2:", "seed_10:", "3 seeds:"]
    for name, (*each, joined) in means.items():
        assert len(each) == 3 and joined == pytest.approx(fmean(each), abs=0.06)
        (line,) = (line for line in lines[lines.index("3 seeds:") :] if line.startswith(name))
        assert numbers(line)[2:] == pytest.approx(np.array(bootstrap_interval(each)), abs=0.06)
    assert lines[-1] == "checkpoints: runs/seed_*/last.pt, runs/seed_*/best.pt"


def test_a_mistake_is_one_message(refused, saved_run, saved_seeds):
    message = refused("evaluate", ".")
    assert "RUN: expected the folder of a run, got no config.txt. The newest run in . is run" in message
    assert "RUN" in refused("evaluate")
    assert "--episodes" in refused("evaluate", str(saved_run), "--episodes=0")
    (saved_run / "last.pt").unlink()
    (saved_run / "best.pt").unlink()
    assert "neither in run" in refused("evaluate", str(saved_run))
    (saved_run / "config.txt").write_text("# mine on CartPole-v1\n")
    assert "expected one of a2c, ddpg" in refused("evaluate", str(saved_run))
    (saved_run / "config.txt").write_text("lr = 1\n")
    assert "config.txt that begins with its algorithm" in refused("evaluate", str(saved_run))
