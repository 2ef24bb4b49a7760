"""An Env whose simulators are stepped in worker processes that import no torch.

Observations, rewards and actions lie in shared memory; a step is one small message to each worker and one back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Space

from torchrl.envs.simulators.ids import with_registered_ids
from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.batches import Actions, copy_actions
from torchrl.envs.vector.building import Factory, factories_of, require_free_names, shares_of
from torchrl.envs.vector.serving import SimulatorHost, cut_buffers
from torchrl.envs.vector.worker import Options, not_restarted
from torchrl.errors import ConfigError, EnvError, explain
from torchrl.processes.children import START_S
from torchrl.processes.pool import Job, WorkerPool
from torchrl.processes.remote import call_frame
from torchrl.processes.shared_memory import SharedMemory, size_of
from torchrl.processes.shared_tensors import parcel_of

SERVE = "torchrl.envs.vector.serving:serve"
ADVANCE = call_frame("advance")


class ParallelEnv(WorkerEnv):
    """Step a batch of simulators in worker processes; its transitions equal those of a :class:`SerialEnv`, bit for bit.

    The constructor starts the processes. After :meth:`close`, and after a process was lost, the next ``reset()`` of all
    rows starts new ones. A simulator's exception is raised here with its type; a process that dies or does not answer
    is a ``ProcessError`` that names it and its rows. A copy (``copy.deepcopy``, ``pickle``) starts processes of its
    own, with simulators built anew, and is reset before it steps.

    Messages cost about 30 to 100 µs a step: simulators that take longer than that to step gain, cheaper ones lose
    against :class:`SerialEnv`. For policies on few cores, collectors in processes gain more.

    >>> from torchrl.envs.simulators import gym_simulator
    >>> env = ParallelEnv(lambda: gym_simulator("CartPole-v1"), num_envs=4, num_workers=2)
    >>> env.reset(seed=0)["observation"].shape
    torch.Size([4, 4])
    >>> len(env.pids)
    2
    >>> env.close()

    Args:
        make_simulator: builds one simulator, in a worker process; or a sequence of such callables, one per row. What
            they refer to in ``__main__`` is sent along, and so are ids registered with gymnasium; modules are imported
            there by name.
        num_envs: how many rows, batch size ``[num_envs]``; None gives one simulator with batch size ``[]``.
        num_workers: how many processes, each with as equal a share of the rows as possible; None takes one per core.
        env_kwargs: keyword arguments for each factory: a mapping for all of them, or a sequence with one per row.
        start_method: ``"forkserver"``, ``"spawn"`` or ``"fork"``; see :mod:`torchrl.processes.children`.
        timeout_s: the longest wait for a worker, in seconds, for any one call.
        start_timeout_s: the longest wait for a worker to start: to import what it needs and build its simulators.

    Raises:
        ConfigError: counts that contradict each other, or no such start method.
        EnvError: a factory does not return a simulator, or the simulators' spaces differ.
        ProcessError: from any use, a worker was lost.
    """

    def __init__(
        self,
        make_simulator: Factory | Sequence[Factory],
        num_envs: int | None = None,
        *,
        num_workers: int | None = None,
        env_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        start_method: str = "forkserver",
        timeout_s: float = 60.0,
        start_timeout_s: float = START_S,
    ) -> None:
        factories = factories_of("ParallelEnv", make_simulator, num_envs)
        worker = ProcessWorker(
            _factories_with(factories, env_kwargs),
            _number_of_workers(num_workers, len(factories)),
            start_method=start_method,
            timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
        )
        try:
            require_free_names("ParallelEnv", worker.observation_space)
            super().__init__(
                lambda buffers: worker,  # its processes write these buffers already
                observation_space=worker.observation_space,
                action_space=worker.action_space,
                batch_size=() if num_envs is None and callable(make_simulator) else (len(factories),),
                buffers=worker.buffers,
            )
        except BaseException:
            worker.close()
            raise

    @property
    def num_workers(self) -> int:
        """How many processes there are."""
        return len(self._worker.shares)

    @property
    def pids(self) -> list[int]:
        """The process id of each worker; empty while closed."""
        return self._worker.pids

    @property
    def step_limit(self) -> float:
        """The least step limit of all rows; asks the processes, and starts them where they do not run."""
        return self._worker.step_limit()

    @property
    def task(self) -> str:
        """The id of the task of all rows; asks the processes, and starts them where they do not run."""
        return self._worker.task()

    @property
    def learning_wrapper(self) -> str:
        """Class name of a wrapper in any row that normalises by statistics it still updates; empty without one.

        Asks the processes, and starts them where they do not run; see :attr:`Env.learning_wrapper`.
        """
        return self._worker.learning_wrapper()

    def __repr__(self) -> str:
        return f"ParallelEnv(batch_size={list(self.batch_size)}, num_workers={self.num_workers})"


class ProcessWorker:
    """The worker of a :class:`ParallelEnv` in the calling process: it passes each call on to the worker processes.

    Each process writes its rows of one batch, in memory that it shares with this process.

    Args:
        factories: one per row.
        num_workers: how many processes.
        start_method: see :mod:`torchrl.processes.children`.
        timeout_s: the longest wait for an answer.
        start_timeout_s: the longest wait for the start.

    Attributes:
        shares: the rows of each process.
        buffers: where the processes write.
        turn: index, 0 or 1, of the buffer of the current root; a step flips it, and writes the other root.
        observation_space: of one simulator.
        action_space: of one simulator.
    """

    takes_arrays = False  # of indices, as Worker has it: lists are what messages hold

    def __init__(self, factories: Sequence[Factory], num_workers: int, **how: Any) -> None:
        self.shares = shares_of(len(factories), num_workers)
        self._arguments = {"factories": factories, "num_workers": num_workers, **how}
        self._num_rows = len(factories)
        self._pool = WorkerPool("ParallelEnv", SERVE, partial(_job, factories, self.shares), num_workers, **how)
        self._pool.start()
        try:
            spaces = self._pool.call("spaces")
            self.observation_space, self.action_space = spaces[0]
            self._require_spaces(spaces)
            cut = partial(cut_buffers, self.observation_space, self.action_space, self._num_rows)
            self._memory = SharedMemory(size_of(cut))
            self.buffers, self._actions = cut(self._memory.array)
            self._share_memory()
        except BaseException:
            self._pool.close()
            raise
        self.turn = 0
        self._has_ended = np.ones(self._num_rows, dtype=bool)  # to be restarted before their next step
        self._is_half_stepped = False  # a step failed: some rows were stepped, others not

    def __getstate__(self) -> dict:
        """Return the attributes for a copy, which starts processes of its own."""
        return self._arguments

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    @property
    def pids(self) -> list[int]:
        """The process id of each process; empty while closed."""
        return self._pool.pids

    def step_limit(self) -> float:
        """Return the least :meth:`Simulator.step_limit` of all rows."""
        self._start()
        return min(self._pool.call("step_limit"))

    def task(self) -> str:
        """Return the id of the task of all rows; empty where it is not known, or not the same in all."""
        self._start()
        tasks = set(self._pool.call("task"))
        return tasks.pop() if len(tasks) == 1 else ""

    def learning_wrapper(self) -> str:
        """Return the class name of a wrapper in any row that still updates running statistics; empty without one."""
        self._start()
        return max(self._pool.call("learning_wrapper"))

    def advance(self, actions: Actions) -> bool:
        """Let the processes step every row and restart none; answer whether any row ended. See :meth:`Worker.advance`.

        Raises:
            EnvError: a row was not restarted, the processes do not run, or a step before failed in some of them.
        """
        if not self._pool.is_running or self._is_half_stepped:
            got = (
                "some that a failed step left in between" if self._is_half_stepped else "processes that are not running"
            )
            hint = "Call reset() first."
            raise EnvError(explain("step", expected="every row inside an episode", got=got, hint=hint))
        if self._has_ended.any():
            raise not_restarted(np.flatnonzero(self._has_ended).tolist())
        copy_actions(self._actions, actions)
        self._is_half_stepped = True
        ended = any(self._pool.call_frame(ADVANCE))
        self._is_half_stepped = False
        self.turn ^= 1
        if ended:
            np.copyto(self._has_ended, self.buffers.next["done"][:, 0])
        return ended

    def restart(
        self, indices: Sequence[int], seeds: Sequence[int | None] | None = None, options: Options = None
    ) -> None:
        """Restart the given rows; for all rows, first start processes that do not run. See :meth:`Worker.restart`.

        Raises:
            EnvError: some rows only, while the processes do not run.
        """
        is_whole = len(indices) == self._num_rows
        if not self._pool.is_running and not is_whole:
            expected, hint = "processes that run", "Call reset() for all rows first."
            raise EnvError(explain("reset of some rows", expected=expected, got="closed ones", hint=hint))
        self._start()
        is_shared = options is None or isinstance(options, Mapping)
        arguments = {}
        for worker, positions in self._positions(indices).items():
            local = [indices[position] - self.shares[worker].start for position in positions]
            own_seeds = None if seeds is None else [seeds[position] for position in positions]
            own_options = options if is_shared else [options[position] for position in positions]
            arguments[worker] = (local, own_seeds, own_options)
        self._call_each("restart", arguments)
        self._has_ended[list(indices)] = False
        if is_whole:
            self._is_half_stepped = False

    def require_ability(self, ability: str) -> None:
        """Raise an error if a simulator in any process lacks an ability, ``"seeds"`` or ``"options"``."""
        self._call_all("require_ability", ability)

    def freeze(self, indices: Sequence[int]) -> None:
        """Freeze the given rows until :meth:`restart`; see :meth:`Worker.freeze`."""
        positions = self._positions(indices)
        local = {worker: [indices[at] - self.shares[worker].start for at in own] for worker, own in positions.items()}
        self._call_each("freeze", {worker: (own,) for worker, own in local.items()})
        self._has_ended[list(indices)] = False

    def render(self) -> list:
        """Return one frame per row, from all processes; see :meth:`Worker.render`."""
        return [frame for frames in self._call_all("render") for frame in frames]

    def get_state(self) -> dict:
        """Return the state of all simulators and the current root, as :meth:`SimulatorWorker.get_state` does.

        Raises:
            EnvError: a simulator cannot save its state, or a step failed after some rows were stepped.
        """
        if self._is_half_stepped:
            expected, got = "rows that were stepped alike", "some that a failed step left in between"
            raise EnvError(explain("state_dict", expected=expected, got=got, hint="Call reset() first."))
        return _join(self._call_all("get_state"))

    def set_state(self, state: dict) -> None:
        """Restore the state from :meth:`get_state`, of this class or of a serial worker."""
        self._start()
        shares = [_share_of(state, slice(share.start, share.stop)) for share in self.shares]
        self._call_each("set_state", {worker: (share,) for worker, share in enumerate(shares)})
        np.copyto(self._has_ended, state["has_ended"])
        self._is_half_stepped = False

    def close(self) -> None:
        """End the processes; may be called twice."""
        self._pool.close()

    def _call_all(self, method: str, *arguments: object) -> list:
        """Call a method of the worker in every process; return the results in order."""
        self._start()
        return self._call_each(method, dict.fromkeys(range(len(self.shares)), arguments))

    def _call_each(self, method: str, arguments: Mapping[int, tuple]) -> list:
        """Call a method of the worker in some processes, each with its own arguments; return the results."""
        each = {worker: (self.turn, method, *own) for worker, own in arguments.items()}
        return self._pool.call_each("call_worker", each)

    def _start(self) -> None:
        """Start the processes again, if they do not run."""
        if self._pool.is_running:
            return
        self._pool.start()
        try:
            self._require_spaces(self._pool.call("spaces"))
            self._share_memory()
        except BaseException:
            self._pool.close()
            raise
        self._has_ended[:] = True
        self._is_half_stepped = False

    def _share_memory(self) -> None:
        self._pool.call("map_memory", self._memory.size, self._num_rows, descriptors=[self._memory.descriptor])

    def _require_spaces(self, spaces: Sequence[tuple[Space, Space]]) -> None:
        """Refuse processes whose simulators' spaces differ from those at the first start."""
        own = (self.observation_space, self.action_space)
        for share, others in zip(self.shares, spaces, strict=True):
            for name, mine, other in zip(("observation_space", "action_space"), own, others, strict=True):
                if other != mine:
                    expected, got = f"the same {name} in every row: {mine}", f"{other} in row {share.start}"
                    raise EnvError(explain("ParallelEnv", expected=expected, got=got))

    def _positions(self, indices: Sequence[int]) -> dict[int, list[int]]:
        """Return, for each process with any of the given rows, the positions of its rows in ``indices``."""
        positions: dict[int, list[int]] = {}
        for worker, share in enumerate(self.shares):
            own = [position for position, index in enumerate(indices) if index in share]
            if own:
                positions[worker] = own
        return positions


