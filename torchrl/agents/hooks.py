"""The base class of hooks, which an agent calls at named points of a training, and several hooks for users to add."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from tensordict import TensorDict

from torchrl.agents.pace import Pace, final_frames, gpu_memory_gb
from torchrl.agents.statistics import LATEST, Figures, num_valid_frames
from torchrl.errors import ConfigError, explain, nearest
from torchrl.keys import Key
from torchrl.misspelling import refuse_misspelt
from torchrl.modules import AnnealedExploration, ObservationNormalizer
from torchrl.objectives import KLPenaltyPPOLoss
from torchrl.objectives.keys import MASK, read

if TYPE_CHECKING:
    from torchrl.agents.agent import Agent
    from torchrl.agents.evaluate import Evaluation
    from torchrl.agents.evaluate_beside import BesideResult
    from torchrl.data.replay import ReplayBuffer

BUFFER = "replay"  # the folder of a saved buffer, beside the checkpoints


@dataclass
class BatchReport:
    """What an agent reports of a batch it has trained on: figures, frames, and the evaluations that ended with it.

    >>> report = BatchReport(Figures({"loss/loss_value": 0.5}), num_frames=256, frames=1024)
    >>> report.passes_multiple_of(1000), report.passes_multiple_of(500)
    (True, True)

    Attributes:
        metrics: figures of the batch for the log.
        num_frames: valid rows of the batch.
        frames: frames trained on, the batch's included.
        results: the evaluations that ended with this batch.
    """

    metrics: Figures
    num_frames: int
    frames: int
    results: list[BesideResult] = field(default_factory=list)

    def passes_multiple_of(self, every: int) -> bool:
        """Answer whether the frames trained on reach or pass a multiple of ``every`` with this batch."""
        return self.frames // every != (self.frames - self.num_frames) // every


class Hook:
    """Act at named points of a training; every method does nothing until overridden.

    One training calls, in this order:

    ==================  ======================================================================
    point               when
    ==================  ======================================================================
    ``on_train_start``  once, before the first batch
    ``on_batch``        a batch was collected; then it is stored
    ``on_optimised``    the gradient steps on it were taken
    ``on_evaluated``    an evaluation has ended, if any
    ``on_batch_end``    evaluations were measured, the log and checkpoints written
    ``on_complete``     training has come to its end: all frames, ``agent.stop()`` or Ctrl-C
    ``on_error``        instead of ``on_complete``, where an exception ended it
    ``on_train_end``    last, however training ended
    ==================  ======================================================================

    At each point the agent's own hooks come first (evaluation, log, checkpoints), then those it was given, in their
    order. ``agent.evaluate()`` calls no hook. A subclass with a method ``on_...`` of another name is refused.

    A hook keeps no state that a resumed run would need: what changes in the course of a run follows from
    ``agent.frames``.

    >>> class Count(Hook):
    ...     num_batches = 0
    ...
    ...     def on_batch_end(self, agent, report):
    ...         self.num_batches += 1
    """

    def __init_subclass__(cls) -> None:
        """Refuse a method that looks like a named point and is none: it would never be called."""
        super().__init_subclass__()
        refuse_misspelt(cls)
        points = [name for name in vars(Hook) if name.startswith("on_")]
        for name in vars(cls):
            if name.startswith(("on_", "before_", "after_")) and name not in points:
                close = nearest(name, points)
                hint = f"Did you mean {close!r}?" if close else ""
                raise ConfigError(explain(cls.__name__, expected=f"methods out of {points}", got=repr(name), hint=hint))

    def on_train_start(self, agent: Agent) -> None:
        """Called once, before the first batch is collected."""

    def on_batch(self, agent: Agent, batch: TensorDict) -> None:
        """Called with each batch ``[*B, T]`` before it is trained on; ``agent.frames`` does not count it yet."""

    def on_optimised(self, agent: Agent, batch: TensorDict, metrics: Figures) -> None:
        """Called after the gradient steps; what it adds to ``metrics`` is logged. ``agent.frames`` counts the batch.

        Where a line of the log is over several batches, it holds the mean of their numbers, each counting once, or as
        much as ``metrics.weights`` says; see :class:`~torchrl.agents.Figures`.
        """

    def on_evaluated(self, agent: Agent, result: Evaluation) -> None:
        """Called after each periodic evaluation, before its result decides on the best checkpoint.

        Where an :class:`EvaluationProcess` measures, that is when its result is taken: after some more batches, and
        perhaps twice after one.
        """

    def on_batch_end(self, agent: Agent, report: BatchReport) -> None:
        """Called last for each batch, after its figures were logged and the checkpoints that are due written."""

    def on_complete(self, agent: Agent) -> None:
        """Called once after the last batch, also where Ctrl-C made it the last; not after an error."""

    def on_error(self, agent: Agent, error: Exception) -> None:
        """Called once where an exception ended the training; the exception is raised afterwards."""

    def on_train_end(self, agent: Agent) -> None:
        """Called once at the very end, also where Ctrl-C or an error ended the training."""


class StopAtReturn(Hook):
    """End the training at the first periodic evaluation whose mean return reaches ``target``.

    >>> from torchrl.agents import Evaluation
    >>> StopAtReturn(475.0).on_evaluated(agent, Evaluation(torch.tensor([480.0]), torch.tensor([480])))
    >>> agent.is_last_batch
    True
    """

    def __init__(self, target: float) -> None:
        self.target = target

    def on_evaluated(self, agent: Agent, result: Evaluation) -> None:
        """Ask the agent to stop if the target is reached."""
        if result.mean >= self.target:
            agent.stop()


class UpdateNormalizer(Hook):
    """Merge each batch's observations into a normaliser's statistics, after the batch was trained on.

    Earlier, the first probability ratio of a batch would not be one: the batch's actions were chosen, and their
    log-probabilities computed, with the statistics before it.

    >>> normalizer = ObservationNormalizer(4)
    >>> UpdateNormalizer(normalizer).on_optimised(agent, batch, {})
    >>> int(normalizer.count)  # rows of the batch, [2, 8]
    16

    Args:
        normalizer: the module inside the network.
        key: the observations it normalises, ``[*B, T, ...]``.
    """

    def __init__(self, normalizer: ObservationNormalizer, key: str | tuple[str, ...] = "observation") -> None:
        self.normalizer = normalizer
        self.key = key

    def on_optimised(self, agent: Agent, batch: TensorDict, metrics: dict[str, float]) -> None:
        """Merge the observations of the batch's valid rows into the statistics."""
        observation = read(batch, self.key, who="UpdateNormalizer")
        self.normalizer.update(observation, mask=batch.get(MASK, None))


