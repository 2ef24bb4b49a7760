"""Train a command's run for each of several seeds, all in one process: their folders, their curve, their report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from torchrl.agents import Agent, write_summary
from torchrl.errors import ConfigError, MissingExtraError, explain
from torchrl.population import Population
from torchrl.population.rows import reason_against
from torchrl.recipes.collectors import num_trained
from torchrl.recipes.envs import task_name
from torchrl.recipes.parts import Command, Recording
from torchrl.recipes.record import CURVE, PROGRESS, SUMMARY, make_reporter, make_summary, origin_of
from torchrl.recipes.seed_lists import seed_list
from torchrl.recipes.settings import Seeds, values_of
from torchrl.recipes.value_types import typed_names
from torchrl.record import bootstrap_interval, spread_curve

# What several runs in one process cannot each have, and why.
ALONE = {
    "num_workers": "Each seed would have processes of its own; --env_workers steps the environments of all seeds.",
    "async_collection": "All seeds collect together.",
    "keep_learning": "All seeds learn in step.",
    "evaluate_beside": "Each seed would have a process of its own.",
    "buffer_folder": "All seeds would write to one folder.",
    "resume": "Go on with one seed: --resume=RUN/seed_0.",
    "evaluate": "A run of several seeds holds a run for each: --evaluate=RUN/seed_0.",
}


@dataclass(frozen=True)
class SeedsRecording(Recording):
    """Seeds, evaluations and logs of one run, or of a run for each of several seeds.

    >>> SeedsRecording(seeds="0..7").seed
    0
    """

    seeds: Seeds | None = field(default=None, metadata={"metavar": "SEEDS"})
    """train a run for each of these seeds, as 0..7 or 0,3,5, together in one process, each with a folder of its own
    in the run's; with --compile they step as one program; torchrl seeds trains each in a process of its own instead"""


def has_seeds(settings: Command) -> bool:
    """Answer whether the command has the flag ``--seeds``."""
    return hasattr(settings.recording, "seeds")


def has_several(settings: Command) -> bool:
    """Answer whether ``--seeds`` asks for several runs."""
    return has_seeds(settings) and settings.recording.seeds is not None


def require_together(settings: Command, flags: Sequence[str]) -> None:
    """Refuse what runs of several seeds in one process cannot have.

    Args:
        settings: of the command, with ``--seeds``.
        flags: as they were typed.

    Raises:
        ConfigError: naming the flag, and what to write.
    """
    if "seed" in typed_names(flags) or settings.recording.seed != Recording.seed:
        got = f"--seed={settings.recording.seed}"
        raise ConfigError(explain("--seeds", expected="it without --seed", got=got, hint="Write one of the two."))
    defaults = {one.name: one.default for part in vars(settings).values() for one in fields(part)}
    for name, value in values_of(settings).items():
        if name in ALONE and value != defaults[name]:
            raise ConfigError(explain("--seeds", expected=f"it without --{name}", got=value, hint=ALONE[name]))


def members_of(settings: Command) -> list[Command]:
    """Return the settings of each seed's run.

    >>> several = replace(settings, recording=SeedsRecording(seeds="0,3"))
    >>> [one.recording.seed for one in members_of(several)]
    [0, 3]
    """
    recording = settings.recording
    seeds = seed_list(recording.seeds)
    return [replace(settings, recording=replace(recording, seed=seed, seeds=None)) for seed in seeds]


def make_population(settings: Command, agents: Sequence[Agent]) -> tuple[Population, list[str]]:
    """Build the population of the agents of all seeds, in one env of their rows where that can be.

    Returns:
        The population, and lines for the user that say what members do one after another.
    """
    names = [f"seed {seed}" for seed in seed_list(settings.recording.seeds)]
    reason = reason_against(agents[0].collector.env)
    lines = [] if settings.optimising.compile else ["seeds step one after another: --compile takes them as one program"]
    if reason is not None:
        lines.append(f"seeds collect one after another: of one env for all, {reason}")
        return Population(agents, names=names), lines
    env = settings.make_env(num_envs=len(agents) * settings.environment.num_envs, training=True)
    return Population(agents, env=env, names=names), lines


