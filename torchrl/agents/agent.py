"""The agent: collect → store → optimise → record, and what one does with it. The parts themselves are passed in."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.agents.checkpoint import (
    as_compiled,
    load_checkpoint,
    load_optimizer,
    require_fit,
    save_checkpoint,
    without_compiled,
)
from torchrl.agents.evaluate import Evaluation, Evaluator
from torchrl.agents.evaluate_beside import BesideResult, EvaluationProcess
from torchrl.agents.hooks import Hook, ProgressBar, check_hooks
from torchrl.agents.interrupt import InterruptGuard
from torchrl.agents.optimise import MinibatchEpochs
from torchrl.agents.periodic import PeriodicEvaluation
from torchrl.agents.replay_updates import ReplayUpdates
from torchrl.agents.statistics import (
    Figures,
    MeanMetrics,
    episode_statistics,
    num_valid_frames,
    policy_lag,
    value_statistics,
)
from torchrl.collectors import Collector, WarmUp
from torchrl.collectors.multi import MultiCollector
from torchrl.data.batch_functions import applied, require_batch_function
from torchrl.devices import to_device
from torchrl.errors import CheckpointError, ConfigError, SpecError, explain
from torchrl.files import make_writable
from torchrl.modules.randomness import generators_of
from torchrl.record import Logger

LAST, BEST = "last.pt", "best.pt"
PHASES = ("collect", "optimise", "evaluate")


class Agent:
    """Train a policy: collect → store → optimise → record, batch by batch.

    With a ``folder``, ``last.pt`` is written after every periodic evaluation and when training ends (a second Ctrl-C
    or SIGTERM aside), and ``best.pt`` whenever a periodic evaluation has the best mean return so far; of equals, the
    later one.

    An :class:`EvaluationProcess` measures while training goes on. Where the next evaluation is due before the last one
    is finished, the agent waits for it, so that which weights are measured does not depend on the machine's speed; that
    time counts under ``evaluate``. A result is logged over the frames of its launch and ``best.pt`` is the agent as it
    was then. The last evaluation is waited for when training ends; Ctrl-C, an error and a loaded checkpoint drop one
    that is not finished, and a checkpoint knows nothing of it.

    Args:
        collector: yields batches ``[*B, T]``; its policy is trained.
        optimise: takes the gradient steps, :class:`MinibatchEpochs` or :class:`ReplayUpdates`; has ``loss`` and
            ``optimizer``.
        advantage: called on each batch before ``optimise``, which reads what it writes; for example ``GAE``.
        store: called with each batch as it was collected, for example a replay buffer's ``extend``; on-policy
            algorithms keep nothing. If it has ``state_dict`` and ``load_state_dict``, checkpoints hold its state: rows
            that wait in a :class:`~torchrl.data.MultiStepStream`, say.
        evaluator: measures the policy, periodically if it says so; here or in a process of its own.
        logger: where metrics go, over frames.
        hooks: what else happens, see :class:`Hook`.
        folder: where checkpoints go; None writes none.
        log_interval: frames from one line of the log to the next, which holds means over what came since: of returns
            over episodes, of losses and lag over rows; None logs every batch.
        keep_learning: take gradient steps on what there is, beyond those that are due, while workers collect: learn as
            fast as possible. Needs :class:`ReplayUpdates` and a collector over processes.

    Raises:
        ConfigError: ``log_interval`` below 1, ``keep_learning`` with parts that cannot, or minibatches larger than the
            batches.

    Attributes:
        frames: valid frames (agent steps) trained on.
        best_return: best mean return of a periodic evaluation; -inf before the first.
        seconds: wall-clock seconds spent to ``collect``, ``optimise`` and ``evaluate``, counted on in a resumed run.
        configuration: plain settings that checkpoints keep; the code that builds the parts sets it.
    """

    def __init__(
        self,
        collector: Collector | MultiCollector,
        optimise: MinibatchEpochs | ReplayUpdates,
        *,
        advantage: Callable[[TensorDictBase], TensorDictBase] | None = None,
        store: Callable[[TensorDictBase], object] | None = None,
        evaluator: Evaluator | EvaluationProcess | None = None,
        logger: Logger | None = None,
        hooks: Sequence[Hook] = (),
        folder: str | os.PathLike | None = None,
        log_interval: int | None = None,
        keep_learning: bool = False,
    ) -> None:
        if log_interval is not None and log_interval < 1:
            raise ConfigError(explain("Agent", expected="log_interval of at least 1, or None", got=log_interval))
        if keep_learning and not (hasattr(optimise, "once") and hasattr(collector, "is_ready")):
            got = f"{type(optimise).__name__} and {type(collector).__name__}"
            expected = "keep_learning with ReplayUpdates and a collector over processes"
            raise ConfigError(explain("Agent", expected=expected, got=got))
        require_batch_function("Agent, advantage", advantage)
        require_batch_function("Agent, store", store)
        _require_parts(collector, optimise, evaluator, logger)
        _require_minibatches(collector, optimise)
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
        self._seconds_logged = dict(self.seconds)
        self._pending = MeanMetrics()
        self._interrupt = InterruptGuard()
        self._is_stopping = False
        self._shown: tuple[Hook, ...] = ()
        self._periodic = PeriodicEvaluation(None)

    @property
    def loss(self) -> nn.Module:
        """What is minimised."""
        return self.optimise.loss

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What minimises it."""
        return self.optimise.optimizer

    @property
    def policy(self) -> Callable[[TensorDictBase], TensorDictBase]:
        """The policy that is trained, without the random warm-up around it."""
        policy = self.collector.policy
        return policy.policy if isinstance(policy, WarmUp) else policy

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.loss.trainable_parameters())

    def train(self, *, progress: bool = False) -> None:
        """Train until the collector's ``total_frames``, :meth:`stop` or Ctrl-C; a second Ctrl-C raises at once.

        An error leaves ``last.pt`` with what was trained before it, and says so. SIGTERM, by which schedulers and
        containers ask for an end, is treated as Ctrl-C is, and ends in SystemExit with status 143.

        Args:
            progress: show how far it is, as :class:`ProgressBar` does.

        Raises:
            ConfigError: before any frame: all of ``total_frames`` are collected, or the folder cannot be written to.
        """
        self._require_ready()
        shows_already = any(isinstance(hook, ProgressBar) for hook in self.hooks)
        self._shown = (ProgressBar(),) if progress and not shows_already else ()
        self._is_stopping = False
        self._periodic = PeriodicEvaluation(self.evaluator)
        with InterruptGuard() as self._interrupt:
            try:
                self._tell("on_train_start")
                for batch in self._collect():
                    self._store(batch)
                    num_frames = num_valid_frames(batch)  # an estimator may leave some of them out of the training
                    metrics = self._optimise(batch, num_frames)
                    self._record(metrics, num_frames)
                if self._pending.num_frames:
                    self._log_pending([])
                self._save_as(LAST)
            except Exception as error:
                self._rescue(error)
                raise
            finally:
                self._periodic.discard()
                self._tell("on_train_end")

    def stop(self) -> None:
        """Let the training end after the present batch."""
        self._is_stopping = True

    def _require_ready(self) -> None:
        """Refuse to train where nothing would be trained, or what is trained could not be saved."""
        total_frames = self.collector.total_frames
        if 0 <= total_frames <= self.collector.frames:
            got = f"all of the collector's total_frames={total_frames:,} collected"
            hint = "To go on, raise it: agent.collector.total_frames += 100_000."
            raise ConfigError(explain("Agent.train", expected="frames to collect", got=got, hint=hint))
        if self.folder is not None:
            try:
                make_writable(self.folder)
            except OSError as error:
                expected = "a folder that can be written to"
                raise ConfigError(explain("Agent, folder", expected=expected, got=str(error))) from error

    def evaluate(self, evaluator: Evaluator | EvaluationProcess | None = None) -> Evaluation:
        """Measure the policy as it stands; training is not touched.

        Args:
            evaluator: another than the agent's own.
        """
        evaluator = self.evaluator if evaluator is None else evaluator
        if evaluator is None:
            raise ConfigError(
                explain("evaluate", expected="an evaluator", got="none", hint="Pass one here or to the Agent.")
            )
        with self._measured("evaluate"):
            return evaluator(self.policy, learned=self.collector.learned_states())

    def close(self) -> None:
        """Close the environments, here and in other processes, and end these; may be called twice."""
        self.collector.shutdown()
        if self.evaluator is not None:
            self.evaluator.close()

    def _collect(self) -> Iterator[TensorDict]:
        batches = iter(self.collector)
        while not (self._is_stopping or self._interrupt.is_requested):
            if self.keep_learning:
                self._learn_until_ready()
            with self._measured("collect"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _learn_until_ready(self) -> None:
        """Take gradient steps until a batch has come; none where there will be no more."""
        collector = self.collector
        if 0 <= collector.total_frames <= collector.frames or not self.optimise.is_learning:
            return
        collector.launch()
        with self._measured("optimise"):
            while not (collector.is_ready() or self._interrupt.is_requested):
                self.optimise.once()

    def _store(self, batch: TensorDict) -> None:
        self._tell("on_batch", batch)
        if self.store is not None:
            self.store(batch)

    def _optimise(self, batch: TensorDict, num_frames: int) -> Figures:
        """Train on a batch; return the metrics to log."""
        with self._measured("optimise"):
            episodes = episode_statistics(batch)
            learner_batch = to_device(batch, next(self.loss.parameters()).device)
            if self.advantage is not None:
                learner_batch = applied("Agent, advantage", self.advantage, learner_batch)
            losses = value_statistics(learner_batch) | self.optimise(learner_batch)
            metrics = losses.renamed(lambda name: name if "/" in name else f"loss/{name}") | episodes
            metrics |= policy_lag(batch, self.collector.policy_version)
            self.frames += num_frames
            self._tell("on_optimised", learner_batch, metrics)
            self.collector.update_policy_weights_()
        return metrics

    def _record(self, metrics: Figures, num_frames: int) -> None:
        """Evaluate if it is time to, log, and write checkpoints."""
        results = self._evaluate_if_due(num_frames)
        self._pending.add(metrics, num_frames)
        if results or self._is_log_due(num_frames):
            self._log_pending(results)
        if results:
            self._keep(max(results, key=lambda result: result.evaluation.mean))

    def _is_log_due(self, num_frames: int) -> bool:
        every = self.log_interval
        return every is None or self._is_last_batch or self.frames // every != (self.frames - num_frames) // every

    def _log_pending(self, results: list[BesideResult]) -> None:
        """Log the means over the batches since the last line, and evaluations over the frames of their launch."""
        metrics, num_frames = self._pending.take()
        for result in results:
            if result.frames == self.frames:
                metrics |= result.metrics()
            else:
                self._log(result.metrics(), result.frames)
        spent = {phase: self.seconds[phase] - self._seconds_logged[phase] for phase in PHASES}
        metrics |= {f"time/{phase}_s": seconds for phase, seconds in spent.items()}
        metrics["time/fps"] = num_frames / max(spent["collect"] + spent["optimise"], 1e-9)
        metrics["time/seconds"] = sum(self.seconds.values())
        self._seconds_logged = dict(self.seconds)
        self._log(metrics, self.frames)

    def _evaluate_if_due(self, num_frames: int) -> list[BesideResult]:
        """Evaluate where a multiple of ``every_frames`` was passed, and after the last batch; not after Ctrl-C.

        Returns the evaluations that were finished meanwhile.
        """
        results = self._finished(wait=False)
        is_due = self._periodic.is_due(self.frames - num_frames, self.frames) or self._is_last_batch
        if not self._periodic.is_wanted or not is_due or self._interrupt.is_requested:
            return results
        results += self._finished(wait=True)
        with self._measured("evaluate"):
            has_to_keep = self._periodic.is_beside and self.folder is not None
            state = copy.deepcopy(self.state_dict()) if has_to_keep else None
            version, learned = self.collector.policy_version, self.collector.learned_states()
            self._periodic.launch(self.policy, learned=learned, version=version, frames=self.frames, keep=state)
        return results + self._finished(wait=self._is_last_batch)

    @property
    def _is_last_batch(self) -> bool:
        return self._is_stopping or 0 <= self.collector.total_frames <= self.collector.frames

    def _finished(self, *, wait: bool) -> list[BesideResult]:
        """Take the evaluation under way if it is finished, or wait for it, and tell the hooks."""
        with self._measured("evaluate"):
            result = self._periodic.finished(wait=wait)
        if result is None:
            return []
        self._tell("on_evaluated", result.evaluation)
        return [result]

    def _keep(self, result: BesideResult) -> None:
        """Write checkpoints after an evaluation; the best one is the agent as it was at the launch.

        Of equals the later one is kept: where the best return is reached again and again, it was trained for longer.
        """
        is_best = result.evaluation.mean >= self.best_return
        self.best_return = max(result.evaluation.mean, self.best_return)
        self._save_as(LAST)
        if is_best and result.keep is None:
            self._save_as(BEST)
        elif is_best:
            result.keep["counters"]["best_return"] = self.best_return
            save_checkpoint(self.folder / BEST, result.keep)

    def _log(self, metrics: dict[str, float], frames: int) -> None:
        if self.logger is not None:
            self.logger.log_scalars(metrics, frames)

    def state_dict(self) -> dict:
        """Capture what a resumed run needs: networks, optimizer, collector, environments, random streams, counters."""
        return {
            "networks": {name: without_compiled(module.state_dict()) for name, module in self.networks.items()},
            "optimizer": self.optimizer.state_dict(),
            "optimise": self.optimise.state_dict(),
            "collector": self.collector.state_dict(),
            "learned": self.collector.learned_states(),  # of transforms: a policy sees with it
            "store": self.store.state_dict() if hasattr(self.store, "state_dict") else {},
            "generators": {
                name: generator.get_state() for name, generator in without_compiled(self._generators()).items()
            },
            "torch_rng": torch.get_rng_state(),
            "counters": {"frames": self.frames, "best_return": self.best_return, "seconds": dict(self.seconds)},
            "configuration": self.configuration,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; networks that do not fit are refused before anything is changed.

        Raises:
            CheckpointError: naming the parameters or parts that do not fit.
        """
        self._periodic.discard()  # what is under way is an evaluation of other weights
        generators, states = without_compiled(self._generators()), without_compiled(state["generators"])
        require_fit("random generators", dict.fromkeys(generators), dict.fromkeys(states))
        self._require_networks_fit(state["networks"])
        load_optimizer(self.optimizer, state["optimizer"])
        self._load_networks(state["networks"])
        self.optimise.load_state_dict(state["optimise"])
        try:
            self.collector.load_state_dict(state["collector"])
        except (ValueError, KeyError, RuntimeError, TypeError) as error:
            expected = "the environments it was saved with, as many of them"
            raise CheckpointError(
                explain("checkpoint, collector", expected=expected, got=f"others: {str(error).rstrip('.')}")
            ) from error
        if hasattr(self.store, "load_state_dict") and state.get("store"):  # nothing where it had none
            self.store.load_state_dict(state["store"])
        for name, generator in generators.items():
            generator.set_state(states[name])
        torch.set_rng_state(state["torch_rng"])
        counters = state["counters"]
        self.frames, self.best_return = counters["frames"], counters["best_return"]
        self.seconds = dict(counters["seconds"])
        self._seconds_logged = dict(self.seconds)
        self.configuration = state["configuration"]

    def save(self, path: str | os.PathLike) -> None:
        """Write a checkpoint, whole or not at all."""
        save_checkpoint(path, self.state_dict())

    def load(self, path: str | os.PathLike) -> None:
        """Go on from a checkpoint; where environments could not be captured, new episodes start and a warning says so.

        Raises:
            CheckpointError: the file is missing, cut short, not written by torchrl, or does not fit this agent.
        """
        self.load_state_dict(load_checkpoint(path))

    def load_networks(self, path: str | os.PathLike) -> None:
        """Take only the networks of a checkpoint: to evaluate them, or to start another run from them.

        What transforms have learned of observations goes with them; what was learned of rewards does not.

        Raises:
            CheckpointError: as :meth:`load`.
        """
        came = load_checkpoint(path)
        self._require_networks_fit(came["networks"])
        try:
            self.collector.load_learned_states(came["learned"], for_acting=True)
        except SpecError as error:
            raise CheckpointError(f"checkpoint, {error}") from error
        self._load_networks(came["networks"])

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The modules that a checkpoint holds: the loss, with actor and critic inside, and the policy."""
        policy = self.collector.policy
        return {"loss": self.loss} | ({"policy": policy} if isinstance(policy, nn.Module) else {})

    def _require_networks_fit(self, came: dict[str, dict]) -> None:
        networks = self.networks
        require_fit("networks", dict.fromkeys(networks), dict.fromkeys(came))
        for name, module in networks.items():
            have = module.state_dict()
            require_fit(name, have, as_compiled(came[name], have))

    def _load_networks(self, came: dict[str, dict]) -> None:
        for name, module in self.networks.items():
            module.load_state_dict(as_compiled(came[name], module.state_dict()))

    def _generators(self) -> dict[str, torch.Generator]:
        owners = {"policy": self.collector.policy, "loss": self.loss, "optimise": self.optimise}
        found: dict[str, torch.Generator] = {}
        for owner, part in owners.items():
            for path, generator in generators_of(part).items():
                if not any(generator is known for known in found.values()):
                    found[f"{owner}.{path}"] = generator
        return found

    def _save_as(self, name: str) -> None:
        if self.folder is not None:
            self.save(self.folder / name)

    def _rescue(self, error: Exception) -> None:
        """Save what training had reached when it failed; the environments may be in any state and start anew."""
        if self.folder is None:
            return
        try:
            state = self.state_dict()
            state["collector"] |= {
                "env": None,
                "root": None,
                "env_error": f"the run had ended with {type(error).__name__}.",
            }
            save_checkpoint(self.folder / LAST, state)
        except Exception as second:  # the user must see the first error, not this one
            error.add_note(f"The agent could not be saved either: {second}")
        else:
            error.add_note(f"The agent as it stands after {self.frames:,} frames is saved in {self.folder / LAST}.")

    def _tell(self, point: str, *arguments: object) -> None:
        for hook in (*self.hooks, *self._shown):
            getattr(hook, point)(self, *arguments)

    @contextmanager
    def _measured(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start


def _require_minibatches(collector: object, optimise: object) -> None:
    """Refuse minibatches of more rows than a batch has, where that is known: each would be the batch as a whole."""
    rows, wanted = getattr(collector, "frames_per_batch", None), getattr(optimise, "minibatch_size", None)
    if rows is not None and wanted is not None and wanted > rows:
        hint = "Minibatches are parts of a batch; raise frames_per_batch, or lower minibatch_size."
        expected, got = f"a minibatch_size of at most the collector's frames_per_batch={rows:,}", f"{wanted:,}"
        raise ConfigError(explain("Agent", expected=expected, got=got, hint=hint))


def _require_parts(collector: object, optimise: object, evaluator: object, logger: object) -> None:
    """Refuse parts in each other's places.

    Raises:
        ConfigError: naming the argument and what it takes.
    """
    parts = (
        ("collector", collector, ("collect", "policy"), "a collector", "Collector(env, policy, ...)."),
        ("optimise", optimise, ("loss", "optimizer"), "what takes gradient steps", "MinibatchEpochs(loss, optimizer)."),
        ("evaluator", evaluator, ("every_frames",), "an Evaluator, or None", "Evaluator(env)."),
        ("logger", logger, ("log_scalars",), "a Logger, or None", "CSVLogger(folder)."),
    )
    for name, part, needed, expected, hint in parts:
        is_optional = name in ("evaluator", "logger")
        if not (part is None and is_optional) and not all(hasattr(part, attribute) for attribute in needed):
            got = type(part).__name__ if isinstance(part, nn.Module) else repr(part)
            raise ConfigError(explain(f"Agent, {name}", expected=expected, got=got, hint=f"Write {hint}"))