class StepExploration(Hook):
    """Call ``step(frames of the batch)`` on every :class:`~torchrl.modules.AnnealedExploration` in the policy.

    It does so after each batch was trained on. Without this hook, or calls of your own, exploration stays at its start.

    >>> from torchrl.modules import EGreedy, QValueActor
    >>> policy = EGreedy(QValueActor(torch.nn.Linear(4, 2)), env.action_spec, start=1.0, end=0.0, num_frames=32)
    >>> agent.collector.policy, metrics = policy, Figures()
    >>> StepExploration().on_optimised(agent, batch, metrics)  # 16 of 32 frames
    >>> metrics
    {'exploration/EGreedy': 0.5}
    """

    def on_optimised(self, agent: Agent, batch: TensorDict, metrics: dict[str, float]) -> None:
        """Count the batch's valid rows in each exploration module, and log its strength."""
        num_frames = num_valid_frames(batch)
        for module in agent.policy.modules():
            if isinstance(module, AnnealedExploration):
                module.step(num_frames)
                name = f"exploration/{type(module).__name__}"
                metrics |= Figures({name: module.strength.item()}, {name: LATEST})


class SuccessShare(Hook):
    """Log the share of the episodes ended in a batch that succeeded, as ``train/success_share``.

    >>> batch["next", "is_success"] = torch.ones(2, 8)
    >>> batch["next", "done"][:, -1], metrics = True, Figures()
    >>> SuccessShare("is_success").on_optimised(agent, batch, metrics)
    >>> metrics
    {'train/success_share': 1.0}

    Args:
        key: the observation that says, by a number other than 0 at an episode's end, that it succeeded; one number a
            step, ``[*B, T]`` or ``[*B, T, 1]``.
    """

    def __init__(self, key: Key) -> None:
        self.key = key

    def on_optimised(self, agent: Agent, batch: TensorDict, metrics: dict[str, float]) -> None:
        """Add the share, weighed by the number of episodes; nothing where no episode ended."""
        done, mask = batch.get(("next", "done")).squeeze(-1), batch.get(MASK, None)
        ended = done if mask is None else done & mask
        if bool(ended.any()):
            succeeded = read(batch["next"], self.key, who="SuccessShare").reshape(ended.shape)[ended] != 0
            name = "train/success_share"
            metrics |= Figures({name: succeeded.double().mean().item()}, {name: succeeded.numel()})


