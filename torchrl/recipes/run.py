"""What every example does with its flags: train, go on, or evaluate a saved run. The parts are the example's own."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from torchrl.agents import Agent
from torchrl.recipes.config import ConfigParser, exit_on_mistake
from torchrl.recipes.record import (
    announce,
    make_logger,
    make_reporter,
    make_run_folder,
    report,
    report_saved,
    resume,
    with_saved_config,
)


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
    with exit_on_mistake():
        args = with_saved_config(parser, sys.argv[1:] if flags is None else flags)
        torch.set_num_threads(args.num_threads)
        reporter = make_reporter(args)
        agent = make_agent(args)
        agent.configuration = vars(args)
        if args.evaluate:
            report_saved(agent, reporter, Path(args.evaluate))
            return
        if args.resume:
            resume(args, agent)
        agent.folder = make_run_folder(algorithm, args)
        agent.logger = make_logger(agent.folder)
        announce(args, agent.folder)
        with agent.logger:
            agent.train()
        report(args, agent, reporter)
