"""The hooks by which an agent writes its log and its checkpoints. They measure nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchrl.agents.checkpoint import save_checkpoint
from torchrl.agents.evaluate_beside import BesideResult
from torchrl.agents.hooks import BatchReport, Hook
from torchrl.agents.pace import Pace, final_frames, gpu_memory_gb
from torchrl.agents.statistics import Figures, MeanMetrics

if TYPE_CHECKING:
    from torchrl.agents.agent import Agent

LAST, BEST = "last.pt", "best.pt"


class Log(Hook):
    """Log evaluations, and the means of figures over every ``agent.log_interval`` frames, to ``agent.logger``.

    A line is written too where an evaluation has ended, and after the last batch. An evaluation beside training is
    logged over the frames of its launch. An agent without a logger writes nothing.

    ``time/collect_s``, ``time/optimise_s`` and ``time/evaluate_s`` are seconds of the interval since the line before,
    ``time/fps`` its frames by the seconds of the first two, ``time/seconds`` all seconds of the run so far,
    ``time/hours_left`` what the rest takes at the mean pace of the last ten lines, evaluations and all else included,
    and ``time/gpu_memory_gb`` the most that tensors have taken on the learner's GPU, where it has one.
    """

    def __init__(self) -> None:
        self._means = MeanMetrics()
        self._seconds: dict[str, float] = {}  # of the agent, at the last line
        self._pace = Pace()

    def begin_line(self, agent: Agent) -> None:
        """Note the agent's seconds now, so that the next line of the log reports the seconds since."""
        self._seconds = dict(agent.seconds)

    def on_train_start(self, agent: Agent) -> None:
        """Begin to measure the pace."""
        self._pace = Pace()
        self._pace.note(agent.frames)

    def on_batch_end(self, agent: Agent, report: BatchReport) -> None:
        """Add the figures of the batch to the means; write a line if one is due or an evaluation has ended."""
        self._means.add(report.metrics, report.num_frames)
        every = agent.log_interval
        is_due = every is None or agent.is_last_batch or report.passes_multiple_of(every)
        if is_due or report.results:
            self._write(agent, report.results)

    def on_complete(self, agent: Agent) -> None:
        """Write a last line with the figures that no line has held yet."""
        if self._means.num_frames:
            self._write(agent, [])

    def _write(self, agent: Agent, results: list[BesideResult]) -> None:
        metrics, num_frames = self._means.take()
        for result in results:
            if result.frames == agent.frames:
                metrics |= result.metrics()
            else:
                _log(agent, result.metrics(), result.frames)
        spent = {phase: seconds - self._seconds.get(phase, 0.0) for phase, seconds in agent.seconds.items()}
        metrics |= {f"time/{phase}_s": seconds for phase, seconds in spent.items()}
        metrics["time/fps"] = num_frames / max(spent["collect"] + spent["optimise"], 1e-9)
        metrics["time/seconds"] = sum(agent.seconds.values())
        metrics |= self._outlook(agent)
        self.begin_line(agent)
        _log(agent, metrics, agent.frames)

    def _outlook(self, agent: Agent) -> dict[str, float]:
        """Return the hours left, where the run has an end, and the memory taken, where there is a GPU."""
        self._pace.note(agent.frames)
        seconds, memory = self._pace.seconds_for(max(final_frames(agent) - agent.frames, 0)), gpu_memory_gb(agent)
        has_end = agent.collector.total_frames > 0 and seconds is not None
        outlook = {"time/hours_left": seconds / 3600} if has_end else {}
        return outlook if memory is None else outlook | {"time/gpu_memory_gb": memory}


class Checkpoints(Hook):
    """Write ``last.pt`` after each evaluation and at the end, ``best.pt`` after the best so far, to ``agent.folder``.

    Of equal mean returns the later one is the best: where the best return is reached again and again, that policy was
    trained for longer.
    """

    def on_batch_end(self, agent: Agent, report: BatchReport) -> None:
        """Write ``last.pt`` if an evaluation has ended, and ``best.pt``, the agent at its launch, if it is the best."""
        if not report.results:
            return
        result = max(report.results, key=lambda result: result.evaluation.mean)
        is_best = result.evaluation.mean >= agent.best_return
        agent.best_return = max(result.evaluation.mean, agent.best_return)
        _save_as(agent, LAST)
        if is_best and result.keep is None:
            _save_as(agent, BEST)
        elif is_best:
            result.keep["counters"]["best_return"] = agent.best_return
            save_checkpoint(agent.folder / BEST, result.keep)

    def on_complete(self, agent: Agent) -> None:
        """Write the agent as it stands to ``last.pt``."""
        _save_as(agent, LAST)

    def on_error(self, agent: Agent, error: Exception) -> None:
        """Write the agent to ``last.pt`` without its environments' state; a resumed run begins new episodes."""
        if agent.folder is None:
            return
        try:
            state = agent.state_dict()
            reason = f"the run had ended with {type(error).__name__}."
            state["collector"] |= {"env": None, "root": None, "env_error": reason}
            save_checkpoint(agent.folder / LAST, state)
        except Exception as second:  # the user must see the first error, not this one
            error.add_note(f"The agent could not be saved either: {second}")
        else:
            error.add_note(f"The agent as it stands after {agent.frames:,} frames is saved in {agent.folder / LAST}.")


def _log(agent: Agent, metrics: Figures | dict[str, float], frames: int) -> None:
    if agent.logger is not None:
        agent.logger.log_scalars(metrics, frames)


def _save_as(agent: Agent, name: str) -> None:
    if agent.folder is not None:
        agent.save(agent.folder / name)