class SaveBuffer(Hook):
    """Save a replay buffer to ``agent.folder / "replay"`` when training ends, so that a resumed run can load it.

    Nothing is saved if the agent has no folder or the buffer is empty. ``agent.load`` does not read it back: call
    ``buffer.load(folder / "replay")``.

    >>> _ = buffer.extend(batch)
    >>> agent.folder = folder
    >>> SaveBuffer(buffer).on_train_end(agent)
    >>> (folder / BUFFER).is_dir()
    True

    Args:
        buffer: the replay buffer to save.
    """

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer = buffer

    def on_train_end(self, agent: Agent) -> None:
        """Save the buffer, if anything is in it."""
        if agent.folder is not None and len(self.buffer):
            self.buffer.save(agent.folder / BUFFER)


class AdaptPenalty(Hook):
    """Raise the weight β of PPO's KL penalty after a batch that changed the policy too much; lower it after too little.

    Schulman et al. (2017), section 4; the rule is :func:`torchrl.functional.adapted_kl_coef`. Put this hook before
    :class:`UpdateNormalizer`, whose new statistics would count as divergence.

    >>> from torchrl.objectives import GAE
    >>> loss, metrics = KLPenaltyPPOLoss(actor, critic, kl_coef=1.0), Figures()
    >>> batch = GAE(critic)(batch)
    >>> AdaptPenalty(loss).on_optimised(agent, batch, metrics)  # the policy has not moved: a weaker penalty will do
    >>> abs(metrics["loss/kl_update"]) < 1e-6, float(loss.kl_coef)
    (True, 0.5)

    Args:
        loss: the loss in training.
    """

    def __init__(self, loss: KLPenaltyPPOLoss) -> None:
        self.loss = loss

    def on_optimised(self, agent: Agent, batch: TensorDict, metrics: dict[str, float]) -> None:
        """Compute KL(π_old ‖ π) on the whole batch, log it as ``loss/kl_update``, and adapt the penalty's weight to it.

        A batch without a valid row, on which nothing was trained, changes nothing.
        """
        mask = batch.get(MASK, None)
        if mask is not None and not bool(mask.any()):
            return
        kl = self.loss.divergence(batch)
        self.loss.adapt_(kl)
        metrics |= Figures({"loss/kl_update": kl.item()}, {"loss/kl_update": num_valid_frames(batch)})


