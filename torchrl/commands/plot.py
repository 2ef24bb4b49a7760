"""Draw curves of runs: by task, the mean over seeds and its interval, as a picture and a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from torchrl.commands.parsing import make_parser
from torchrl.commands.runs import runs_of_seeds
from torchrl.errors import ConfigError, KeyMissing, explain
from torchrl.files import write_whole
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.config_file import read_entries
from torchrl.recipes.record import CONFIG, PROGRESS, algorithm_of
from torchrl.recipes.seeds import SeedsRecording
from torchrl.recipes.value_types import fraction
from torchrl.record import group_curves

DESCRIPTION = "Draw a metric of runs. Runs that differ by their seed alone are one group, with a mean and an interval."
SAME = {one.name for one in fields(SeedsRecording)}  # settings of seeds and logs, by which runs do not differ
SUFFIXES = (".png", ".svg", ".pdf", ".jpg")
X = {"frames": "frames", "seconds": "time/seconds"}


@dataclass(frozen=True)
class Trained:
    """What is told apart of a run: what trained it, on what, and by which settings."""

    algorithm: str
    task: str
    settings: dict[str, str]
    table: Path


def parser() -> ConfigParser:
    """Make the parser of the command.

    >>> parser().parse_args(["one", "two", "--x=seconds"]).run
    ['one', 'two']
    """
    run = "several: folders of runs, or of runs of several seeds"
    made = make_parser("plot", DESCRIPTION, run=run)
    made.add_argument("--metric", default="eval/return_mean", type=str, help="the column of progress.csv that is drawn")
    made.add_argument("--x", default="frames", choices=tuple(X), help="what it is drawn over")
    help = "share of a run's points that each point is the mean of, itself and those before it"
    made.add_argument("--smooth", default=0.0, type=fraction, help=help)
    help = "of the picture; its suffix chooses the format; none takes plot.png in the folder of the one RUN, or here"
    made.add_argument("--output", type=str, help=help)
    made.add_argument("--title", default="", type=str, help="above the panels")
    return made


def run(flags: Sequence[str]) -> None:
    """Draw runs; the last line says where picture and table lie.

    Args:
        flags: the runs, ``--metric``, ``--x``, ``--smooth``, ``--output``, ``--title``.

    Raises:
        ConfigError: a folder holds no run, a run no table, or the picture has a suffix that is none.
        KeyMissing: a run has no such metric, or no number of it.
        MissingExtraError: the extra ``plots`` is not installed.
    """
    args = parser().parse_args(flags)
    runs = [read_run(folder) for name in args.run for folder in runs_of_seeds(name) or [Path(name)]]
    groups = groups_of(runs)
    beside = Path(args.run[0]) if len(args.run) == 1 else Path()
    picture = Path(args.output) if args.output else beside / "plot.png"
    if picture.suffix not in SUFFIXES:
        raise ConfigError(explain("--output", expected=f"a name with {', '.join(SUFFIXES)}", got=repr(args.output)))
    table = picture.with_suffix(".csv")
    try:
        drawn = group_curves(groups, picture, args.metric, x=X[args.x], smooth=args.smooth, title=args.title)
    except KeyMissing as error:
        raise KeyMissing(f"--metric: {error}") from error
    with write_whole(table) as temporary:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(drawn[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(drawn)
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    for task, members in groups.items():
        for group, tables in members.items():
            last = [row for row in drawn if (row["task"], row["group"]) == (task, group)][-1]
            few = "1 run" if len(tables) == 1 else f"{len(tables)} runs, {last['low']:.1f} to {last['high']:.1f}"
            print(f"{task}, {group}: {args.metric} {last['mean']:.1f} at the end ({few})")
    print(f"picture: {picture}, its numbers: {table}")


def read_run(folder: Path) -> Trained:
    """Read what a run's folder says of it.

    Raises:
        ConfigError: it holds no run, or no table.
    """
    algorithm = algorithm_of(folder, "RUN")
    table = folder / PROGRESS
    if not table.is_file():
        hint = "Its --loggers had no csv, or it was stopped before its first line."
        raise ConfigError(explain("RUN", expected=f"a run with {PROGRESS}", got=folder, hint=hint))
    lines = (folder / CONFIG).read_text(encoding="utf-8").splitlines()
    task = re.match(r"# \w+ on ([^,]+)", lines[0])
    settings = {name: value for name, value in read_entries(lines, CONFIG).items() if name not in SAME}
    return Trained(algorithm or "run", task[1] if task else folder.name, settings, table)


def groups_of(runs: Sequence[Trained]) -> dict[str, dict[str, list[Path]]]:
    """Sort the tables of runs by task, and there by the algorithm and the settings in which they differ.

    >>> one, other = (Trained("ppo", "Cart", {"lr": lr, "gamma": "0.9"}, Path(lr)) for lr in ("0.1", "0.2"))
    >>> list(groups_of([one, other, one])["Cart"])
    ['ppo lr=0.1', 'ppo lr=0.2']
    """
    groups: dict[str, dict[str, list[Path]]] = {}
    for one in runs:
        like = [other.settings for other in runs if (other.task, other.algorithm) == (one.task, one.algorithm)]
        differing = [name for name in one.settings if len({settings.get(name) for settings in like}) > 1]
        label = " ".join([one.algorithm, *(f"{name}={one.settings[name]}" for name in differing)])
        groups.setdefault(one.task, {}).setdefault(label, []).append(one.table)
    return groups
