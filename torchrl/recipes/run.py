"""Run an example by its settings: train from the beginning, resume a saved run, or evaluate one."""

from __future__ import annotations

import atexit
import gc
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from torchrl.agents import Agent, Evaluator
from torchrl.errors import exit_on_mistake, plain_warnings
from torchrl.modules import ExplorationType, set_exploration_type
from torchrl.recipes.loggers import make_logger
from torchrl.recipes.observations import describe_observations
from torchrl.recipes.parts import Command
from torchrl.recipes.record import (
    announce,
    make_reporter,
    make_run_folder,
    make_seed_folder,
    report,
    with_saved_config,
)
from torchrl.recipes.resume import resume, take_over
from torchrl.recipes.saved import export_policy, open_run, prepare_torch, report_saved
from torchrl.recipes.seeds import (
    announce_seeds,
    has_several,
    make_population,
    members_of,
    report_seeds,
    require_together,
)
from torchrl.recipes.sense import remarks, remarks_on_env, require_sense
from torchrl.recipes.settings import from_flags, parser_of, values_of


def run(
    algorithm: str,
    settings: type[Command],
    make_agent: Callable[[Command], Agent],
    flags: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
) -> None:
    """Run a command: parse flags, then train and report, or evaluate a saved run; exit with status 2 on user mistakes.

    >>> try:
    ...     run("a2c", type(settings), None, ["--lr=fast"])
    ... except SystemExit as ended:
    ...     ended.code
    2

    Args:
        algorithm: names the folder of the runs, ``<algorithm>_logging``.
        settings: the dataclass of the command's settings.
        make_agent: builds the agent from them.
        flags: of the command line; None takes those of the process.
        folder: of the run that is trained; None makes one by ``--folder``, ``--name`` and the time.
    """
    # When the interpreter ends, Python searches all that was imported for garbage, several times: 0.9 s. By then runs
    # are written and processes ended, so that it need not search.
    atexit.register(gc.freeze)
    with exit_on_mistake(), plain_warnings():
        flags = sys.argv[1:] if flags is None else flags
        args = with_saved_config(parser_of(settings), flags, algorithm)
        chosen = from_flags(settings, args)
        if has_several(chosen):
            _train_seeds(algorithm, chosen, make_agent, flags)
        elif args.evaluate:
            _evaluate(settings, args, make_agent, flags)
        else:
            _train(algorithm, chosen, make_agent, flags, folder)


def _evaluate(
    settings: type[Command], args: Namespace, make_agent: Callable[[Command], Agent], flags: Sequence[str]
) -> None:
    """Evaluate a saved run, and export the policy of the checkpoint that was evaluated last, the best."""
    with open_run(settings, args, make_agent, flags) as (chosen, agent, reporter):
        report_saved(chosen, agent, reporter)
        if chosen.recording.export:
            export_policy(chosen.recording.export, agent, reporter.env)


def _train(
    algorithm: str,
    settings: Command,
    make_agent: Callable[[Command], Agent],
    flags: Sequence[str],
    folder: Path | None,
) -> None:
    """Train from the beginning, or from the checkpoint of the run that ``--resume`` names, and report."""
    require_sense(settings, flags)
    reporter = _prepare(settings)
    recording = settings.recording
    with closing(make_agent(settings)) as agent:
        agent.configuration = values_of(settings)
        source = resume(settings, agent) if recording.resume else None
        fill = None if source is None else partial(take_over, recording, agent, source)
        agent.folder = make_run_folder(algorithm, settings, folder, fill=fill)
        agent.logger = make_logger(recording, agent.folder)
        announce(settings, agent.folder)
        sight = describe_observations(settings.environment, reporter.env)
        _print_lines([] if sight is None else [sight])
        _print_lines([*remarks(settings, flags), *remarks_on_env(settings, reporter.env)])
        with agent.logger:
            agent.logger.log_config(agent.configuration)
            with set_exploration_type(ExplorationType[settings.collecting.exploration_type.upper()]):
                agent.train()
            report(algorithm, settings, agent, reporter)


def _train_seeds(
    algorithm: str, settings: Command, make_agent: Callable[[Command], Agent], flags: Sequence[str]
) -> None:
    """Train a run for each of several seeds, all together, and report."""
    require_together(settings, flags)
    require_sense(settings, flags)
    with closing(_prepare(settings)) as reporter, ExitStack() as stack:
        members = members_of(settings)
        agents = [stack.enter_context(closing(make_agent(one))) for one in _with_one_bar(members)]
        population, lines = make_population(settings, agents)
        stack.enter_context(closing(population))
        folder = make_run_folder(algorithm, settings)
        for member, agent in zip(members, agents, strict=True):
            agent.configuration = values_of(member)
            agent.folder = make_seed_folder(algorithm, member, folder)
            agent.logger = stack.enter_context(make_logger(member.recording, agent.folder))
            agent.logger.log_config(agent.configuration)
        announce_seeds(settings, settings.recording.seeds, folder)
        sight = describe_observations(settings.environment, reporter.env)
        lines += [] if sight is None else [sight]
        _print_lines([*lines, *remarks(settings, flags), *remarks_on_env(settings, reporter.env)])
        with set_exploration_type(ExplorationType[settings.collecting.exploration_type.upper()]):
            population.train()
        report_seeds(algorithm, settings, agents, folder)


def _with_one_bar(members: Sequence[Command]) -> list[Command]:
    """Return the settings of all seeds, of which the first alone shows its progress."""
    others = [replace(one, recording=replace(one.recording, progress_bar=False)) for one in members[1:]]
    return [members[0], *others]


def _prepare(settings: Command) -> Evaluator:
    """Set torch up, and build the evaluator of the last report."""
    prepare_torch(settings)
    return make_reporter(settings)


def _print_lines(lines: Sequence[str]) -> None:
    print(*lines, sep="\n", end="\n" if lines else "")
