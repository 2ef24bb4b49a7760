"""Evaluation in a process of its own, while training goes on, of the weights at its launch. Trains nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import cloudpickle
import torch
from tensordict import TensorDictBase

from torchrl.agents.evaluate import Evaluation, Evaluator
from torchrl.agents.policy_state import Structure, set_state_, state_of
from torchrl.collectors.jobs import SERVE  # the same fork server: it has imported most of what is needed here
from torchrl.envs import Env
from torchrl.envs.learned import Learned
from torchrl.envs.simulators.ids import with_registered_ids
from torchrl.errors import ConfigError, DeadlineError, ProcessError, explain
from torchrl.keys import Key
from torchrl.modules import ExplorationType
from torchrl.processes.channels import SLICE_S
from torchrl.processes.children import START_S
from torchrl.processes.pool import Job, WorkerPool, undone_if_lost
from torchrl.processes.shared_tensors import parcel_of

_DEFAULTS = Evaluator.__init__.__kwdefaults__  # where the defaults are written


@dataclass(frozen=True)
class BesideResult:
    """The result of an evaluation beside training, with the version of the weights and the frame count of its launch.

    >>> evaluation = Evaluation(returns=torch.tensor([1.0, 3.0]), lengths=torch.tensor([1, 3]))
    >>> BesideResult(evaluation, version=5, frames=100).metrics()
    {'eval/return_mean': 2.0, 'eval/return_std': 1.0, 'eval/policy_version': 5.0}

    Attributes:
        evaluation: returns and lengths of the episodes.
        version: of the policy's weights, as passed to ``launch``.
        frames: trained on at the launch, as passed to ``launch``.
        keep: the object passed to ``launch`` as ``keep``.
    """

    evaluation: Evaluation
    version: int
    frames: int
    keep: Any = None

    def metrics(self) -> dict[str, float]:
        """Return the figures that an agent logs of the evaluation, over the frame count of its launch."""
        share = self.evaluation.success_share
        return {
            "eval/return_mean": self.evaluation.mean,
            "eval/return_std": self.evaluation.std,
            **({} if share is None else {"eval/success_share": share}),
            "eval/policy_version": float(self.version),
        }


class EvaluationProcess:
    """Evaluate policies in another process while training goes on: launch an evaluation now, take its result later.

    A launch copies the weights, so training may change them at once, and the result is that of an ``Evaluator`` in this
    process, number for number. A launch sends parameters, buffers and extra state of the policy, and statistics of the
    training's transforms; the pickled policy is sent at the first launch, and when another policy is launched. In the
    process it acts on the CPU.

    If the process dies, a warning says so and a new process repeats the evaluation, with the same result; if that one
    dies too, a :class:`ProcessError` is raised. An exception of the environment or the policy in the process is raised
    by ``poll`` or ``take`` with its type.

    >>> from torchrl.envs import GymEnv
    >>> beside = EvaluationProcess(partial(GymEnv, "CartPole-v1", num_envs=2), num_episodes=2)
    >>> beside.launch(actor, version=3)  # returns at once: train on
    >>> result = beside.take()
    >>> result.version, len(result.evaluation.returns)
    (3, 2)
    >>> beside.close()

    Args:
        make_env: builds the environment in the process, to which ``cloudpickle`` sends this function.
        num_episodes: see :class:`Evaluator`.
        seed: see :class:`Evaluator`.
        start_seeds: see :class:`Evaluator`.
        exploration_type: see :class:`Evaluator`.
        every_frames: see :class:`Evaluator`.
        max_episode_steps: see :class:`Evaluator`.
        success_key: see :class:`Evaluator`.
        start_method: see :mod:`torchrl.processes.children`.
        num_threads: of torch in the process.
        timeout_s: the longest an evaluation may take, in seconds.
        start_timeout_s: the longest the process may take to start, in seconds: its imports and ``make_env``.

    Attributes:
        num_restarts: how many processes were started in place of dead ones.

    Raises:
        ConfigError: arguments that do not go together.
        ProcessError: the process cannot be started. Or what ``make_env`` raises.
    """

    def __init__(
        self,
        make_env: Callable[[], Env],
        *,
        num_episodes: int = _DEFAULTS["num_episodes"],
        seed: int = _DEFAULTS["seed"],
        start_seeds: Sequence[int] | None = _DEFAULTS["start_seeds"],
        exploration_type: ExplorationType = _DEFAULTS["exploration_type"],
        every_frames: int | None = _DEFAULTS["every_frames"],
        max_episode_steps: int = _DEFAULTS["max_episode_steps"],
        success_key: Key | None = _DEFAULTS["success_key"],
        start_method: str = "forkserver",
        num_threads: int = 1,
        timeout_s: float = 600.0,
        start_timeout_s: float = START_S,
    ) -> None:
        if isinstance(make_env, Env) or not callable(make_env):
            hint = "Write a function that builds it: it is called in the process."
            got = repr(make_env)
            raise ConfigError(explain("EvaluationProcess", expected="a callable that makes an Env", got=got, hint=hint))
        self.num_episodes = num_episodes
        self.every_frames = every_frames
        self.num_restarts = 0
        options = {
            "num_episodes": num_episodes,
            "seed": seed,
            "start_seeds": start_seeds,
            "exploration_type": exploration_type,
            "every_frames": every_frames,
            "max_episode_steps": max_episode_steps,
            "success_key": success_key,
        }
        self._pool = WorkerPool(
            "EvaluationProcess",
            SERVE,
            partial(_job, make_env, options, num_threads),
            start_method=start_method,
            timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
            awaited="an evaluation",
        )
        self._policy = Structure()
        self._there: Structure | None = None  # of the policy that the process has
        self._order: _Order | None = None
        self._done: BesideResult | None = None
        self._is_closed = False
        self._pool.start()

    @property
    def pid(self) -> int | None:
        """Id of the process; None while none runs, as after an evaluation was broken off by :meth:`discard`."""
        return self._pool.pids[0] if self._pool.is_running else None

    @property
    def is_pending(self) -> bool:
        """Whether an evaluation was launched and not yet taken."""
        return self._order is not None or self._done is not None

    def launch(
        self,
        policy: Callable[[TensorDictBase], TensorDictBase],
        *,
        learned: Sequence[Learned] | None = None,
        version: int = 0,
        frames: int = 0,
        keep: object = None,
    ) -> None:
        """Start measuring a policy as it stands, and return at once.

        Args:
            policy: what is measured; it may be changed as soon as this returns.
            learned: see :meth:`Evaluator.__call__`.
            version: of its weights, returned with the result.
            frames: that it was trained on, returned with the result.
            keep: any object, returned with the result, for example the state to save if the policy is the best.

        Raises:
            ConfigError: one was launched that was not taken, or the policy is not initialised.
            ProcessError: the process had died, and so did the next one.
        """
        self._require_open()
        if self.is_pending:
            got = "one that was not taken"
            raise ConfigError(explain("launch", expected="no evaluation under way", got=got, hint="Call take() first."))
        if not self._policy.is_of(policy):
            self._policy = Structure.of(policy)
        self._order = _Order(self._policy, state_of(policy), learned, version, frames, keep)
        with self._discarded_if_it_fails():
            self._pool.start()
            self._post()

    def is_ready(self) -> bool:
        """Answer whether the launched evaluation is finished, so that :meth:`take` would return at once.

        False where none was launched. A failure that :meth:`take` would raise is raised here.
        """
        self._require_open()
        with self._discarded_if_it_fails():
            self._gather(0.0)
        return self._done is not None

    def poll(self) -> BesideResult | None:
        """Take the launched evaluation's result if it is finished; return None if it is not, or none was launched."""
        return self.take() if self.is_ready() else None

    def take(self) -> BesideResult:
        """Wait for the launched evaluation to finish, and return its result, once.

        Raises:
            ConfigError: none was launched.
            DeadlineError: it takes longer than ``timeout_s``.
            ProcessError: the process has died twice. Or what the environment or the policy raised.
        """
        self._require_open()
        if not self.is_pending:
            hint = "Call launch() first."
            raise ConfigError(explain("take", expected="an evaluation under way", got="none", hint=hint))
        self._wait()
        result, self._done = self._done, None
        return result

    def __call__(
        self, policy: Callable[[TensorDictBase], TensorDictBase], *, learned: Sequence[Learned] | None = None
    ) -> Evaluation:
        """Evaluate a policy and return the result; an evaluation launched before ends first, and its result is kept."""
        self._require_open()
        self._wait()
        waiting, self._done = self._done, None
        try:
            self.launch(policy, learned=learned)
            return self.take().evaluation
        finally:
            self._done = waiting

    def discard(self) -> None:
        """Drop a launched evaluation and its result; an unfinished one is broken off by ending the process."""
        if self._order is not None:
            self._pool.close(timeout_s=0.0)
            self._there = None
        self._order = self._done = None

    def close(self) -> None:
        """End the process, for good, within about a second; drop what was not taken. May be called twice."""
        self._is_closed = True
        self._order = self._done = None
        self._pool.close()

    def __repr__(self) -> str:
        return f"EvaluationProcess(num_episodes={self.num_episodes}, process {self.pid})"

    def _post(self) -> None:
        """Send the launched evaluation to the process, with the pickled policy unless the process has it."""
        order = self._order
        structure = None if self._there is order.structure else order.structure.pickled
        self._there = None  # until it has answered: a policy that cannot be built there is not there
        self._pool.request(0, "evaluate", structure, order.state, order.learned)

    def _wait(self) -> None:
        with self._discarded_if_it_fails():
            while self._order is not None:
                self._gather(SLICE_S)

    def _gather(self, wait_s: float) -> None:
        """Wait at most ``wait_s`` seconds for the launched evaluation: store its result, or repeat it, or raise."""
        for _, outcome in self._pool.finished(wait_s):
            if isinstance(outcome, ProcessError):
                self._repeat(outcome)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                order, self._order = self._order, None
                self._there = order.structure
                self._done = BesideResult(outcome, order.version, order.frames, order.keep)

    def _repeat(self, error: ProcessError) -> None:
        """Launch the evaluation again in a new process; raise ``error`` at the second death, and after a deadline."""
        order = self._order
        if order.was_repeated or isinstance(error, DeadlineError):
            if order.was_repeated:
                error.add_note("It was tried twice. An Evaluator in this process needs no other one.")
            raise error
        order.was_repeated = True
        self._there = None
        self._pool.replace(0)
        self.num_restarts += 1
        warnings.warn(f"{error} The evaluation is repeated in another process.", stacklevel=4)
        self._post()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ProcessError(explain("EvaluationProcess", expected="a running process", got="one that was closed"))

    @contextmanager
    def _discarded_if_it_fails(self) -> Iterator[None]:
        """Drop the launched evaluation if the block raises, and end a process that could still answer (Ctrl-C)."""
        try:
            with undone_if_lost(self.discard):
                yield
        except BaseException:
            self._order = None
            raise


