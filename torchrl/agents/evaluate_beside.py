"""Evaluation in a process of its own, while training goes on. It measures the weights of its launch. Trains nothing."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cloudpickle
import torch
from tensordict import TensorDictBase
from torch import nn

from torchrl.agents.evaluate import Evaluation, Evaluator
from torchrl.collectors.weights import tensors_of
from torchrl.collectors.workers import SERVE  # the same fork server: it has imported most of what is needed here
from torchrl.envs import Env
from torchrl.envs.learned import Learned
from torchrl.envs.simulators.ids import with_registered_ids
from torchrl.errors import ConfigError, DeadlineError, ProcessError, explain
from torchrl.modules import ExplorationType
from torchrl.modules.lazy import lazy_tensors
from torchrl.processes.channels import SLICE_S, too_late
from torchrl.processes.children import START_S
from torchrl.processes.remote import RemoteObject, ready
from torchrl.processes.shared_tensors import parcel_of

_DEFAULTS = Evaluator.__init__.__kwdefaults__  # where they are written
NAME = "evaluation beside training"


@dataclass(frozen=True)
class BesideResult:
    """The result of an evaluation beside training, with the version of the weights and the frame count of its launch.

    Attributes:
        evaluation: what it measured.
        version: of the policy's weights, as the launch named it.
        frames: that were trained on at the launch.
        keep: what the launch was given to be kept until now.
    """

    evaluation: Evaluation
    version: int
    frames: int
    keep: Any = None

    def metrics(self) -> dict[str, float]:
        """Return what an agent logs of it, over ``frames``."""
        return {
            "eval/return_mean": self.evaluation.mean,
            "eval/return_std": self.evaluation.std,
            "eval/policy_version": float(self.version),
        }


class EvaluationProcess:
    """An :class:`Evaluator` in a process of its own: launch it, go on training, take the result when it is there.

    The weights go along with the launch, so training may change them at once, and the result is that of an
    ``Evaluator`` here, number for number. What goes along are parameters, buffers and extra state, and what the
    transforms of the training have learned; the policy itself goes with the first launch, and again where another one
    is launched. It acts on the CPU there.

    If the process dies, a warning says so and another one repeats the evaluation, which is the same again; if that one
    dies too, it is a :class:`ProcessError`. What the environment or the policy raises there is raised by ``poll`` or
    ``take`` with its type.

    Args:
        make_env: builds the environment, there; it goes there by ``cloudpickle``.
        num_episodes: see :class:`Evaluator`.
        seed: see :class:`Evaluator`.
        start_seeds: see :class:`Evaluator`.
        exploration_type: see :class:`Evaluator`.
        every_frames: see :class:`Evaluator`.
        max_episode_steps: see :class:`Evaluator`.
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
        start_method: str = "forkserver",
        num_threads: int = 1,
        timeout_s: float = 600.0,
        start_timeout_s: float = START_S,
    ) -> None:
        if isinstance(make_env, Env) or not callable(make_env):
            hint = "Write a function that builds it: it is called in the process."
            got = repr(make_env)
            raise ConfigError(explain("EvaluationProcess", expected="a callable that makes an Env", got=got, hint=hint))
        for name, value in (("timeout_s", timeout_s), ("start_timeout_s", start_timeout_s)):
            if not value > 0:
                expected = "a positive number of seconds"
                raise ConfigError(explain(f"EvaluationProcess, {name}", expected=expected, got=value))
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
        }
        how = {"start_method": start_method, "start_timeout_s": start_timeout_s, "parcel_of": parcel_of}
        self._start = partial(_start, make_env, options, num_threads, how)
        self._timeout_s = timeout_s
        self._remote: RemoteObject | None = None
        self._policy = _Structure()
        self._there: _Structure | None = None  # what the process has
        self._order: _Order | None = None
        self._done: BesideResult | None = None
        self._is_closed = False
        self._open()

    @property
    def pid(self) -> int | None:
        """Number of the process; None where one was broken off and the next is not yet started."""
        return None if self._remote is None else self._remote.pid

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
            version: of its weights.
            frames: that it was trained on.
            keep: anything to be handed back with the result, for example the state to be saved if it is the best.

        Raises:
            ConfigError: one was launched that was not taken, or the policy is not initialised.
            ProcessError: the process had died, and so did the next one.
        """
        self._require_open()
        if self.is_pending:
            got = "one that was not taken"
            raise ConfigError(explain("launch", expected="no evaluation under way", got=got, hint="Call take() first."))
        if not self._policy.is_of(policy):
            self._policy = _Structure.of(policy)
        self._order = _Order(self._policy, state_of(policy), learned, version, frames, keep)
        with self._lost_if_it_fails():
            self._post()

    def is_ready(self) -> bool:
        """Answer whether :meth:`take` would return at once."""
        self._require_open()
        with self._lost_if_it_fails():
            self._gather(0.0)
        return self._done is not None

    def poll(self) -> BesideResult | None:
        """Return the result if it is there, once; None where it is not yet, or nothing was launched."""
        return self.take() if self.is_ready() else None

    def take(self) -> BesideResult:
        """Wait for the evaluation that was launched, and return what it measured.

        Raises:
            ConfigError: none was launched.
            DeadlineError: it takes longer than ``timeout_s``. ProcessError: the process has died twice. Or what the
                environment or the policy raised.
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
        """Evaluate a policy and wait for it; one that was launched before is finished first, and can be taken after."""
        self._require_open()
        self._wait()
        waiting, self._done = self._done, None
        try:
            self.launch(policy, learned=learned)
            return self.take().evaluation
        finally:
            self._done = waiting

    def discard(self) -> None:
        """Forget what was launched; one that is not finished is broken off."""
        if self._order is not None and self._remote is not None:
            self._remote.kill()
            self._remote = None
        self._order = self._done = None

    def close(self) -> None:
        """End the process, for good, within about a second; may be called twice."""
        self._is_closed = True
        self._order = self._done = None
        if self._remote is not None:
            self._remote.close()

    def __repr__(self) -> str:
        return f"EvaluationProcess(num_episodes={self.num_episodes}, process {self.pid})"

    def _open(self) -> None:
        self._there, remote = None, self._start()
        try:
            remote.answer(self._timeout_s)
        except BaseException:
            remote.kill()
            raise
        self._remote = remote

    def _post(self) -> None:
        order = self._order
        if self._remote is None:
            self._open()
        try:
            structure = None if self._there is order.structure else order.structure.pickled
            order.deadline = time.monotonic() + self._timeout_s
            self._remote.post("evaluate", structure, order.state, order.learned)
            self._there = None  # until it has answered: a policy that cannot be built there is not there
        except ProcessError as error:
            self._repeat(error)

    def _wait(self) -> None:
        with self._lost_if_it_fails():
            while self._order is not None:
                self._gather(SLICE_S)

    def _gather(self, timeout_s: float) -> None:
        """Wait at most so long for what was launched, and put its result by."""
        order = self._order
        if order is None:
            return
        if not ready([self._remote], timeout_s):
            if time.monotonic() > order.deadline:
                raise too_late(self._remote.where, "an evaluation", self._timeout_s)
            return
        try:
            evaluation = self._remote.answer(self._timeout_s)
        except ProcessError as error:
            self._repeat(error)
        else:
            self._order, self._there = None, order.structure
            self._done = BesideResult(evaluation, order.version, order.frames, order.keep)

    def _repeat(self, error: ProcessError) -> None:
        """Start another process and launch there what was lost with the last one; the second time, give up."""
        order = self._order
        if order.was_repeated or isinstance(error, DeadlineError):
            if order.was_repeated:
                error.add_note("It was tried twice. An Evaluator in this process needs no other one.")
            raise error
        order.was_repeated = True
        self.num_restarts += 1
        warnings.warn(f"{error} The evaluation is repeated in another process.", stacklevel=4)
        self._remote.kill()
        self._remote = None
        self._post()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ProcessError(explain("EvaluationProcess", expected="a running process", got="one that was closed"))

    @contextmanager
    def _lost_if_it_fails(self) -> Iterator[None]:
        """Forget what was launched where it fails; end a process whose answer could still come (Ctrl-C, a deadline)."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, ProcessError) or not isinstance(error, Exception):
                self.discard()
            self._order = None
            raise


def _start(make_env: Callable[[], Env], options: dict, num_threads: int, how: dict) -> RemoteObject:
    build = with_registered_ids(EvaluationHost)
    return RemoteObject(NAME, SERVE, build, make_env, options, num_threads, **how)


@dataclass(frozen=True, eq=False)
class _Structure:
    """A policy as it goes to the process: whole, but for the weights of later launches."""

    policy: object = None
    layout: tuple = ()
    pickled: bytes = b""

    @classmethod
    def of(cls, policy: Callable) -> _Structure:
        if isinstance(policy, nn.Module):
            lazy = lazy_tensors(policy)
            if lazy:
                hint = "Call it once, or initialise_lazy_(policy, env.reset()), before it is launched."
                raise ConfigError(explain("policy", expected="initialised parameters", got=f"lazy {lazy}", hint=hint))
        return cls(policy, _layout(policy), cloudpickle.dumps(_on_cpu(policy)))

    def is_of(self, policy: Callable) -> bool:
        """Answer whether a policy differs from this one by its weights alone; of what is no module nobody knows."""
        return isinstance(policy, nn.Module) and policy is self.policy and _layout(policy) == self.layout


@dataclass
class _Order:
    """What was launched."""

    structure: _Structure
    state: tuple
    learned: Sequence[Learned] | None
    version: int
    frames: int
    keep: object
    deadline: float = math.inf
    was_repeated: bool = field(default=False)


class EvaluationHost:
    """An evaluator and a copy of the policy, in the process.

    Args:
        make_env: builds the environment.
        options: of the :class:`Evaluator`.
        num_threads: of torch.
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
        """Measure a policy: one that is sent along, or the last one, with the given weights."""
        if pickled is not None:
            self._policy = cloudpickle.loads(pickled)
        set_state_(self._policy, state)
        return self._evaluator(self._policy, learned=learned)

    def close(self) -> None:
        """Close the environment."""
        self._evaluator.env.close()


