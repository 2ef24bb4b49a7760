"""Join the evaluations of several runs into `docs/curves/<name>.csv` and draw them into `docs/pictures/<name>.png`.

    python docs/curves.py ppo_acrobot "PPO, Acrobot-v1" ppo_logging/Acrobot-v1_*

Each argument after the title is the folder of a run; its seed is read from its summary.
"""

import csv
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

from torchrl.record import read_csv

DOCS = Path(__file__).parent


def evaluations(run: Path) -> list[tuple[int, int, float, float]]:
    """List seed, frames, mean return and its deviation of every evaluation of a run."""
    seed, table = json.loads((run / "summary.json").read_text())["seed"], read_csv(run / "progress.csv")
    columns = (table[name] for name in ("frames", "eval/return_mean", "eval/return_std"))
    return [(seed, int(frames), mean, std) for frames, mean, std in zip(*columns, strict=True) if mean == mean]


def main(name: str, title: str, *folders: str) -> None:
    """Write the table and the picture."""
    runs = sorted((evaluations(Path(folder)) for folder in folders), key=lambda run: run[0])
    with (DOCS / "curves" / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "frames", "eval_return_mean", "eval_return_std"])
        writer.writerows((seed, frames, f"{mean:.2f}", f"{std:.2f}") for run in runs for seed, frames, mean, std in run)
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        seeds, frames, means, stds = zip(*run, strict=True)
        (line,) = axes.plot(frames, means, label=f"seed {seeds[0]}")
        low, high = ([mean + sign * std for mean, std in zip(means, stds, strict=True)] for sign in (-1, 1))
        axes.fill_between(frames, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set(title=title, xlabel="frames", ylabel="evaluation return")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "pictures" / f"{name}.png", dpi=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
