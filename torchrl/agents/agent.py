"""The agent, which trains a policy with parts passed to it, evaluates the policy, and is saved and loaded."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.agents.checkpoint import load_checkpoint, save_checkpoint
from torchrl.agents.evaluate import Evaluation
from torchrl.agents.hooks import BatchReport, Hook, ProgressBar, check_hooks
from torchrl.agents.interrupt import InterruptGuard
from torchrl.agents.parts import (
    BatchSource,
    EndlessSteps,
    GradientSteps,
    LaunchedBatches,
    Measure,
    Sink,
    has,
    require_parts,
)
from torchrl.agents.periodic import PeriodicEvaluation
from torchrl.agents.recording import Checkpoints, Log
from torchrl.agents.state import agent_state, load_agent_networks, load_agent_state
from torchrl.agents.statistics import Figures, episode_statistics, num_valid_frames, policy_lag, value_statistics
from torchrl.collectors import WarmUp
from torchrl.data.batch_functions import apply_function, require_batch_function
from torchrl.deploy import save_policy
from torchrl.devices import to_device
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.record.logger import make_folder

PHASES = ("collect", "optimise", "evaluate")


class Agent:
    """Train a policy: collect → store → optimise → hooks, batch by batch.

    What the parts have to bring is written in :mod:`torchrl.agents.parts`. The agent's own hooks evaluate, log and
    write checkpoints, in this order, and come before those it is given.

    With a ``folder``, ``last.pt`` is written after every periodic evaluation and when training ends (a second Ctrl-C
    or SIGTERM aside), and ``best.pt`` whenever a periodic evaluation has the best mean return so far; of equals, the
    later one.

    >>> from torchrl.agents import MinibatchEpochs
    >>> from torchrl.collectors import Collector
    >>> from torchrl.objectives import GAE, ClipPPOLoss
    >>> loss = ClipPPOLoss(actor, critic)
    >>> optimizer = torch.optim.Adam(loss.trainable_parameters())
    >>> optimise = MinibatchEpochs(loss, optimizer, num_epochs=2, minibatch_size=16)
    >>> agent = Agent(Collector(env, actor, frames_per_batch=32, total_frames=64), optimise, advantage=GAE(critic))
    >>> agent.train()
    >>> agent.frames, agent.collector.policy_version
    (64, 2)

    Args:
        collector: yields batches ``[*B, T]``; its policy is trained.
        optimise: takes the gradient steps, :class:`MinibatchEpochs` or :class:`ReplayUpdates`; has ``loss`` and
            ``optimizer``.
        advantage: called on each batch before ``optimise``, for which it writes entries; for example ``GAE``.
        store: called with each batch as it was collected, for example a replay buffer's ``extend``; None, as for
            on-policy algorithms, keeps nothing. If it has ``state_dict`` and ``load_state_dict``, checkpoints hold its
            state, for example the unfinished n-step sums of a :class:`~torchrl.data.MultiStepStream`.
        evaluator: measures the policy, every ``evaluator.every_frames`` frames; here or in a process of its own.
        logger: where metrics go, over frames.
        hooks: what else happens, see :class:`Hook`.
        folder: where checkpoints go; None writes none.
        log_interval: frames from one line of the log to the next; a line holds means since the last one, of returns
            over episodes, of losses and lag over rows; None logs every batch.
        keep_learning: while workers collect, take as many gradient steps on stored data as there is time for, beyond
            those that are due. Needs :class:`ReplayUpdates` and a collector over processes.

    Raises:
        ConfigError: ``log_interval`` below 1, ``keep_learning`` with parts that cannot, minibatches larger than the
            batches, or a policy that leaves a state as it is which the loss starts from.

    Attributes:
        frames: valid frames (agent steps) trained on.
        best_return: best mean return of a periodic evaluation; -inf before the first.
        seconds: wall-clock seconds spent to ``collect``, ``optimise`` and ``evaluate``, counted on in a resumed run.
        configuration: plain settings that checkpoints keep; the code that builds the parts sets it.
    """

    def __init__(
        self,
        collector: BatchSource,
        optimise: GradientSteps,
        *,
        advantage: Callable[[TensorDictBase], TensorDictBase] | None = None,
        store: Callable[[TensorDictBase], object] | None = None,
        evaluator: Measure | None = None,
        logger: Sink | None = None,
        hooks: Sequence[Hook] = (),
        folder: str | os.PathLike | None = None,
        log_interval: int | None = None,
        keep_learning: bool = False,
    ) -> None:
        if log_interval is not None and log_interval < 1:
            raise ConfigError(explain("Agent", expected="log_interval of at least 1, or None", got=log_interval))
        if keep_learning and not (has(optimise, EndlessSteps) and has(collector, LaunchedBatches)):
            got = f"{type(optimise).__name__} and {type(collector).__name__}"
            expected = "keep_learning with ReplayUpdates and a collector over processes"
            raise ConfigError(explain("Agent", expected=expected, got=got))
        require_batch_function("Agent, advantage", advantage)
        require_batch_function("Agent, store", store)
        if store is None and len(getattr(optimise, "buffer", ".")) == 0:
            text = "Agent: the replay buffer is empty and nothing will fill it. Write Agent(..., store=buffer.extend)."
            warnings.warn(text, stacklevel=2)
        require_parts(collector, optimise, evaluator, logger)
        self.collector = collector
        self.optimise = optimise
        self.advantage = advantage
        self.store = store
        self.evaluator = evaluator
        self.logger = logger
        self.hooks = check_hooks(hooks)
        self.folder = None if folder is None else Path(folder)
        self.log_interval = log_interval
        self.keep_learning = keep_learning
        self.frames = 0
        self.best_return = -math.inf
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.configuration: dict = {}
        self._evaluation, self._log = PeriodicEvaluation(), Log()
        self._own_hooks = (self._evaluation, self._log, Checkpoints())  # in this order: a log line holds evaluations
        self._progress: tuple[Hook, ...] = ()
        self._interrupt = InterruptGuard()
        self._is_stopping = False

    @property
    def loss(self) -> nn.Module:
        """The loss that the gradient steps minimise."""
        return self.optimise.loss

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that moves the parameters."""
        return self.optimise.optimizer

    @property
    def policy(self) -> Callable[[TensorDictBase], TensorDictBase]:
        """The policy that is trained, without the random warm-up around it."""
        policy = self.collector.policy
        return policy.policy if isinstance(policy, WarmUp) else policy

    @property
    def num_parameters(self) -> int:
        """How many single numbers are trained, over all parameters of the loss."""
        return sum(parameter.numel() for parameter in self.loss.trainable_parameters())

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The modules that a checkpoint holds: the loss, with actor and critic inside, and the policy."""
        policy = self.collector.policy
        return {"loss": self.loss} | ({"policy": policy} if isinstance(policy, nn.Module) else {})

    @property
    def is_last_batch(self) -> bool:
        """Whether training ends with the present batch: all frames are collected, or :meth:`stop` was called."""
        return self._is_stopping or 0 <= self.collector.total_frames <= self.collector.frames

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM asked the training to end."""
        return self._interrupt.is_requested

    def train(self, *, progress: bool = False) -> None:
        """Train until the collector's ``total_frames``, :meth:`stop` or Ctrl-C; a second Ctrl-C raises at once.

        An error leaves ``last.pt`` with what was trained before it, and says so. SIGTERM, by which schedulers and
        containers ask for an end, is treated as Ctrl-C is, and ends in SystemExit with status 143.

        Args:
            progress: show how far it is, as :class:`ProgressBar` does.

        Raises:
            ConfigError: before any frame: all of ``total_frames`` are collected, or the folder cannot be written to.
        """
        with InterruptGuard() as interrupt, self.training(interrupt, progress=progress):
            for batch in self._collect():
                report = self.receive(batch)
                with self.measured("optimise"):
                    learner_batch = self.prepare(batch)
                    figures = self.optimise(learner_batch)
                self.conclude(report, learner_batch, figures)

    @contextmanager
    def training(self, interrupt: InterruptGuard, *, progress: bool = False) -> Iterator[None]:
        """Tell the hooks that a training begins, and at the end of the ``with`` block how it ended.

        Inside, each batch goes through :meth:`receive`, :meth:`prepare`, ``optimise`` and :meth:`conclude`.
        :meth:`train` does so with its own collector's, :class:`~torchrl.population.Population` with those of several
        agents at once.

        Args:
            interrupt: says whether the training was asked to end.
            progress: see :meth:`train`.

        Raises:
            ConfigError: see :meth:`train`.
        """
        self._require_ready()
        shows_already = any(isinstance(hook, ProgressBar) for hook in self.hooks)
        self._progress = (ProgressBar(),) if progress and not shows_already else ()
        self._is_stopping, self._interrupt = False, interrupt
        try:
            self.tell("on_train_start")
            yield
            self.tell("on_complete")
        except Exception as error:
            self.tell("on_error", error)
            raise
        finally:
            self.tell("on_train_end")

    def receive(self, batch: TensorDict) -> BatchReport:
        """Tell the hooks of a batch ``[*B, T]`` that was collected, store it, and begin the report of it."""
        self.tell("on_batch", batch)
        if self.store is not None:
            self.store(batch)
        num_frames = num_valid_frames(batch)  # an estimator may leave some of them out of the training
        figures = episode_statistics(batch) | policy_lag(batch, self.collector.policy_version)
        return BatchReport(figures, num_frames, self.frames + num_frames)

    def prepare(self, batch: TensorDict) -> TensorDictBase:
        """Return a batch as the gradient steps read it: on the learner's device, with what ``advantage`` writes."""
        learner_batch = to_device(batch, next(self.loss.parameters()).device)
        if self.advantage is None:
            return learner_batch
        return apply_function("Agent, advantage", self.advantage, learner_batch)

    def conclude(self, report: BatchReport, learner_batch: TensorDictBase, figures: Figures) -> None:
        """Count a batch that was trained on, send the collector the new weights, and tell the hooks of the figures.

        Args:
            report: what :meth:`receive` began.
            learner_batch: what :meth:`prepare` made of the batch.
            figures: of the gradient steps.
        """
        with self.measured("optimise"):
            losses = value_statistics(learner_batch) | figures
            losses = losses.renamed(lambda name: name if "/" in name else f"loss/{name}")
            report.metrics = losses | report.metrics
            self.frames = report.frames
            self.tell("on_optimised", learner_batch, report.metrics)
            self.collector.update_policy_weights_()
        self.tell("on_batch_end", report)

    def stop(self) -> None:
        """Let the training end after the present batch; a call before :meth:`train` is forgotten."""
        self._is_stopping = True

    def _require_ready(self) -> None:
        """Raise if all frames are collected already, or if the folder cannot be written to."""
        total_frames = self.collector.total_frames
        if 0 <= total_frames <= self.collector.frames:
            got = f"all of the collector's total_frames={total_frames:,} collected"
            hint = "To go on, raise it: agent.collector.total_frames += 100_000."
            raise ConfigError(explain("Agent.train", expected="frames to collect", got=got, hint=hint))
        if self.folder is not None:
            make_folder(self.folder, "Agent, folder")

    def evaluate(self, evaluator: Measure | None = None) -> Evaluation:
        """Run an evaluator's episodes with the present policy and return their result; training is not affected.

        The result is not logged, told to no hook, and decides on no checkpoint; its seconds count as ``evaluate``.

        Args:
            evaluator: another than the agent's own.

        Raises:
            ConfigError: there is no evaluator.
        """
        evaluator = self.evaluator if evaluator is None else evaluator
        if evaluator is None:
            hint = "Pass one here or to the Agent."
            raise ConfigError(explain("evaluate", expected="an evaluator", got="none", hint=hint))
        with self.measured("evaluate"):
            return evaluator(self.policy, learned=self.collector.learned_states())

    def close(self) -> None:
        """Close the environments of collector and evaluator, and end their processes; may be called twice.

        Logger, store and replay buffer stay open: close them yourself.
        """
        self.collector.shutdown()
        if self.evaluator is not None:
            self.evaluator.close()

    def tell(self, point: str, *arguments: object) -> None:
        """Call the method ``point`` of every hook, of the agent's own (evaluation, log, checkpoints) first.

        Args:
            point: a method of :class:`Hook`.
            arguments: what the method takes beside the agent.
        """
        for hook in (*self._own_hooks, *self.hooks, *self._progress):
            getattr(hook, point)(self, *arguments)

    @contextmanager
    def measured(self, phase: str) -> Iterator[None]:
        """Add the seconds that a ``with`` block takes to a phase: ``collect``, ``optimise`` or ``evaluate``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start

    def _collect(self) -> Iterator[TensorDict]:
        batches = iter(self.collector)
        while not (self._is_stopping or self.is_interrupted):
            if self.keep_learning:
                self._learn_until_ready()
            with self.measured("collect"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _learn_until_ready(self) -> None:
        """Take gradient steps until the collector's next batch is ready; none before learning or without a next one."""
        collector = self.collector
        if 0 <= collector.total_frames <= collector.frames or not self.optimise.is_learning:
            return
        collector.launch()
        with self.measured("optimise"):
            while not (collector.is_ready() or self.is_interrupted):
                self.optimise.once()

    def state_dict(self) -> dict:
        """Return what a resumed run needs: networks, optimizer, collector, environments, random streams, counters.

        Of ``store`` it holds the state, if that has one. What lies in a replay buffer is not part of it: the buffer's
        own ``save`` writes that, or the hook :class:`SaveBuffer`.
        """
        return agent_state(self)

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; an evaluation under way beside the training is dropped first, in any case.

        Random generators, networks and optimizer are looked at before any of them is changed. Environments (another
        number of them, another simulator) show that they do not fit only when they are loaded, behind those: after such
        an error weights and optimizer are the loaded ones, and the collector, the store, the random streams and the
        counters are not, or only in part. Load a state that fits, or build the agent anew.

        Raises:
            CheckpointError: naming the parameters or parts that do not fit.
        """
        self._evaluation.discard()
        load_agent_state(self, state)
        self._log.begin_line(self)

    def save(self, path: str | os.PathLike) -> None:
        """Write a checkpoint of the agent to a file, whole or not at all."""
        save_checkpoint(path, self.state_dict())

    def save_policy(self, path: str | os.PathLike, *, env: Env | None = None) -> None:
        """Write what acts, and nothing of the training, to a file; see :func:`torchrl.deploy.save_policy`.

        Args:
            path: a file that ends with ``.pt2``, or a folder.
            env: with the transforms of the training; None: that of the evaluator or of the collector in this process.

        Raises:
            ConfigError: policy or transforms are no functions of tensors, or there is no ``env``.
        """
        own = getattr(self.collector, "env", None)
        env = getattr(self.evaluator, "env", own) if env is None else env
        learned = None if env is own else self.collector.learned_states()
        save_policy(self.policy, path, env=env, learned=learned, origin=self.configuration)

    def load(self, path: str | os.PathLike) -> None:
        """Restore the agent from a checkpoint; environments that it does not hold begin new episodes, with a warning.

        A replay buffer's items are not in it; see :meth:`load_state_dict` for what an error leaves.

        Raises:
            CheckpointError: the file is missing, cut short, not written by torchrl, or does not fit this agent.
        """
        self.load_state_dict(load_checkpoint(path))

    def load_networks(self, path: str | os.PathLike) -> None:
        """Load only networks and transforms' statistics of observations from a checkpoint, to evaluate or train anew.

        Optimizer and counters stay as they are, and so do the transforms' statistics of rewards.

        Raises:
            CheckpointError: as :meth:`load`.
        """
        load_agent_networks(self, load_checkpoint(path))
