"""PPO reaches known scores: `make learn`, minutes to an hour; curves and commands are kept in docs/results.md."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

import pytest

from torchrl.record import read_csv

ROOT = Path(__file__).parents[2]
PROCESSES = 2  # runs at a time, one thread of torch each

pytestmark = pytest.mark.learn


def train(config, seed, folder, *flags):
    """Train in a process of its own; return the summary and the columns of progress.csv."""
    folder.mkdir(parents=True)
    command = [sys.executable, str(ROOT / "examples/ppo/ppo.py"), f"--config={ROOT}/configs/ppo/{config}.txt"]
    subprocess.run([*command, f"--seed={seed}", "--no-progress_bar", *flags], cwd=folder, check=True)
    (run,) = (folder / "ppo_logging").iterdir()
    return json.loads((run / "summary.json").read_text()), read_csv(run / "progress.csv")


def train_seeds(config, seeds, folder, *flags):
    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(lambda seed: train(config, seed, folder / str(seed), *flags), seeds))


def test_cartpole_is_solved_by_five_of_five_seeds(tmp_path):
    runs = train_seeds("cartpole", range(5), tmp_path)
    for summary, _ in runs:
        assert summary["frames"] <= 100_352  # 100,000 rounded up to whole batches
        assert summary["eval_return_mean"] >= 475
        assert summary["collect_seconds"] + summary["optimise_seconds"] < 60


@pytest.mark.timeout(7200)
def test_halfcheetah_reaches_3000_within_a_million_frames(tmp_path):
    runs = train_seeds("halfcheetah", range(3), tmp_path)
    assert mean(summary["eval_return_mean"] for summary, _ in runs) >= 3000


@pytest.mark.timeout(7200)
def test_dm_control_cheetah_rises_within_a_million_frames(tmp_path):
    summary, table = train("cheetah", 0, tmp_path / "0")
    returns = [value for value in table["train/episode_return"] if value == value]
    early, late = mean(returns[:10]), mean(returns[-10:])
    assert late > 4 * early and summary["eval_return_mean"] > 100
