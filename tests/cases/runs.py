"""Whole training runs by the examples, each in a process of its own, as the learning checks need them."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torchrl.record import read_csv

ROOT = Path(__file__).parents[2]
PROCESSES = 2  # runs at a time, one thread of torch each


def train(algorithm, config, seed, folder, *flags):
    """Train; return the summary and the columns of progress.csv."""
    folder.mkdir(parents=True)
    example, path = ROOT / f"examples/{algorithm}/{algorithm}.py", ROOT / f"configs/{algorithm}/{config}.txt"
    command = [sys.executable, str(example), f"--config={path}", f"--seed={seed}", "--no-progress_bar", *flags]
    subprocess.run(command, cwd=folder, check=True)
    (run,) = (folder / f"{algorithm}_logging").iterdir()
    return json.loads((run / "summary.json").read_text()), read_csv(run / "progress.csv")


def train_seeds(algorithm, config, num_seeds, folder, *flags):
    """Train with the seeds 0, 1, …; return what :func:`train` returns for each."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(lambda seed: train(algorithm, config, seed, folder / str(seed), *flags), range(num_seeds)))
