"""Saved runs for the commands that look at one: its algorithm, its agent, and the runs of several seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchrl.agents import Agent, Evaluator
from torchrl.commands.examples import load_script
from torchrl.errors import ConfigError, explain
from torchrl.recipes.parts import Command
from torchrl.recipes.record import CONFIG, algorithm_of, saved_run, with_saved_config
from torchrl.recipes.saved import open_run
from torchrl.recipes.settings import parser_of


def runs_of_seeds(folder: str | Path) -> list[Path]:
    """Return the folders of the runs that ``--seeds`` made in a folder, by seed; there are none in one of one run."""
    runs = [path.parent for path in Path(folder).glob(f"seed_*/{CONFIG}")]
    return sorted(runs, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])


@contextmanager
def open_saved(run: str | Path, *flags: str) -> Iterator[tuple[Command, Agent, Evaluator]]:
    """Build the agent of a saved run; see :func:`torchrl.recipes.saved.open_run`.

    Args:
        run: the folder of the run, or one of its checkpoints.
        flags: of the algorithm's script, which go before the saved ones.

    Yields:
        The settings, the agent and the evaluator of the last report.

    Raises:
        ConfigError: there is no such run, or it is one of several seeds.
    """
    if seeds := runs_of_seeds(run):
        raise ConfigError(explain("RUN", expected="the run of one seed", got=run, hint=f"The first is {seeds[0]}."))
    algorithm = algorithm_of(saved_run(run)[0], "RUN")
    if algorithm is None:
        raise ConfigError(explain("RUN", expected=f"a {CONFIG} that begins with its algorithm", got="another line"))
    settings, make_agent = load_script(algorithm)
    flags = [f"--evaluate={run}", *flags]
    args = with_saved_config(parser_of(settings), flags, algorithm)
    with open_run(settings, args, make_agent, flags) as opened:
        yield opened
