"""The base of synchronous and asynchronous collectors: it sends weights to workers, gets batches and replaces workers.

One batch of a collector over two workers::

    this process                      worker 0                     worker 1
    send "collect", newest weights -> act and step, write rows     act and step, write rows
                                      into memory both share       into memory both share
    wait for both        <- report    (counts, and what transforms have learned; no data)
    copy the rows, hand the batch out

``jobs`` starts workers and keeps the parent's notes on each; ``hosting`` runs inside them; ``transport`` lays out
batches in shared memory, and ``weights`` the weights; ``multi`` has the two subclasses, whose batches are of all
workers or of the first that is ready. Processes and deadlines: :class:`~torchrl.processes.pool.WorkerPool`.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.checks import require_policy
from torchrl.collectors.hosting import Plan, Report
from torchrl.collectors.jobs import Info, Worker, collector_pool, devices_of, factories_of, require_rows
from torchrl.collectors.single import Collector
from torchrl.collectors.transport import Layout
from torchrl.collectors.warmup import WarmUp
from torchrl.collectors.weights import SharedWeights, has_weights, require_module
from torchrl.data.batch_functions import BatchFunction, require_batch_function
from torchrl.devices import find_device
from torchrl.envs.base import Env
from torchrl.envs.learned import Learned, differences
from torchrl.errors import ConfigError, ProcessError, explain
from torchrl.modules import ExplorationType, exploration_type
from torchrl.processes.children import START_S
from torchrl.seeding import child_seeds


class MultiCollector(ABC):
    """Base class that collects batches in worker processes, each with its own environments and a copy of the policy.

    Batches have the keys of a :class:`Collector`'s; ``("collector", "policy_version")`` says with which weights each
    step was taken, and ``("collector", "traj_ids")`` are unique over all workers.

    Args:
        make_env: builds a worker's environment, ``[*B]``, there; or a sequence with one such callable per worker.
        policy: maps a root to the same root with ``action``; every worker acts with a copy of it. None acts at random.
        num_workers: how many processes; None takes one per entry of ``make_env``.
        frames_per_batch: transitions per batch, B · T.
        total_frames: stop iterating after this many frames, rounded up to whole batches; -1 never stops.
        devices: where the copies act: one for all, or one per worker.
        storage_device: the device of the batches that are returned; None is the CPU.
        seed: seeds all environments, as a :class:`Collector` over all of them would, and each copy's random streams.
        postproc: a function that is applied to every batch, in this process, before it is returned.
        update_every_batch: give the workers the present weights before every batch, besides
            :meth:`update_policy_weights_`.
        on_worker_failure: ``"raise"`` closes all workers and raises when one dies or does not answer in time.
            ``"restart"`` starts another in its place, with new episodes; its unfinished batch is dropped, and counted
            in ``dropped_frames``. An exception in an environment or the policy is raised in either case.
        start_method: see :mod:`torchrl.processes.children`.
        num_threads: of torch in each worker.
        timeout_s: the longest wait for one batch, in seconds.
        start_timeout_s: the longest wait for a worker to start: to import what it needs and build its environment.

    Attributes:
        frames: how many transitions have been returned.
        policy_version: how often the weights were updated.
        num_restarts: how many workers were started in place of others.
        dropped_frames: size, in frames, of the unfinished batches of replaced workers.

    Raises:
        ConfigError: numbers that do not fit each other, a policy that cannot be copied, or an unknown option.
        ProcessError: a worker cannot be started.
    """

    def __init__(
        self,
        make_env: Callable[[], Env] | Sequence[Callable[[], Env]],
        policy: Callable | None = None,
        *,
        frames_per_batch: int,
        num_workers: int | None = None,
        total_frames: int = -1,
        devices: str | torch.device | Sequence[str | torch.device] = "cpu",
        storage_device: torch.device | str | None = None,
        seed: int | None = None,
        postproc: BatchFunction | None = None,
        update_every_batch: bool = False,
        on_worker_failure: str = "raise",
        start_method: str = "forkserver",
        num_threads: int = 1,
        timeout_s: float = 300.0,
        start_timeout_s: float = START_S,
    ) -> None:
        self._who = type(self).__name__
        factories = factories_of(self._who, make_env, num_workers)
        require_policy(self._who, policy, total_frames)
        if update_every_batch:
            require_module(self._who, policy)
        require_batch_function(f"{self._who}, postproc", postproc)
        self.policy = policy
        self.frames_per_batch, self.total_frames = frames_per_batch, total_frames
        self.storage_device = None if storage_device is None else find_device(storage_device)
        self.postproc, self.update_every_batch = postproc, update_every_batch
        self.frames = self.policy_version = self.num_restarts = self.dropped_frames = 0
        self._seed = seed
        self._entropy = secrets.randbits(31)  # seeds the environments where nothing else does, each differently
        self._weights = SharedWeights(policy) if has_weights(policy) else None
        self._acted_before = policy.frames_acted if isinstance(policy, WarmUp) else 0
        self._layout: Layout | None = None
        self._info: Info = (None, None)
        placed = devices_of(self._who, devices, len(factories))
        self._workers = [Worker(index, f"{self._who}, worker {index}", str(at)) for index, at in enumerate(placed)]
        self._pool = collector_pool(
            self._who,
            factories,
            policy,
            num_threads=num_threads,
            on_worker_failure=on_worker_failure,
            start_method=start_method,
            timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
        )
        try:
            self._open()
        except BaseException:
            self.shutdown()
            raise

    # ---- what a subclass says --------------------------------------------------------------------------------------

    @abstractmethod
    def _frames_of(self, worker: Worker) -> int:
        """Return how many frames a worker collects when it is asked once."""

    def _source_of(self, worker: Worker) -> Callable:
        """Return the callable that makes the collector inside a worker: ``make_source`` of its plan."""
        return partial(Collector, frames_per_batch=self._frames_of(worker))

    @abstractmethod
    def _require_frames(self) -> None:
        """Refuse a ``frames_per_batch`` that is no multiple of the number of environments, which workers have told."""

    @abstractmethod
    def _share_memory(self, worker: Worker) -> None:
        """Tell a worker where to write its batches."""

    @abstractmethod
    def _receive(self, worker: Worker, report: Report | Exception) -> None:
        """Keep a worker's report on a batch that it has written, or the exception that it raised."""

    @abstractmethod
    def _stop_collecting(self, doing: str) -> None:
        """Make sure that no worker is collecting: wait for the workers, or refuse to do ``doing`` now."""

    @abstractmethod
    def collect(self) -> TensorDict:
        """Collect and return the next batch."""

    # ---- iteration -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[TensorDict]:
        """Yield batches until ``total_frames`` were collected."""
        while self.total_frames < 0 or self.frames < self.total_frames:
            yield self.collect()

    @property
    def num_envs(self) -> int:
        """How many environments there are in all workers."""
        return sum(worker.num_rows for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """The process id of each worker; empty after :meth:`shutdown`."""
        return self._pool.pids

    def update_policy_weights_(self) -> None:
        """Let every batch that begins from now on act with the present weights and buffers, and count one more version.

        A batch that is being collected keeps the weights it began with.

        Raises:
            ConfigError: the policy is a plain callable, whose weights cannot be found.
        """
        require_module(self._who, self.policy)
        if self._weights is not None:
            self._weights.publish(self.policy_version + 1)
        self.policy_version += 1

    def set_info(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Give every row parameters of its own, for the policy and for its environment's resets.

        See :meth:`Env.set_info_`. ``agent_info`` holds from the next batch on, ``env_info`` from each row's next reset.

        Args:
            agent_info: ``[num_envs]``, over all workers in order.
            env_info: ``[num_envs]``.

        Raises:
            ConfigError: a batch is being collected: take it first.
        """
        require_rows((self.num_envs,), agent_info=agent_info, env_info=env_info)
        with self._while_idle("set_info"):
            rows = {worker.index: worker.rows_of((agent_info, env_info)) for worker in self._workers}
            self._pool.call_each("set_info", rows)
        pairs = zip((agent_info, env_info), self._info, strict=True)
        self._info = tuple([old if new is None else new for new, old in pairs])  # for workers that are replaced

    def reset(self) -> None:
        """Restart every environment before the next batch; new trajectories begin.

        Raises:
            ConfigError: a batch is being collected: take it first.
        """
        with self._while_idle("reset"):
            self._pool.call("reset")

    def learned_states(self) -> list[Learned]:
        """Return the statistics of each worker's transforms after its last batch; see :meth:`Env.learned_state_dict`.

        Before each batch a worker joins the statistics of all workers into its own, by the transform's class
        (:attr:`Transform.merge_learned`).
        """
        return [dict(worker.learned) for worker in self._workers]

    def load_learned_states(self, states: Sequence[Learned], *, for_acting: bool = False) -> None:
        """Load statistics into each worker's transforms: its own, or all joined if ``states`` has another length.

        Args:
            states: of a collector's :meth:`learned_states`.
            for_acting: see :meth:`Env.load_learned_state_dict`.

        Raises:
            ConfigError: a batch is being collected: take it first.
            SpecError: the statistics are of other transforms.
        """
        num_workers = len(self._workers)
        is_own = len(states) == num_workers
        with self._while_idle("load_learned_states"):
            for_all = [([state], for_acting) for state in states] if is_own else [(states, for_acting)] * num_workers
            self._pool.call_each("load_learned_states", dict(enumerate(for_all)))
            self._ask_what_was_learned()

    def state_dict(self) -> dict:
        """Return counters, and of each worker the states of its environments and random generators.

        A worker whose process has died is replaced first, if that is allowed. After :meth:`shutdown`, or an error that
        closed the workers, there are only counters and transforms' statistics; new episodes begin after loading.

        Raises:
            ConfigError: a batch is being collected: take it first.
            ProcessError: a process has died and is not to be replaced; the workers are closed then.
        """
        if self._pool.is_running:
            with self._while_idle("state_dict"):
                workers = self._pool.call("state_dict")
        else:
            workers = [worker.last_state() for worker in self._workers]
        return {
            "frames": self.frames,
            "policy_version": self.policy_version,
            "num_restarts": self.num_restarts,
            "dropped_frames": self.dropped_frames,
            "warm_up_frames": [worker.warm_up_frames for worker in self._workers],
            "workers": {str(index): state for index, state in enumerate(workers)},
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; the policy's weights are taken as they are now.

        Raises:
            ConfigError: the state is of another number of workers, or a batch is being collected.
        """
        if len(state["workers"]) != len(self._workers):
            got = f"one of {len(state['workers'])}"
            raise ConfigError(explain(self._who, expected=f"a state of {len(self._workers)} workers", got=got))
        with self._while_idle("load_state_dict"):
            self.policy_version = state["policy_version"]
            if self._weights is not None:
                self._weights.publish(self.policy_version)
            self.num_restarts, self.dropped_frames = state["num_restarts"], state["dropped_frames"]
            loading = {}
            for worker, frames in zip(self._workers, state["warm_up_frames"], strict=True):
                own = state["workers"][str(worker.index)]
                if worker.load_state(own, frames):
                    loading[worker.index] = (own,)
                else:  # it was lost
                    self._pool.replace(worker.index)
                    self._prepare_anew(worker)
            self._pool.call_each("load_state_dict", loading)
        self.frames = state["frames"]

    def shutdown(self) -> None:
        """End all workers, for good; may be called twice."""
        self._pool.close()

    def _open(self) -> None:
        self._pool.start()
        start = 0
        for worker, batch_size in zip(self._workers, self._pool.call("batch_size"), strict=True):
            worker.rows = slice(start, start + batch_size.numel())
            start = worker.rows.stop
        self._require_frames()
        if self._weights is not None:
            self._pool.call("share_weights", self._weights.memory.size, descriptors=[self._weights.memory.descriptor])
        self._pool.call_each("prepare", {worker.index: (self._plan(worker),) for worker in self._workers})
        self._ask_what_was_learned()

    def _prepare_anew(self, worker: Worker) -> None:
        """Set up the new process of a replaced worker: weights, new seeds, new episodes, its transforms' statistics."""
        call = partial(self._pool.call_one, worker.index)
        worker.num_restarts += 1
        self.num_restarts += 1
        worker.earlier_warm_up_frames = worker.warm_up_frames
        if self._weights is not None:
            call("share_weights", self._weights.memory.size, descriptors=[self._weights.memory.descriptor])
        call("prepare", self._plan(worker))
        if any(info is not None for info in self._info):
            call("set_info", *worker.rows_of(self._info))
        if worker.learned:
            call("restore_own", worker.learned)
        worker.learned = call("learned_state_dict")
        if self._layout is not None:
            self._share_memory(worker)

    def _plan(self, worker: Worker) -> Plan:
        seed = self._entropy if self._seed is None else self._seed
        environments, policies = worker.seeds_from(seed, self.num_restarts)
        warm_up = self.policy.frames - self._acted_before if isinstance(self.policy, WarmUp) else 0
        return Plan(
            make_source=self._source_of(worker),
            device=worker.device,
            row_seeds=child_seeds(environments, self.num_envs)[worker.rows],
            policy_seed=None if self._seed is None else child_seeds(policies, worker.index + 1)[-1],
            index=worker.index,
            num_workers=len(self._workers),
            first_trajectory=worker.num_trajectories,
            warm_up_frames=max(0, -(-warm_up // len(self._workers)) - worker.warm_up_frames),
        )

    def _launch(self, worker: Worker) -> None:
        """Ask a worker for its next batch, and send it the statistics that all workers' transforms have learned."""
        kind = exploration_type()
        kind = ExplorationType.RANDOM if kind is None else kind
        learned = differences([one.learned for one in self._workers])
        self._pool.request(worker.index, "collect", self._launched_version(), kind, learned)

    def _launched_version(self) -> int:
        """Return the version of a batch whose policy has no weights in shared memory."""
        return self.policy_version

    def _gather(self, wait_s: float) -> None:
        """Wait at most ``wait_s`` for reports of workers, receive them, and replace workers whose process died."""
        for index, outcome in self._pool.finished(wait_s):
            worker = self._workers[index]
            if isinstance(outcome, ProcessError):
                self._replace(worker, outcome)
                continue
            if isinstance(outcome, Report):
                worker.record(outcome)
                if isinstance(self.policy, WarmUp):
                    acted = sum(one.warm_up_frames for one in self._workers)
                    self.policy.progress.frames = self._acted_before + acted
            self._receive(worker, outcome)

    def _replace(self, worker: Worker, error: ProcessError) -> None:
        """Replace a worker whose process died and ask the new one for a batch; raise if no restart is allowed."""
        try:
            self._pool.revive(worker.index, error, partial(self._prepare_anew, worker))
        except ProcessError:
            raise
        except Exception as other:  # of its environment or policy: that is its report
            self._receive(worker, other)
        else:
            self._launch(worker)
        self.dropped_frames += self._frames_of(worker)

    def _ask_what_was_learned(self) -> None:
        for worker, learned in zip(self._workers, self._pool.call("learned_state_dict"), strict=True):
            worker.learned = learned

    @contextmanager
    def _while_idle(self, doing: str) -> Iterator[None]:
        """Enter a ``with`` block in which no worker collects; first replace workers whose process died, or raise."""
        self._require_open()
        with self._pool.closed_if_lost():
            self._stop_collecting(doing)
            for index, error in self._pool.losses().items():
                self._pool.revive(index, error, partial(self._prepare_anew, self._workers[index]))
            yield

    def _require_open(self) -> None:
        if not self._pool.is_running:
            got, hint = "workers that were shut down", "Make another collector."
            raise ProcessError(explain(self._who, expected="running workers", got=got, hint=hint))