def _job(factories: Sequence[Factory], shares: Sequence[range], index: int) -> Job:
    share = shares[index]
    rows = f"row {share.start}" if len(share) == 1 else f"rows {share.start} to {share.stop - 1}"
    arguments = ([factories[row] for row in share], share.start)
    return Job(f"worker {index} ({rows})", with_registered_ids(SimulatorHost), arguments, parcel_of)


def _number_of_workers(num_workers: int | None, num_envs: int) -> int:
    if num_workers is None:
        return min(num_envs, len(os.sched_getaffinity(0)))
    if not isinstance(num_workers, int) or not 1 <= num_workers <= num_envs:
        expected = f"num_workers from 1 to the {num_envs} rows"
        raise ConfigError(explain("ParallelEnv", expected=expected, got=num_workers))
    return num_workers


def _factories_with(
    factories: Sequence[Callable], env_kwargs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
) -> list[Callable]:
    if env_kwargs is None:
        return list(factories)
    each = [env_kwargs] * len(factories) if isinstance(env_kwargs, Mapping) else list(env_kwargs)
    if len(each) != len(factories) or not all(isinstance(one, Mapping) for one in each):
        expected = f"a mapping, or one for each of the {len(factories)} rows"
        raise ConfigError(explain("ParallelEnv, env_kwargs", expected=expected, got=env_kwargs))
    return [partial(factory, **kwargs) for factory, kwargs in zip(factories, each, strict=True)]


def _join(states: Sequence[Any]) -> Any:
    """Join the states of several workers: concatenate lists and arrays, join dicts key by key."""
    first = states[0]
    if isinstance(first, dict):
        return {key: _join([state[key] for state in states]) for key in first}
    if isinstance(first, np.ndarray):
        return np.concatenate(states)
    return [item for state in states for item in state]


def _share_of(state: Any, rows: slice) -> Any:
    return {key: _share_of(value, rows) for key, value in state.items()} if isinstance(state, dict) else state[rows]
