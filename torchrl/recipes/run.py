"""Run an example by its settings: train from the beginning, resume a saved run, or evaluate one."""

from __future__ import annotations

import atexit
import gc
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from torchrl.agents import Agent, Evaluator
from torchrl.deploy import export_onnx
from torchrl.errors import exit_on_mistake
from torchrl.modules import ExplorationType, set_exploration_type
from torchrl.recipes.observations import describe_observations
from torchrl.recipes.parts import Command
from torchrl.recipes.record import (
    announce,
    make_logger,
    make_reporter,
    make_run_folder,
    make_seed_folder,
    report,
    report_saved,
    resume,
    take_over,
    with_saved_config,
)
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
    """
    # When the interpreter ends, Python searches all that was imported for garbage, several times: 0.9 s. By then runs
    # are written and processes ended, so that it need not search.
    atexit.register(gc.freeze)
    with exit_on_mistake(), _plain_warnings():
        flags = sys.argv[1:] if flags is None else flags
        args = with_saved_config(parser_of(settings), flags, algorithm)
        chosen = from_flags(settings, args)
        if has_several(chosen):
            _train_seeds(algorithm, chosen, make_agent, flags)
        elif args.evaluate:
            _evaluate(settings, args, make_agent, flags)
        else:
            _train(algorithm, chosen, make_agent, flags)


def _evaluate(
    settings: type[Command], args: Namespace, make_agent: Callable[[Command], Agent], flags: Sequence[str]
) -> None:
    """Evaluate a saved run in this process, without the worker processes of its configuration."""
    alone = {"num_workers": 0, "env_workers": 0, "on_worker_failure": "raise", "evaluate_beside": False}
    alone |= {name: False for name in ("async_collection", "keep_learning") if name in args}
    alone |= {"collection_devices": args.collection_devices[:1]}
    chosen = from_flags(settings, vars(args) | alone)
    require_sense(chosen, flags)
    reporter = _prepare(chosen)
    _print_lines(remarks(chosen, flags))
    with closing(make_agent(chosen)) as agent:
        report_saved(chosen, agent, reporter)
        if chosen.recording.export:
            _export(chosen.recording.export, agent, reporter)


def _export(path: str, agent: Agent, reporter: Evaluator) -> None:
    """Write the policy of the checkpoint that was evaluated last, the best, as ONNX where the suffix says so."""
    write = partial(export_onnx, agent) if Path(path).suffix == ".onnx" else agent.save_policy
    write(path, env=reporter.env)
    print(f"the policy is in {path}")


def _train(algorithm: str, settings: Command, make_agent: Callable[[Command], Agent], flags: Sequence[str]) -> None:
    """Train from the beginning, or from the checkpoint of the run that ``--resume`` names, and report."""
    require_sense(settings, flags)
    reporter = _prepare(settings)
    recording = settings.recording
    with closing(make_agent(settings)) as agent:
        agent.configuration = values_of(settings)
        if recording.resume:
            resume(settings, agent)
        agent.folder = make_run_folder(algorithm, settings)
        if recording.resume:
            take_over(recording, agent)
        agent.logger = make_logger(recording, agent.folder)
        announce(settings, agent.folder)
        sight = describe_observations(settings.environment, reporter.env)
        _print_lines([] if sight is None else [sight])
        _print_lines([*remarks(settings, flags), *remarks_on_env(settings, reporter.env)])
        with agent.logger, set_exploration_type(ExplorationType[settings.collecting.exploration_type.upper()]):
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
        announce_seeds(settings, folder)
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
    """Set torch's number of threads, let it flush denormal numbers to 0, and build the evaluator of the last report."""
    torch.set_num_threads(settings.optimising.num_threads)
    # Adam's averages of a unit that died fade into numbers below 1e-38, on which a CPU computes very slowly: after
    # 3,000 frames of SAC they were 28 % of all, and every update took 0.8 ms longer.
    torch.set_flush_denormal(True)
    return make_reporter(settings)


def _print_lines(lines: Sequence[str]) -> None:
    print(*lines, sep="\n", end="\n" if lines else "")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings raised in a ``with`` block as one line each, without file name and source line."""
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> str:
        is_ours = category is UserWarning
        return f"warning: {message}\n" if is_ours else usual(message, category, *place, **options)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual
