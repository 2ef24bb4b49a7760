"""Runs of a line or two, in the place of trainings, for the commands that start several. Imports no torch."""

import json
import os
import signal
import time

from fakes import FOREVER_S


def evaluated(folder, ask, *, returns):
    """Tell of one evaluation after the other, until not to go on; write how many there were."""
    number = 0
    for number, mean in enumerate(returns, start=1):
        if not ask(number, 100 * number, mean):
            break
    print(f"{number} evaluations", flush=True)
    (folder / "done.txt").write_text(str(number))


def failing(folder, ask):
    print("all is well\nppo.py: --lr: expected a number above 0\n")
    raise SystemExit(2)


def killed(folder, ask):
    os.kill(os.getpid(), signal.SIGKILL)


def endless(folder, ask):
    ask(1, 100, 0.0)
    time.sleep(FOREVER_S)


def train_seed(folder, ask, *, algorithm, flags):
    """Write what a run writes whose returns are its seed; seed 1 fails."""
    seed = int(flags[-1].removeprefix("--seed="))
    if seed == 1:
        raise SystemExit("it broke")
    ask(1, 100, float(seed))
    (folder / "progress.csv").write_text(f"frames,eval/return_mean\n100,{seed}\n")
    numbers = {name: float(seed) for name in ("eval_return_mean", "eval_return_std", "best_eval_return_mean")}
    seconds = dict.fromkeys(("seconds", "collect_seconds", "optimise_seconds", "evaluate_seconds"), 1.0)
    (folder / "summary.json").write_text(json.dumps({"seed": seed, "frames": 100} | numbers | seconds))


def train_trial(folder, ask, *, algorithm, flags):
    """Write what a trial writes whose return is its lr; trial 2 goes on for ever where there is a file ``hang``."""
    lr = next(float(flag.removeprefix("--lr=")) for flag in flags if flag.startswith("--lr="))
    with (folder.parent / "log.txt").open("a") as log:
        print("begin", folder.name, file=log, flush=True)
        goes_on = ask(1, 100, lr)
        if folder.name == "trial_2" and (folder.parent / "hang").exists():
            print("sleep", folder.name, file=log, flush=True)
            time.sleep(FOREVER_S)
        (folder / "config.txt").write_text(f"# ppo on toy\nlr = {lr}\nseed = 3\nnum_cells = 8 8\n")
        state = "complete" if goes_on else "pruned"
        (folder / "trial.json").write_text(json.dumps({"state": state, "return": lr, "frames": 100}))
        print("end", folder.name, file=log, flush=True)
