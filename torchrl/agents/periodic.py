"""The evaluations in the course of a training: when one is due, and that it is launched and taken. Logs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torchrl.agents.evaluate import Evaluator
from torchrl.agents.evaluate_beside import BesideResult, EvaluationProcess
from torchrl.envs.learned import Learned


class EvaluatedHere:
    """An :class:`Evaluator` that is used as if it were an :class:`EvaluationProcess`: its launch takes all the time.

    Args:
        evaluator: runs the episodes.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._done: BesideResult | None = None

    @property
    def is_pending(self) -> bool:
        """Whether there is a result that was not taken."""
        return self._done is not None

    def launch(
        self, policy: Callable, *, learned: Sequence[Learned], version: int, frames: int, keep: object = None
    ) -> None:
        """Evaluate; see :meth:`EvaluationProcess.launch`."""
        self._done = BesideResult(self._evaluator(policy, learned=learned), version, frames, keep)

    def poll(self) -> BesideResult | None:
        """Return the result, once; see :meth:`EvaluationProcess.poll`."""
        result, self._done = self._done, None
        return result

    take = poll

    def discard(self) -> None:
        """Forget the result."""
        self._done = None


class PeriodicEvaluation:
    """Evaluate the policy every ``evaluator.every_frames`` frames, one evaluation at a time.

    Args:
        evaluator: what evaluates; None, or one without ``every_frames``, never does.
    """

    def __init__(self, evaluator: Evaluator | EvaluationProcess | None) -> None:
        self._every = None if evaluator is None else evaluator.every_frames
        self.is_beside = isinstance(evaluator, EvaluationProcess)
        self._runner = evaluator if self.is_beside or evaluator is None else EvaluatedHere(evaluator)

    def is_due(self, frames_before: int, frames: int) -> bool:
        """Answer whether a multiple of ``every_frames`` was passed."""
        return self._every is not None and frames // self._every != frames_before // self._every

    @property
    def is_wanted(self) -> bool:
        """Whether there are any."""
        return self._every is not None

    def launch(
        self, policy: Callable, *, learned: Sequence[Learned], version: int, frames: int, keep: object
    ) -> None:
        """Begin an evaluation; see :meth:`EvaluationProcess.launch`."""
        self._runner.launch(policy, learned=learned, version=version, frames=frames, keep=keep)

    def finished(self, *, wait: bool) -> BesideResult | None:
        """Return the result of the running evaluation once it has ended; None before, or where none runs."""
        if not self.is_wanted or not self._runner.is_pending:
            return None
        return self._runner.take() if wait else self._runner.poll()

    def discard(self) -> None:
        """Drop the running evaluation and its result."""
        if self.is_wanted:
            self._runner.discard()