def announce_seeds(settings: Command, seeds: str, folder: Path) -> None:
    """Print the task, frames, seeds and folder of runs that are about to begin."""
    frames = num_trained(settings.collecting)
    task = task_name(settings.environment)
    print(f"{task}: {frames:,} frames for each of the seeds {seeds}; configuration and logs in {folder}")


def report_seeds(algorithm: str, settings: Command, agents: Sequence[Agent], folder: Path) -> dict[str, object]:
    """Evaluate each seed's agent and write its summary, then report as :func:`report_summaries` does."""
    summaries = []
    for member, agent in zip(members_of(settings), agents, strict=True):
        with closing(make_reporter(member)) as reporter:
            summaries.append(make_summary(algorithm, member, agent, reporter))
    return report_summaries(algorithm, settings, summaries, folder)


def report_summaries(
    algorithm: str, settings: Command, summaries: Sequence[dict[str, Any]], folder: Path
) -> dict[str, object]:
    """Write the summary of the runs of several seeds, draw the curves' spread, and print a table.

    Args:
        algorithm: of the runs.
        settings: of the command.
        summaries: of each run, whose folder is ``folder / "seed_0"`` for seed 0.
        folder: of all.

    Returns:
        The summary of all: means and standard deviations over the seeds, and the bootstrap interval of the mean.
    """
    recording, task = settings.recording, task_name(settings.environment)
    print(f"{task}: evaluation return over {recording.eval_episodes} episodes")
    for one in summaries:
        print(_line(f"seed {one['seed']}", one, "eval_return_mean", "eval_return_std"))
    summary = origin_of(algorithm, settings) | _joined(summaries)
    write_summary(folder / SUMMARY, summary)
    print(_line("mean ± std", summary, "eval_return_mean", "eval_return_std_of_seeds"))
    if len(summaries) > 1:
        print(
            "  95 % interval of the mean, by resampling seeds: {:.1f} to {:.1f}".format(
                *summary["eval_return_interval"]
            )
        )
    print(
        f"{summary['frames']:,} frames in {summary['seconds']:.1f} s (collecting {summary['collect_seconds']:.1f}, "
        f"optimising {summary['optimise_seconds']:.1f}, evaluating {summary['evaluate_seconds']:.1f}): "
        f"{summary['fps']:,.0f} frames per second\n"
        f"logs:        {folder}  (tensorboard --logdir {folder})"
    )
    tables = [folder / f"seed_{one['seed']}" / PROGRESS for one in summaries]
    if tables := [path for path in tables if path.is_file()]:
        _draw(tables, folder / CURVE, title=f"{task}, {len(summaries)} seeds")
    return summary


def _line(name: str, summary: dict, mean: str, std: str) -> str:
    best = f"best checkpoint {summary['best_eval_return_mean']:8.1f}"
    return f"  {name:<12}{summary[mean]:8.1f} ± {summary[std]:<8.1f}{best}   {summary['frames']:,} frames"


def _joined(summaries: Sequence[dict]) -> dict[str, object]:
    """Return means and deviations of the seeds' returns, and sums of their frames and seconds."""
    columns = {name: [summary[name] for summary in summaries] for name in summaries[0]}
    means = {name: fmean(columns[name]) for name in ("eval_return_mean", "best_eval_return_mean")}
    deviations = {"eval_return_std_of_seeds": pstdev(columns["eval_return_mean"])}
    deviations["best_eval_return_std_of_seeds"] = pstdev(columns["best_eval_return_mean"])
    if len(summaries) > 1:
        deviations["eval_return_interval"] = [float(end) for end in bootstrap_interval(columns["eval_return_mean"])]
    names = ("frames", "seconds", "collect_seconds", "optimise_seconds", "evaluate_seconds")
    sums = {name: sum(columns[name]) for name in names}
    spent = sums["collect_seconds"] + sums["optimise_seconds"]
    speed = {"fps": sums["frames"] / spent if spent else math.nan}
    seeds = {"seeds": columns["seed"], "eval_returns": columns["eval_return_mean"]}
    return seeds | means | deviations | sums | speed


def _draw(tables: Sequence[Path], path: Path, title: str) -> None:
    try:
        spread_curve(tables, path, title=title)
    except MissingExtraError as error:
        print(f"curve:       not drawn. {error}")
    else:
        print(f"curve:       {path}")
