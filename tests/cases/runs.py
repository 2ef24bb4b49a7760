"""Whole training runs by the examples, each in a process of its own, as the learning checks need them."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import mean

from cases.examples import load, settings_of
from torchrl.modules import ExplorationType, set_exploration_type
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


def success_rate(folder, num_episodes=100, num_steps=50):
    """Return the share of a saved SAC run's episodes, all of one length, whose last step is at the goal: reward 0."""
    settings = settings_of("sac", f"--config={folder / 'config.txt'}")
    with closing(load("sac").make_agent(settings)) as agent:
        agent.load_networks(folder / "last.pt")
        env = settings.make_env(num_envs=10, training=False)
        env.set_seed(2**20)
        with closing(env), set_exploration_type(ExplorationType.DETERMINISTIC):
            batches = [env.rollout(num_steps, agent.policy) for _ in range(num_episodes // 10)]
    assert all(batch["next", "done"][:, -1].all() for batch in batches)
    return mean((batch["next", "reward"][:, -1] == 0).float().mean().item() for batch in batches)
