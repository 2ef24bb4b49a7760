"""Evaluate a run's last and best checkpoint: mean, std and interval of the mean over episodes.

The folder of a run of several seeds gives those of each, and of the means of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev

from torchrl.agents import Evaluation
from torchrl.commands.parsing import make_parser
from torchrl.commands.runs import open_saved, runs_of_seeds
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.record import saved_run
from torchrl.recipes.saved import interval_text, report_saved
from torchrl.recipes.value_types import non_negative_int, positive_int

DESCRIPTION = "Play whole episodes with the last and the best checkpoint of a run, from the same starts for both."


def parser() -> ConfigParser:
    """Make the parser of the command.

    >>> parser().parse_args(["ppo_logging/one", "--episodes=5"]).episodes
    5
    """
    run = "the folder of a run, of a run of several seeds, or one checkpoint, RUN/best.pt"
    made = make_parser("evaluate", DESCRIPTION, run=run)
    made.add_argument("--episodes", type=positive_int, help="how many; none takes those of the run's last report")
    made.add_argument("--seed", type=non_negative_int, help="of the episodes' starts; none takes the run's")
    return made


def run(flags: Sequence[str]) -> None:
    """Evaluate a run and print the results; the last line names the checkpoints.

    Args:
        flags: the run, ``--episodes``, ``--seed``.

    Raises:
        ConfigError: there is no such run.
        CheckpointError: it has no checkpoint that can be read.
    """
    args = parser().parse_args(flags)
    given = {"eval_episodes": args.episodes, "seed": args.seed}
    given = [f"--{name}={value}" for name, value in given.items() if value is not None]
    seeds, results = runs_of_seeds(args.run), {}
    for folder in seeds or [args.run]:
        if seeds:
            print(f"{folder.name}:")
        with open_saved(folder, *given) as (settings, agent, reporter):
            results[folder] = report_saved(settings, agent, reporter)
    if seeds:
        _print_joined(list(results.values()))
    names = dict.fromkeys(name for result in results.values() for name in result)
    folder = Path(args.run, "seed_*") if seeds else saved_run(args.run)[0]
    print(f"checkpoints: {', '.join(str(folder / name) for name in names)}")


def _print_joined(results: Sequence[dict[str, Evaluation]]) -> None:
    """Print mean, deviation and interval of the means of several seeds, for each checkpoint that all of them have."""
    print(f"{len(results)} seeds:")
    for name in results[0]:
        means = [result[name].mean for result in results if name in result]
        if len(means) == len(results):
            print(f"{name}: return {fmean(means):.1f} ± {pstdev(means):.1f} over seeds{interval_text(means)}")
