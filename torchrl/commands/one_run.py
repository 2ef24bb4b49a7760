"""Train one run of an algorithm in a process of its own, as its script does, and tell of its evaluations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cloudpickle

from torchrl import recipes
from torchrl.agents import Agent, Evaluation, Hook
from torchrl.commands.examples import load_script, script_of
from torchrl.commands.run_processes import Ask
from torchrl.recipes.parts import Command


class TellOfEvaluations(Hook):
    """Tell of each periodic evaluation, and end the training where the answer is not to go on.

    >>> hook = TellOfEvaluations(lambda evaluation, frames, mean: mean > 10.0)
    >>> hook.on_evaluated(agent, Evaluation(torch.tensor([8.0]), torch.tensor([8])))
    >>> agent.is_last_batch
    True

    Args:
        ask: see :class:`~torchrl.commands.run_processes.Ask`.
    """

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.num_evaluations = 0

    def on_evaluated(self, agent: Agent, result: Evaluation) -> None:
        """Tell of the evaluation, and stop the agent if it is not to go on."""
        self.num_evaluations += 1
        if not self.ask(self.num_evaluations, agent.frames, result.mean):
            agent.stop()


def train_run(folder: Path, ask: Ask, *, algorithm: str, flags: Sequence[str]) -> None:
    """Train a run in a folder that is there, and report, as the algorithm's script does.

    Args:
        folder: of the run.
        ask: is told of each periodic evaluation, and says whether to go on.
        algorithm: whose script it is.
        flags: of the script.
    """
    settings, make_agent = load_script(algorithm)
    cloudpickle.register_pickle_by_value(sys.modules[make_agent.__module__])  # worker processes cannot import it

    def make_watched(chosen: Command) -> Agent:
        agent = make_agent(chosen)
        agent.hooks = (*agent.hooks, TellOfEvaluations(ask))
        return agent

    sys.argv = [str(script_of(algorithm))]  # messages begin with its name
    recipes.run(algorithm, settings, make_watched, flags, folder=folder)