def _job(make_env: Callable[[], Env], options: dict, num_threads: int, index: int) -> Job:
    arguments = (make_env, options, num_threads)
    return Job("evaluation beside training", with_registered_ids(EvaluationHost), arguments, parcel_of)


@dataclass
class _Order:
    """A launched evaluation without a result yet: what is sent to the process, and again if the process dies."""

    structure: Structure
    state: tuple
    learned: Sequence[Learned] | None
    version: int
    frames: int
    keep: object
    was_repeated: bool = False


class EvaluationHost:
    """Evaluate, inside the process of an :class:`EvaluationProcess`, the policies that are sent to it.

    Args:
        make_env: builds the environment.
        options: of the :class:`Evaluator`.
        num_threads: of torch.

    Raises:
        ConfigError: ``make_env`` makes no :class:`Env`.
    """

    COMMANDS = frozenset({"evaluate"})

    def __init__(self, make_env: Callable[[], Env], options: dict, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        env = make_env()
        if not isinstance(env, Env):
            raise ConfigError(explain("make_env", expected="a callable that makes an Env", got=f"it made {env!r}"))
        self._evaluator = Evaluator(env, **options)
        self._policy: Callable | None = None

    def evaluate(self, pickled: bytes | None, state: tuple, learned: Sequence[Learned] | None) -> Evaluation:
        """Evaluate the pickled policy, or if it is None the last one that was sent, with the weights in ``state``."""
        if pickled is not None:
            self._policy = cloudpickle.loads(pickled)
        set_state_(self._policy, state)
        return self._evaluator(self._policy, learned=learned)

    def close(self) -> None:
        """Close the environment."""
        self._evaluator.env.close()
