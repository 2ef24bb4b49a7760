"""The parallel back end: simulators in worker processes that import no torch, behind the same Env as the serial one.

Observations, rewards and actions lie in shared memory; a step is one small message to each worker and one back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import Space

from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.ids import with_registered_ids
from torchrl.envs.vector.base import LOOKS, WorkerEnv
from torchrl.envs.vector.buffers import StepBuffers, copy_actions
from torchrl.envs.vector.building import factories_of, require_free_names, shares_of
from torchrl.envs.vector.serving import SimulatorHost, cut_buffers
from torchrl.envs.vector.worker import Actions, Options, cannot_copy, not_restarted
from torchrl.errors import ConfigError, EnvError, ProcessError, explain
from torchrl.processes.children import START_S
from torchrl.processes.remote import RemoteObject, answers, call_frame, close_all
from torchrl.processes.shared_memory import SharedMemory, size_of
from torchrl.processes.shared_tensors import parcel_of

SERVE = "torchrl.envs.vector.serving:serve"
ADVANCE = call_frame("advance")
# What an environment has only once its processes have told their spaces: a look at one of these starts them.
SPECS = ("observation_spec", "action_spec", "reward_spec")
TOLD_BY_PROCESSES = frozenset([*SPECS, *LOOKS, "_worker", "_action_space", "shared", "carried"])


class ParallelEnv(WorkerEnv):
    """A batch of simulators in worker processes, with the transitions of a :class:`SerialEnv`, bit for bit.

    The processes start when the specs or the first root are asked for. After :meth:`close`, and after a process was
    lost, the next ``reset()`` of all rows starts new ones. A simulator's exception is raised here with its type; a
    process that dies or does not answer is a ``ProcessError`` that names it and its rows.

    Messages cost about 30 to 100 µs a step: worlds that take longer than that to step gain, cheaper ones lose
    against :class:`SerialEnv`. For policies on few cores, collectors in processes gain more.

    Args:
        make_simulator: builds one simulator, in a worker process; or a sequence of such callables, one per row. What
            they refer to in ``__main__`` is sent along, and so are ids registered with gymnasium; modules are imported
            there by name.
        num_envs: how many rows, batch size ``[num_envs]``; None gives one world with batch size ``[]``.
        num_workers: how many processes, each with as equal a share of the rows as possible; None takes one per core.
        env_kwargs: keyword arguments for each factory: a mapping for all of them, or a sequence with one per row.
        start_method: ``"forkserver"``, ``"spawn"`` or ``"fork"``; see :mod:`torchrl.processes.children`.
        timeout_s: the longest wait for a worker, in seconds, for any one call.
        start_timeout_s: the longest wait for a worker to start: to import what it needs and build its simulators.

    Raises:
        ConfigError: counts that do not go together, or no such start method.
        EnvError: from the first use, a factory does not return a simulator, or the simulators' spaces differ.
        ProcessError: from any use, a worker was lost.
    """

    def __init__(
        self,
        make_simulator: Callable[[], Simulator] | Sequence[Callable[[], Simulator]],
        num_envs: int | None = None,
        *,
        num_workers: int | None = None,
        env_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        start_method: str = "forkserver",
        timeout_s: float = 60.0,
        start_timeout_s: float = START_S,
    ) -> None:
        self._is_started = False
        factories = factories_of("ParallelEnv", make_simulator, num_envs)
        self.batch_size = torch.Size(() if num_envs is None and callable(make_simulator) else (len(factories),))
        self.device = torch.device("cpu")
        for name, value in (("timeout_s", timeout_s), ("start_timeout_s", start_timeout_s)):
            if not value > 0:
                raise ConfigError(explain(f"ParallelEnv, {name}", expected="a positive number of seconds", got=value))
        self._pool = ProcessPool(
            _with_arguments(factories, env_kwargs),
            _checked_workers(num_workers, len(factories)),
            start_method=start_method,
            timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
        )

    @property
    def num_workers(self) -> int:
        """How many processes there are, or will be."""
        return len(self._pool.shares)

    @property
    def step_limit(self) -> float:
        """See :class:`Env`; the processes are asked, and started where they do not run."""
        self.start()
        return self._pool.step_limit()

    @property
    def learning_wrapper(self) -> str:
        """See :class:`Env`; the processes are asked, and started where they do not run."""
        self.start()
        return self._pool.learning_wrapper()

    def start(self) -> None:
        """Start the processes now, if they do not run, rather than at the first use."""
        self._pool.start()
        if self._is_started:
            return
        self._is_started = True
        try:
            require_free_names("ParallelEnv", self._pool.observation_space)
            super().__init__(
                self._pool.with_buffers,
                observation_space=self._pool.observation_space,
                action_space=self._pool.action_space,
                batch_size=self.batch_size,
                buffers=self._pool.buffers,
            )
        except BaseException:
            self._is_started = False
            self._pool.close()
            raise

    def close(self) -> None:
        """End the processes; may be called twice, and the environment used again after a ``reset()``."""
        self._pool.close()

    def __getattr__(self, name: str) -> object:
        """Start on the first look at what only running simulators can tell: the specs and what rests on them."""
        if name not in TOLD_BY_PROCESSES or "_pool" not in self.__dict__ or self._is_started:
            return super().__getattr__(name)
        self.start()
        return getattr(self, name)

    def __repr__(self) -> str:
        return f"ParallelEnv(batch_size={list(self.batch_size)}, num_workers={self.num_workers})"


class ProcessPool:
    """The worker of a parallel environment: hands each call on to the processes that hold the rows.

    Args:
        factories: one per row.
        num_workers: how many processes.
        start_method: see :mod:`torchrl.processes.children`.
        timeout_s: the longest wait for an answer.
        start_timeout_s: the longest wait for the start.

    Attributes:
        shares: the rows of each process.
        turn: which root is next; see :class:`Worker`.
    """

    observation_space: Space
    action_space: Space
    buffers: StepBuffers

    def __init__(
        self,
        factories: Sequence[Callable[[], Simulator]],
        num_workers: int,
        *,
        start_method: str,
        timeout_s: float,
        start_timeout_s: float,
    ) -> None:
        self.turn = 0
        self.shares = shares_of(len(factories), num_workers)
        self._factories = factories
        self._how = {"start_method": start_method, "start_timeout_s": start_timeout_s, "parcel_of": parcel_of}
        self._timeout_s = timeout_s
        self._remotes: list[RemoteObject] = []
        self._memory: SharedMemory | None = None
        self._actions: Actions = ()
        self._has_ended = np.ones(len(factories), dtype=bool)  # to be restarted before their next step
        self._is_astray = False  # some rows were stepped and others not

    def __getstate__(self) -> dict:
        """Return what a copy is made of: it starts processes of its own.

        Raises:
            EnvError: the processes were started.
        """
        if self._memory is not None:
            raise cannot_copy("ParallelEnv, started")
        return vars(self)

    def with_buffers(self, buffers: StepBuffers) -> ProcessPool:
        """Return this worker, whose processes write the given buffers already."""
        return self

    def start(self) -> None:
        """Start the processes, if they do not run, and let them share memory with this one."""
        if self._remotes:
            return
        build = with_registered_ids(SimulatorHost)
        try:
            for index, share in enumerate(self.shares):
                factories = [self._factories[row] for row in share]
                remote = RemoteObject(_name(index, share), SERVE, build, factories, share.start, **self._how)
                self._remotes.append(remote)
            self._answers(self._remotes)  # one failure is raised when all have answered
            for remote in self._remotes:
                remote.post("spaces")
            self._agree(self._answers(self._remotes))
            for remote in self._remotes:
                arguments = (self._memory.size, len(self._factories))
                remote.post("map_memory", *arguments, descriptors=[self._memory.descriptor])
            self._answers(self._remotes)
        except BaseException:
            self.close()
            raise
        self._has_ended[:] = True
        self._is_astray = False

    def step_limit(self) -> float:
        """Return the least :meth:`Simulator.step_limit` of all rows."""
        with self._closed_if_lost():
            for remote in self._remotes:
                remote.post("step_limit")
            return min(self._answers(self._remotes))

    def learning_wrapper(self) -> str:
        """Name the wrapper by which the worlds of some row learn; empty where none do."""
        return max(self._call_all("learning_wrapper"))

    def advance(self, actions: Actions) -> bool:
        """Step every row; see :meth:`Worker.advance`."""
        if not self._remotes or self._is_astray:
            got = "some that a failed step left in between" if self._is_astray else "processes that are not running"
            hint = "Call reset() first."
            raise EnvError(explain("step", expected="every row inside an episode", got=got, hint=hint))
        if self._has_ended.any():
            raise not_restarted(np.flatnonzero(self._has_ended).tolist())
        copy_actions(self._actions, actions)
        self._is_astray = True
        with self._closed_if_lost():
            for remote in self._remotes:
                remote.post_frame(ADVANCE)
            ended = any(self._answers(self._remotes))
        self._is_astray = False
        self.turn ^= 1
        if ended:
            np.copyto(self._has_ended, self.buffers.next["done"][:, 0])
        return ended

    def restart(
        self,
        indices: Sequence[int],
        seeds: Sequence[int | None] | None = None,
        options: Options = None,
    ) -> None:
        """Restart the given rows; see :meth:`Worker.restart`. One of all rows starts processes that do not run."""
        is_whole = len(indices) == len(self._factories)
        if not self._remotes and not is_whole:
            expected, hint = "processes that run", "Call reset() for all rows first."
            raise EnvError(explain("reset of some rows", expected=expected, got="closed ones", hint=hint))
        self.start()
        with self._closed_if_lost():
            called = []
            for remote, share in zip(self._remotes, self.shares, strict=True):
                mine = [position for position, index in enumerate(indices) if index in share]
                if not mine:
                    continue
                local = [indices[position] - share.start for position in mine]
                own_seeds = None if seeds is None else [seeds[position] for position in mine]
                shared = options is None or isinstance(options, Mapping)
                own_options = options if shared else [options[position] for position in mine]
                remote.post("restart", self.turn, local, own_seeds, own_options)
                called.append(remote)
            self._answers(called)
        self._has_ended[list(indices)] = False
        if is_whole:
            self._is_astray = False

    def require_ability(self, ability: str) -> None:
        """See :meth:`Worker.require_ability`."""
        self.start()
        with self._closed_if_lost():
            for remote in self._remotes:
                remote.post("require_ability", ability)
            self._answers(self._remotes)

    def freeze(self, indices: Sequence[int]) -> None:
        """See :meth:`Worker.freeze`."""
        with self._closed_if_lost():
            called = []
            for remote, share in zip(self._remotes, self.shares, strict=True):
                local = [index - share.start for index in indices if index in share]
                if local:
                    remote.post("freeze", local)
                    called.append(remote)
            self._answers(called)
        self._has_ended[list(indices)] = False

    def render(self) -> list:
        """See :meth:`Worker.render`."""
        return [frame for frames in self._call_all("render") for frame in frames]

    def get_state(self) -> dict:
        """Capture the simulators and the current root, in the form of :meth:`SimulatorWorker.get_state`."""
        if self._is_astray:
            expected, got = "rows that were stepped alike", "some that a failed step left in between"
            raise EnvError(explain("state_dict", expected=expected, got=got, hint="Call reset() first."))
        return _joined(self._call_all("get_state"))

    def set_state(self, state: dict) -> None:
        """Restore what :meth:`get_state`, or that of a serial worker, captured."""
        self.start()
        with self._closed_if_lost():
            for remote, share in zip(self._remotes, self.shares, strict=True):
                remote.post("set_state", self.turn, _share_of(state, slice(share.start, share.stop)))
            self._answers(self._remotes)
        np.copyto(self._has_ended, state["has_ended"])
        self._is_astray = False

    def close(self) -> None:
        """End the processes; may be called twice."""
        remotes, self._remotes = self._remotes, []
        close_all(remotes)

    def _call_all(self, command: str) -> list:
        self.start()
        with self._closed_if_lost():
            for remote in self._remotes:
                remote.post(command)
            return self._answers(self._remotes)

    def _answers(self, remotes: Sequence[RemoteObject]) -> list:
        return answers(remotes, self._timeout_s)

    @contextmanager
    def _closed_if_lost(self) -> Iterator[None]:
        """End all processes where one is lost or the wait was broken off (Ctrl-C): their answers would be mixed up."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, ProcessError) or not isinstance(error, Exception):
                self.close()
            raise

    def _agree(self, spaces: Sequence[tuple[Space, Space]]) -> None:
        """Hold the spaces of all processes against each other, and lay out the memory at the first start."""
        if self._memory is None:
            self.observation_space, self.action_space = spaces[0]
        for name, own, others in zip(
            ("observation_space", "action_space"),
            (self.observation_space, self.action_space),
            zip(*spaces, strict=True),
            strict=True,
        ):
            for share, other in zip(self.shares, others, strict=True):
                if other != own:
                    expected = f"the same {name} in every row: {own}"
                    got = f"{other} in row {share.start}"
                    raise EnvError(explain("ParallelEnv", expected=expected, got=got))
        if self._memory is not None:
            return
        cut = partial(cut_buffers, self.observation_space, self.action_space, len(self._factories))
        self._memory = SharedMemory(size_of(cut))
        self.buffers, self._actions = cut(self._memory.array)


