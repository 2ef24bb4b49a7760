"""How long from the command to the solved task, against Stable-Baselines3, each run in a process of its own.

    python benchmarks/time_to_solved.py [--tasks=ppo_cartpole,dqn_cartpole] [--seeds=0,1,2] [--ours=eager,compile]

PPO on CartPole takes about two minutes on a free core and is what ``make bench`` runs; all four tasks take an hour.

Ours is the shipped command: ``examples/<algorithm>/<algorithm>.py`` with its config and nothing but ``--seed``,
``--target_return`` and ``--folder``, and with ``--compile`` once more. The first compiled run of a task on a machine
takes 10 to 20 s longer, which are its own: train once before, or count them. Theirs is ``_solved.py``, with the
same settings where they have them. What differs: our DQN is double, theirs cannot be; our commands flush denormal
numbers, write tables and TensorBoard's files, two checkpoints and a learning curve, and play 20 more episodes for the
last report; theirs keeps its best model and the returns of the evaluations.

Time is that of the whole process, from the start of the interpreter to its end. Both sides evaluate at the config's
``record_interval`` by 10 episodes without chance, and stop when their mean reaches the goal. A run that does not reach
it within the config's frames counts with all its time, and the ratio says so. One torch thread each; the sides take
turns, seed by seed. Seconds of the processor, user and system, are what is compared: they suffer less from what else
runs. Wall-clock seconds stand beside them. Needs the extras ``benchmarks`` and, for LunarLander, ``box2d``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from _solved import GOALS, Goal

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
THEIRS = "Stable-Baselines3"
KINDS = {"eager": [], "compile": ["--compile"]}


@dataclass(frozen=True)
class Run:
    """How one process ended: its seconds, the frames that it trained on, and the mean return of its best evaluation."""

    processor: float
    wall: float
    frames: int
    best: float


def timed(words: list[str], log: Path) -> tuple[float, float, str]:
    """Run a Python script and return its seconds of processor and of wall-clock, and what it printed."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | one_thread | {"PYTHONPATH": str(ROOT)}
    with log.open("w") as out:
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, *words], stdout=out, stderr=out, env=environment, cwd=log.parent)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} ended with status {child.returncode}:\n{log.read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime, wall, log.read_text()


def ours(goal: Goal, kind: str, seed: int, folder: Path) -> Run:
    """Train by the shipped command."""
    words = [
        str(ROOT / "examples" / goal.algorithm / f"{goal.algorithm}.py"),
        f"--config={ROOT / 'configs' / goal.algorithm / goal.config}.txt",
        f"--target_return={goal.target}",
        f"--seed={seed}",
        f"--folder={folder}",
        *KINDS[kind],
    ]
    processor, wall, _ = timed(words, folder / "log.txt")
    summary = json.loads(next(folder.glob("*/summary.json")).read_text())
    return Run(processor, wall, summary["frames"], summary["best_eval_return_mean"])


def theirs(name: str, seed: int, folder: Path) -> Run:
    """Train by Stable-Baselines3."""
    processor, wall, printed = timed([str(HERE / "_solved.py"), name, str(seed), str(folder)], folder / "log.txt")
    frames, best = printed.split()[-2:]
    return Run(processor, wall, int(frames), float(best))


def spread(values: list[float]) -> str:
    """Write the smallest and the largest."""
    return f"{min(values):.2f}–{max(values):.2f}"


def compare(name: str, seeds: list[int], kinds: list[str]) -> None:
    """Print one line for each run of a task, then the ratio of the means."""
    goal = GOALS[name]
    sides: dict[str, Callable[[int, Path], Run]] = {f"ours, {kind}": partial(ours, goal, kind) for kind in kinds}
    sides[THEIRS] = partial(theirs, name)
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    title = f"{goal.title} within {goal.total_frames:,}"
    print(f"\n{title:<44}{'processor':>12}{'wall':>10}{'frames':>11}")
    for number, seed in enumerate(seeds):
        for side in list(sides)[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                run = sides[side](seed, Path(folder))
            runs[side].append(run)
            missed = "" if run.best >= goal.target else f"   NOT REACHED: {run.best:.1f}"
            line = f"seed {seed}, {side}"
            print(f"{line:<44}{run.processor:>10.1f} s{run.wall:>8.1f} s{run.frames:>11,}{missed}", flush=True)
    for side in list(sides)[:-1]:
        summarise(side, goal, runs[side], runs[THEIRS])


def summarise(side: str, goal: Goal, mine: list[Run], their: list[Run]) -> None:
    """Print the ratio of the means, its range over seeds, and whether a run that missed its goal is among them."""
    pairs = list(zip(mine, their, strict=True))
    ratios = []
    for clock in ("processor", "wall"):
        means = [statistics.mean(getattr(run, clock) for run in runs) for runs in (mine, their)]
        each = [getattr(one, clock) / getattr(other, clock) for one, other in pairs]
        ratios.append(f"{clock} {means[0]:.1f} / {means[1]:.1f} s = {means[0] / means[1]:.2f} ({spread(each)})")
    missed = [sum(run.best < goal.target for run in runs) for runs in (mine, their)]
    bound = f"; goal missed by {missed[0]} of ours, {missed[1]} of theirs: their time counts, but is a bound"
    print(f"{side}: {', '.join(ratios)}; budget {goal.budget}{bound if any(missed) else ''}", flush=True)


def main() -> None:
    """Compare the tasks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", default="ppo_cartpole", help=f"of {', '.join(GOALS)}")
    parser.add_argument("--seeds", default="0,1,2", help="each trains every side once")
    parser.add_argument("--ours", default=",".join(KINDS), help="how ours is run")
    args = parser.parse_args()
    for name in args.tasks.split(","):
        compare(name, [int(seed) for seed in args.seeds.split(",")], args.ours.split(","))


if __name__ == "__main__":
    main()