def state_of(policy: Callable) -> tuple[list[torch.Tensor], dict[str, object]]:
    """Copy what training changes in a policy: parameters, all buffers, and the extra state of its modules by path."""
    if not isinstance(policy, nn.Module):
        return [], {}
    extra = {path: copy.deepcopy(module.get_extra_state()) for path, module in _with_extra_state(policy)}
    return [tensor.detach().to("cpu", copy=True) for tensor in tensors_of(policy)], extra


@torch.no_grad()
def set_state_(policy: Callable, state: tuple[list[torch.Tensor], dict[str, object]]) -> None:
    """Write :func:`state_of` into a copy of the policy."""
    if not isinstance(policy, nn.Module):
        return
    tensors, extra = state
    for mine, came in zip(tensors_of(policy), tensors, strict=True):
        mine.copy_(came)
    for path, module in _with_extra_state(policy):
        module.set_extra_state(extra[path])


def _with_extra_state(policy: nn.Module) -> list[tuple[str, nn.Module]]:
    plain = nn.Module.get_extra_state
    return [(path, module) for path, module in policy.named_modules() if type(module).get_extra_state is not plain]


def _layout(policy: Callable) -> tuple:
    tensors = tensors_of(policy) if isinstance(policy, nn.Module) else []
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def _on_cpu(policy: Callable) -> Callable:
    is_elsewhere = isinstance(policy, nn.Module) and any(x.device.type != "cpu" for x in tensors_of(policy))
    return copy.deepcopy(policy).cpu() if is_elsewhere else policy
