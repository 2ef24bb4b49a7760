"""The hook that evaluates in the course of a training, here or in a process beside it. It logs and saves nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torchrl.agents.evaluate_beside import BesideResult
from torchrl.agents.hooks import BatchReport, Hook
from torchrl.agents.parts import LaunchedMeasure, Measure, has

if TYPE_CHECKING:
    from torchrl.agents.agent import Agent


class PeriodicEvaluation(Hook):
    """Evaluate when a batch reaches or passes a multiple of ``agent.evaluator.every_frames``, and after the last.

    An :class:`EvaluationProcess` measures while training goes on, one evaluation at a time. Where the next one is due
    before the last is finished, the agent waits for it, so that which weights are measured does not depend on the
    machine's speed; that time counts under ``evaluate``. A result is logged over the frames of its launch, and
    ``best.pt`` is the agent as it was then. The last evaluation is waited for when training ends; Ctrl-C, an error and
    a loaded checkpoint drop one that is not finished, and a checkpoint knows nothing of it.
    """

    def __init__(self) -> None:
        self._evaluator: Measure | None = None
        self._is_beside = False

    def on_train_start(self, agent: Agent) -> None:
        """Take the agent's evaluator, but not one whose ``every_frames`` is None: it evaluates on demand alone."""
        is_periodic = agent.evaluator is not None and agent.evaluator.every_frames is not None
        self._evaluator = agent.evaluator if is_periodic else None
        self._is_beside = has(self._evaluator, LaunchedMeasure)

    def on_batch_end(self, agent: Agent, report: BatchReport) -> None:
        """Report an evaluation beside training that has ended; begin another evaluation if one is due."""
        if self._evaluator is None:
            return
        self._take(agent, report, wait=False)
        is_due = report.passes_multiple_of(self._evaluator.every_frames) or agent.is_last_batch
        if not is_due or agent.is_interrupted:
            return
        self._take(agent, report, wait=True)
        with agent.measured("evaluate"):
            result = self._begin(agent)
        if result is not None:
            _add(agent, report, result)
        self._take(agent, report, wait=agent.is_last_batch)

    def on_train_end(self, agent: Agent) -> None:
        """Drop the evaluation under way."""
        self.discard()

    def discard(self) -> None:
        """Drop the evaluation under way, which is of weights that the agent has no longer."""
        if self._is_beside:
            self._evaluator.discard()

    def _begin(self, agent: Agent) -> BesideResult | None:
        """Evaluate here and return the result, or launch an evaluation beside training and return None."""
        learned, version = agent.collector.learned_states(), agent.collector.policy_version
        if not self._is_beside:
            return BesideResult(self._evaluator(agent.policy, learned=learned), version, agent.frames)
        state = None if agent.folder is None else copy.deepcopy(agent.state_dict())  # to be saved if it is the best
        self._evaluator.launch(agent.policy, learned=learned, version=version, frames=agent.frames, keep=state)
        return None

    def _take(self, agent: Agent, report: BatchReport, *, wait: bool) -> None:
        """Add the evaluation under way to the report if it is finished, or wait until it is."""
        if not self._is_beside or not self._evaluator.is_pending:
            return
        with agent.measured("evaluate"):
            result = self._evaluator.take() if wait else self._evaluator.poll()
        if result is not None:
            _add(agent, report, result)


def _add(agent: Agent, report: BatchReport, result: BesideResult) -> None:
    agent.tell("on_evaluated", result.evaluation)
    report.results.append(result)