def _name(index: int, share: range) -> str:
    rows = f"row {share.start}" if len(share) == 1 else f"rows {share.start} to {share.stop - 1}"
    return f"worker {index} ({rows})"


def _checked_workers(num_workers: int | None, num_envs: int) -> int:
    if num_workers is None:
        return min(num_envs, len(os.sched_getaffinity(0)))
    if not isinstance(num_workers, int) or not 1 <= num_workers <= num_envs:
        expected = f"num_workers from 1 to the {num_envs} rows"
        raise ConfigError(explain("ParallelEnv", expected=expected, got=num_workers))
    return num_workers


def _with_arguments(
    factories: Sequence[Callable], env_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
) -> list[Callable]:
    if env_kwargs is None:
        return list(factories)
    each = [env_kwargs] * len(factories) if isinstance(env_kwargs, Mapping) else list(env_kwargs)
    if len(each) != len(factories) or not all(isinstance(one, Mapping) for one in each):
        expected = f"a mapping, or one for each of the {len(factories)} rows"
        raise ConfigError(explain("ParallelEnv, env_kwargs", expected=expected, got=env_kwargs))
    return [partial(factory, **kwargs) for factory, kwargs in zip(factories, each, strict=True)]


def _joined(states: Sequence[Any]) -> Any:
    """Join the states of several workers: lists and arrays one after the other, dicts key by key."""
    first = states[0]
    if isinstance(first, dict):
        return {key: _joined([state[key] for state in states]) for key in first}
    if isinstance(first, np.ndarray):
        return np.concatenate(states)
    return [item for state in states for item in state]


def _share_of(state: Any, rows: slice) -> Any:
    return {key: _share_of(value, rows) for key, value in state.items()} if isinstance(state, dict) else state[rows]