class ProgressBar(Hook):
    """Show frames, time left, speed, the latest returns and the GPU's memory on one line of the terminal, through tqdm.

    If the standard error is a file or a pipe, one line is written at each periodic evaluation instead, or, without
    evaluations, at each tenth of the total frames; its speed is that since the line before, all that passed counted.

    >>> bar = ProgressBar()  # Agent(..., hooks=[bar]), or agent.train(progress=True)
    >>> bar.on_train_start(agent)
    >>> bar.on_train_end(agent)
    """

    def __init__(self) -> None:
        self._bar = None
        self._shown: dict[str, float] = {}

    def on_train_start(self, agent: Agent) -> None:
        """Open the bar at the frames that the agent has trained on."""
        from tqdm import tqdm  # on first use: nobody pays for it at import

        self._total = final_frames(agent)
        self._bar = tqdm(
            total=self._total if self._total > 0 else None,
            initial=agent.frames,
            unit="frame",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._pace = Pace()
        self._pace.note(agent.frames)
        self._tenths = self._tenths_of(agent)
        self._is_evaluated = agent.evaluator is not None and agent.evaluator.every_frames is not None

    def on_optimised(self, agent: Agent, batch: TensorDict, metrics: dict[str, float]) -> None:
        """Advance the bar by the frames of the batch, and show the latest mean returns."""
        if "train/episode_return" in metrics:
            self._shown["train"] = metrics["train/episode_return"]
        if self._bar.disable:
            if not self._is_evaluated and self._tenths_of(agent) > self._tenths:
                self._write_line(agent)
            return
        shown = {name: f"{value:.1f}" for name, value in self._shown.items()}
        if (memory := gpu_memory_gb(agent)) is not None:
            shown["gpu"] = f"{memory:.1f}GB"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(agent.frames - self._bar.n)

    def on_evaluated(self, agent: Agent, result: Evaluation) -> None:
        """Remember the mean return for the bar; without a terminal, write a line."""
        self._shown["eval"] = result.mean
        if self._bar.disable:
            self._write_line(agent)

    def on_train_end(self, agent: Agent) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _tenths_of(self, agent: Agent) -> int:
        return 10 * agent.frames // self._total if self._total > 0 else 0

    def _write_line(self, agent: Agent) -> None:
        self._tenths = self._tenths_of(agent)
        self._pace.note(agent.frames)
        way = f"{agent.frames:,} of {self._total:,} frames" if self._total > 0 else f"{agent.frames:,} frames"
        seconds = self._pace.seconds_for(self._total - agent.frames) if self._total > agent.frames else None
        left = "" if seconds is None else f", {timedelta(seconds=round(seconds))} left"
        memory = gpu_memory_gb(agent)
        memory = "" if memory is None else f", {memory:.1f} GB of the GPU"
        returns = "".join(f", {name} {value:.1f}" for name, value in self._shown.items())
        speed = f"{self._pace.frames_per_second:,.0f} frames/s"
        print(f"{way}{left}{memory}, {speed}{returns}", file=sys.stderr, flush=True)


def check_hooks(hooks: tuple) -> tuple[Hook, ...]:
    """Return hooks as a tuple, or refuse what is no list of instances of :class:`Hook`.

    Raises:
        ConfigError: it is no list, or one of them is no :class:`Hook`.
    """
    if isinstance(hooks, Hook) or not isinstance(hooks, Iterable):
        got = type(hooks).__name__
        hint = f"Write hooks=[{got}(...)]." if isinstance(hooks, Hook) else "Write hooks=() for none."
        raise ConfigError(explain("hooks", expected="a list of instances of Hook", got=got, hint=hint))
    hooks = tuple(hooks)  # a generator could be looked at only once
    for hook in hooks:
        if not isinstance(hook, Hook):
            is_class = isinstance(hook, type) and issubclass(hook, Hook)
            got, hint = (f"the class {hook.__name__}", f"Write {hook.__name__}(...).") if is_class else (repr(hook), "")
            raise ConfigError(explain("hooks", expected="instances of Hook", got=got, hint=hint))
    return hooks
