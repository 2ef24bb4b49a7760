"""Train one run of an algorithm in a process of its own, as its script does, and tell of its evaluations."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cloudpickle

from torchrl import recipes
from torchrl.agents import Agent, Evaluation, Hook, write_summary
from torchrl.commands.examples import load_script, script_of
from torchrl.commands.run_processes import Ask
from torchrl.recipes.parts import Command
from torchrl.recipes.record import SUMMARY

RESULT = "trial.json"


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
        self.num_evaluations, self.is_ended = 0, False

    def on_evaluated(self, agent: Agent, result: Evaluation) -> None:
        """Tell of the evaluation, and stop the agent if it is not to go on."""
        self.num_evaluations += 1
        if not self.ask(self.num_evaluations, agent.frames, result.mean):
            self.is_ended = True
            agent.stop()


def train_run(folder: Path, ask: Ask, *, algorithm: str, flags: Sequence[str]) -> bool:
    """Train a run in a folder that is there, and report; return whether ``ask`` ended it.

    Args:
        folder: of the run.
        ask: is told of each periodic evaluation, and says whether to go on.
        algorithm: whose script it is.
        flags: of the script.
    """
    settings, make_agent = load_script(algorithm)
    cloudpickle.register_pickle_by_value(sys.modules[make_agent.__module__])  # worker processes cannot import it

    tell = TellOfEvaluations(ask)

    def make_watched(chosen: Command) -> Agent:
        agent = make_agent(chosen)
        agent.hooks = (*agent.hooks, tell)
        return agent

    sys.argv = [str(script_of(algorithm))]  # messages begin with its name
    recipes.run(algorithm, settings, make_watched, flags, folder=folder)
    return tell.is_ended


def train_trial(folder: Path, ask: Ask, *, algorithm: str, flags: Sequence[str]) -> None:
    """Train a run as :func:`train_run` does, and write what a sweep reads of it, whole, when it has ended."""
    is_pruned = train_run(folder, ask, algorithm=algorithm, flags=flags)
    summary = json.loads((folder / SUMMARY).read_text())
    result = {"state": "pruned" if is_pruned else "complete", "return": summary["best_eval_return_mean"]}
    write_summary(folder / RESULT, result | {"frames": summary["frames"]})
