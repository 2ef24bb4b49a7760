"""What every example does with its flags: train, go on, or evaluate a saved run. The parts are the example's own."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import torch

from torchrl.agents import Agent
from torchrl.modules import ExplorationType, set_exploration_type
from torchrl.recipes.config import ConfigParser, exit_on_mistake
from torchrl.recipes.observations import describe_observations
from torchrl.recipes.record import (
    announce,
    make_logger,
    make_reporter,
    make_run_folder,
    report,
    report_saved,
    resume,
    take_over,
    with_saved_config,
)
from torchrl.recipes.sense import remarks, remarks_on_env, require_sense


def run(
    algorithm: str,
    parser: ConfigParser,
    make_agent: Callable[[Namespace], Agent],
    flags: Sequence[str] | None = None,
) -> None:
    """Train and report, or evaluate the run that ``--evaluate`` names; a user's mistake is one message and status 2.

    Args:
        algorithm: names the folder of the runs, ``<algorithm>_logging``.
        parser: with the flags of every part.
        make_agent: builds the agent from the parsed flags.
        flags: of the command line; None takes those of the process.
    """
    with exit_on_mistake(), _plain_warnings():
        flags = sys.argv[1:] if flags is None else flags
        args = with_saved_config(parser, flags, algorithm)
        require_sense(args, flags)
        torch.set_num_threads(args.num_threads)
        # Adam's averages of a unit that died fade into numbers below 1e-38, on which a CPU computes very slowly: after
        # 3,000 frames of SAC they were 28 % of all, and every update took 0.8 ms longer.
        torch.set_flush_denormal(True)
        reporter = make_reporter(args)
        notes = remarks(args, parser, flags)
        if args.evaluate:
            print(*notes, sep="\n", end="\n" if notes else "")
            with closing(make_agent(_in_one_process(args))) as agent:
                report_saved(agent, reporter, args.evaluate)
            return
        with closing(make_agent(args)) as agent:
            agent.configuration = vars(args)
            if args.resume:
                resume(args, agent)
            agent.folder = make_run_folder(algorithm, args)
            if args.resume:
                take_over(args, agent)
            agent.logger = make_logger(args, agent.folder)
            announce(args, agent.folder)
            if (sight := describe_observations(args, reporter.env)) is not None:
                print(sight)
            notes += remarks_on_env(args, parser, reporter.env)
            print(*notes, sep="\n", end="\n" if notes else "")
            with agent.logger, set_exploration_type(ExplorationType[args.exploration_type.upper()]):
                agent.train()
            report(algorithm, args, agent, reporter)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print a warning to the user as one line, without the line of the source that it comes from."""
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> str:
        is_ours = category is UserWarning
        return f"warning: {message}\n" if is_ours else usual(message, category, *place, **options)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _in_one_process(args: Namespace) -> Namespace:
    """Leave out the processes of a run that is only to be evaluated."""
    alone = {"num_workers": 0, "env_workers": 0, "on_worker_failure": "raise", "evaluate_beside": False}
    alone |= {name: False for name in ("async_collection", "keep_learning") if name in args}
    return Namespace(**{**vars(args), **alone, "collection_devices": args.collection_devices[:1]})
