"""The worker processes of a collector: start them, send them weights, ask them for batches, replace those that die.

One batch of a collector over two workers::

    this process                      worker 0                     worker 1
    send "collect", newest weights -> act and step, write rows     act and step, write rows
                                      into memory both share       into memory both share
    wait for both        <- report    (counts, and what transforms have learned; no data)
    copy the rows, hand the batch out

What runs inside a worker is in ``hosting``; how a batch lies in shared memory, in ``transport``; the weights, in
``weights``. Whether the batch is one of all workers or of the first that is ready: ``multi``.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.collectors.checks import require_policy
from torchrl.collectors.hosting import CollectorHost, Plan, Report
from torchrl.collectors.single import Collector
from torchrl.collectors.transport import Layout
from torchrl.collectors.warmup import WarmUp
from torchrl.collectors.weights import SharedWeights, tensors_of
from torchrl.data.batch_functions import BatchFunction, require_batch_function
from torchrl.devices import find_device
from torchrl.envs.base import Env
from torchrl.envs.learned import Learned, differing
from torchrl.envs.simulators.ids import with_registered_ids
from torchrl.errors import ConfigError, ProcessError, explain
from torchrl.modules import ExplorationType, exploration_type
from torchrl.processes.channels import Patience, too_late
from torchrl.processes.children import START_S
from torchrl.processes.remote import RemoteObject, answers, close_all, ready
from torchrl.processes.shared_memory import SharedMemory
from torchrl.processes.shared_tensors import memory_of, parcel_of
from torchrl.seeding import child_seeds, named_seeds

SERVE = "torchrl.collectors.hosting:serve"
MAX_RESTARTS = 3  # of one worker, without a batch in between


class MultiCollector:
    """Collect batches by worker processes, each with its own environments and a copy of the policy.

    Batches have the keys of a :class:`Collector`'s; ``("collector", "policy_version")`` says with which weights each
    row was collected, and ``("collector", "traj_ids")`` are unique over all workers.

    Args:
        make_env: builds a worker's environment, ``[*B]``, there; or a sequence with one such callable per worker.
        policy: maps a root to the same root with ``action``; every worker acts with a copy of it. None acts at random.
        num_workers: how many processes; None takes one per entry of ``make_env``.
        frames_per_batch: rows per batch.
        total_frames: stop iterating after this many frames, rounded up to whole batches; -1 never stops.
        devices: where the copies act: one for all, or one per worker.
        storage_device: where batches are handed out; None is the CPU.
        seed: seeds all environments, as a :class:`Collector` over all of them would, and each copy's random streams.
        postproc: applied to every batch before it is handed out, here.
        update_every_batch: give the workers the present weights before every batch, besides
            :meth:`update_policy_weights_`.
        on_worker_failure: ``"raise"`` closes all workers and raises when one dies or does not answer in time.
            ``"restart"`` starts another in its place, with new episodes: the batch it was at is dropped and counted,
            and the collection goes on. An exception in an environment or the policy is raised in either case.
        start_method: see :mod:`torchrl.processes.children`.
        num_threads: of torch in each worker.
        timeout_s: the longest wait for one batch, in seconds.
        start_timeout_s: the longest wait for a worker to start: to import what it needs and build its environment.

    Attributes:
        frames: rows that were handed out.
        policy_version: how often the weights were updated.
        num_restarts: how many workers were started in place of others.
        dropped_frames: rows of the batches that these were at, collected or not.

    Raises:
        ConfigError: counts that do not go together, a policy that cannot be copied, or no such option.
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
        factories = _factories(self._who, make_env, num_workers)
        _require_arguments(self._who, policy, total_frames, on_worker_failure)
        _require_seconds(timeout_s=timeout_s, start_timeout_s=start_timeout_s)
        if update_every_batch:
            self._require_weights(policy)
        self.policy = policy
        self.frames_per_batch = frames_per_batch
        self.total_frames = total_frames
        self.storage_device = None if storage_device is None else find_device(storage_device)
        require_batch_function(f"{self._who}, postproc", postproc)
        self.postproc = postproc
        self.update_every_batch = update_every_batch
        self.frames = 0
        self.policy_version = 0
        self.num_restarts = 0
        self.dropped_frames = 0
        self._seed = seed
        self._entropy = secrets.randbits(31)  # seeds the environments where nothing else does, each differently
        self._restarts = on_worker_failure == "restart"
        self._timeout_s = timeout_s
        self._weights = SharedWeights(policy) if _has_weights(policy) else None
        copied = _sendable(policy)
        placed = _devices(self._who, devices, len(factories))
        self._workers = [
            Worker(
                index,
                partial(_start, self._who, index, factory, copied, num_threads, start_method, start_timeout_s),
                device=str(device),
            )
            for index, (factory, device) in enumerate(zip(factories, placed, strict=True))
        ]
        self._acted_before = policy.frames_acted if isinstance(policy, WarmUp) else 0
        self._layout: Layout | None = None
        self._info: tuple[TensorDictBase | None, TensorDictBase | None] = (None, None)
        self._is_shut_down = False
        try:
            self._open()
        except BaseException:
            self.shutdown()
            raise

    # ---- what a subclass says --------------------------------------------------------------------------------------

    def _frames_of(self, worker: Worker) -> int:
        """How many frames a worker collects for one batch of its own."""
        raise NotImplementedError

    def _source_of(self, worker: Worker) -> Callable:
        """What makes that which collects in a worker, see :class:`~torchrl.collectors.hosting.Plan`."""
        return partial(Collector, frames_per_batch=self._frames_of(worker))

    def _require_frames(self) -> None:
        """Refuse sizes of a batch that do not go with the numbers of environments, which are known by now."""
        raise NotImplementedError

    def _share_memory(self, worker: Worker) -> None:
        """Post to a worker where to write its batches."""
        raise NotImplementedError

    def _receive(self, worker: Worker, report: Report | Exception) -> None:
        """Take over the batch that a worker has written, or note what it raised."""
        raise NotImplementedError

    def _stop_collecting(self, doing: str) -> None:
        """Let no worker collect any more, or refuse."""
        raise NotImplementedError

    def collect(self) -> TensorDict:
        """Collect and return the next batch."""
        raise NotImplementedError

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
        """The process of each worker."""
        return [worker.remote.pid for worker in self._workers]

    def update_policy_weights_(self) -> None:
        """Let every batch that begins from now on act with the present weights and buffers, and count one more version.

        A batch that is being collected keeps the weights it began with.

        Raises:
            ConfigError: the policy is a callable without weights of which this could know.
        """
        self._require_weights(self.policy)
        if self._weights is not None:
            self._weights.publish(self.policy_version + 1)
        self.policy_version += 1

    def set_info(self, *, agent_info: TensorDictBase | None = None, env_info: TensorDictBase | None = None) -> None:
        """Give every row parameters of its own, for the policy and for its environment's resets.

        See :meth:`Env.set_info_`. They hold from the next batch on, and from each row's next reset on.

        Args:
            agent_info: ``[num_envs]``, over all workers in order.
            env_info: ``[num_envs]``.

        Raises:
            ConfigError: a batch is being collected: take it first.
        """
        rows = (self.num_envs,)
        for name, info in (("agent_info", agent_info), ("env_info", env_info)):
            if info is not None and (not isinstance(info, TensorDictBase) or info.batch_size != rows):
                got = list(info.batch_size) if isinstance(info, TensorDictBase) else type(info).__name__
                raise ConfigError(explain(name, expected=f"a TensorDict of batch size {list(rows)}", got=got))
        with self._while_idle("set_info"):
            for worker in self._workers:
                worker.remote.post("set_info", *_rows_of((agent_info, env_info), worker))
            self._answers(self._workers)
        pairs = zip((agent_info, env_info), self._info, strict=True)
        self._info = tuple([old if new is None else new for new, old in pairs])  # for workers that are replaced

    def reset(self) -> None:
        """Restart every environment before the next batch; new trajectories begin.

        Raises:
            ConfigError: a batch is being collected: take it first.
        """
        with self._while_idle("reset"):
            for worker in self._workers:
                worker.remote.post("reset")
            self._answers(self._workers)

    def learned_states(self) -> list[Learned]:
        """Copy what the transforms of each worker had learned with its last batch, see :meth:`Env.learned_state_dict`.

        Before each of its batches a worker goes on from what all have learned together, where the transforms' class
        says how that is joined (:attr:`Transform.merge_learned`).
        """
        return [dict(worker.learned) for worker in self._workers]

    def load_learned_states(self, states: Sequence[Learned], *, for_acting: bool = False) -> None:
        """Let each worker take over what it had learned, or, from another number of workers, what all have together.

        Args:
            states: of a collector's :meth:`learned_states`.
            for_acting: see :meth:`Env.load_learned_state_dict`.

        Raises:
            ConfigError: a batch is being collected: take it first.
            SpecError: other transforms learned it.
        """
        each = [[state] for state in states] if len(states) == len(self._workers) else [states] * len(self._workers)
        with self._while_idle("load_learned_states"):
            for worker, own in zip(self._workers, each, strict=True):
                worker.remote.post("load_learned_states", own, for_acting)
            self._answers(self._workers)
            for worker, learned in zip(self._workers, self._call("learned_state_dict"), strict=True):
                worker.learned = learned

    def state_dict(self) -> dict:
        """Capture counters, and of each worker the environments (where they can be captured) and random streams.

        Of workers that were lost or shut down the counters are left, and what transforms had learned: what is loaded
        from them begins new episodes.

        Raises:
            ConfigError: a batch is being collected: take it first.
        """
        if self._is_shut_down:
            workers = [
                {"num_trajectories": worker.num_trajectories, "learned": worker.learned} for worker in self._workers
            ]
        else:
            with self._while_idle("state_dict"):
                for worker in self._workers:
                    worker.remote.post("state_dict")
                workers = self._answers(self._workers)
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
            ConfigError: it is of another number of workers, or a batch is being collected.
        """
        if len(state["workers"]) != len(self._workers):
            got = f"one of {len(state['workers'])}"
            raise ConfigError(explain(self._who, expected=f"a state of {len(self._workers)} workers", got=got))
        with self._while_idle("load_state_dict"):
            self.policy_version = state["policy_version"]
            if self._weights is not None:
                self._weights.publish(self.policy_version)
            self.num_restarts, self.dropped_frames = state["num_restarts"], state["dropped_frames"]
            loading = []
            for index, worker in enumerate(self._workers):
                own = state["workers"][str(index)]
                worker.warm_up_frames = state["warm_up_frames"][index]
                if "collector" not in own:
                    worker.num_trajectories = own["num_trajectories"]
                    worker.learned = own["learned"]
                    self._restart_process(worker)
                    continue
                worker.remote.post("load_state_dict", own)
                worker.num_trajectories = own["collector"]["num_trajectories"]
                worker.learned = own["collector"]["learned"]
                worker.earlier_warm_up_frames = worker.warm_up_frames - own["warm_up_frames"]
                loading.append(worker)
            self._answers(loading)
        self.frames = state["frames"]

    def shutdown(self) -> None:
        """End all workers, for good; may be called twice."""
        self._is_shut_down = True
        close_all([worker.remote for worker in self._workers if worker.remote is not None])

    # ---- workers ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        for worker in self._workers:
            worker.remote = worker.start()
        self._answers(self._workers)
        start = 0
        for worker, batch_size in zip(self._workers, self._call("batch_size"), strict=True):
            worker.first_row, worker.num_rows = start, batch_size.numel()
            start += worker.num_rows
        self._require_frames()
        for worker in self._workers:
            self._post_preparations(worker)
        for worker in self._workers:
            self._take_preparations(worker)

    def _post_preparations(self, worker: Worker) -> None:
        if self._weights is not None:
            memory = self._weights.memory
            worker.remote.post("share_weights", memory.size, descriptors=[memory.descriptor])
        worker.remote.post("prepare", self._plan(worker))
        if any(info is not None for info in self._info):
            worker.remote.post("set_info", *_rows_of(self._info, worker))
        if worker.learned:  # it is started again
            worker.remote.post("restore_own", worker.learned)
        worker.remote.post("learned_state_dict")

    def _take_preparations(self, worker: Worker) -> None:
        while worker.remote.num_pending:
            learned = worker.remote.answer(self._timeout_s)  # the last answer is what its transforms have learned
        worker.learned = learned

    def _plan(self, worker: Worker) -> Plan:
        seed = self._entropy if self._seed is None else self._seed
        stream = f"restart {self.num_restarts}"
        seeds = named_seeds(seed, "policies", stream, f"policies, {stream}")
        is_first = not worker.num_restarts
        environments = seed if is_first else seeds[stream]
        policies = seeds["policies"] if is_first else seeds[f"policies, {stream}"]
        row_seeds = child_seeds(environments, self.num_envs)[worker.first_row :][: worker.num_rows]
        policy_seed = None if self._seed is None else child_seeds(policies, worker.index + 1)[-1]
        warm_up = self.policy.frames - self._acted_before if isinstance(self.policy, WarmUp) else 0
        return Plan(
            make_source=self._source_of(worker),
            device=worker.device,
            row_seeds=row_seeds,
            policy_seed=policy_seed,
            index=worker.index,
            num_workers=len(self._workers),
            first_trajectory=worker.num_trajectories,
            warm_up_frames=max(0, -(-warm_up // len(self._workers)) - worker.warm_up_frames),
        )

    def _launch(self, worker: Worker) -> None:
        """Ask a worker for a batch."""
        kind = exploration_type()
        kind = ExplorationType.RANDOM if kind is None else kind
        worker.patience = Patience(self._timeout_s)
        try:
            worker.remote.post("collect", self._launched_version(), kind, self._differing_learned())
        except ProcessError as error:
            self._replace(worker, error)
        else:
            worker.is_pending = True

    def _differing_learned(self) -> list[Learned] | None:
        """Return what transforms have learned in each worker, of those that differ; None where none do."""
        return differing([worker.learned for worker in self._workers])

    def _launched_version(self) -> int:
        """The version that a batch of a policy without weights in shared memory has."""
        return self.policy_version

    def _update_weights_if_asked(self) -> None:
        if self.update_every_batch:
            self.update_policy_weights_()

    def _gather(self, timeout_s: float) -> None:
        """Wait at most so long, take the batches that are there, and replace the workers that were lost."""
        pending = {id(worker.remote): worker for worker in self._workers if worker.is_pending}
        for worker in pending.values():
            worker.patience.slice_s()
        for remote in ready([worker.remote for worker in pending.values()], timeout_s):
            worker = pending.pop(id(remote))
            worker.is_pending = False
            try:
                report = remote.answer(self._timeout_s)
            except ProcessError as error:
                self._replace(worker, error)
            except Exception as error:
                self._receive(worker, error)
            else:
                self._record_report(worker, report)
                self._receive(worker, report)
        for worker in pending.values():
            if worker.patience.is_over():
                worker.remote.kill()
                self._replace(worker, too_late(worker.remote.where, "a batch", self._timeout_s))

    def _record_report(self, worker: Worker, report: Report) -> None:
        worker.num_failures = 0
        worker.num_trajectories = report.num_trajectories
        worker.learned = {**worker.learned, **report.learned}
        worker.warm_up_frames = worker.earlier_warm_up_frames + report.warm_up_frames
        if isinstance(self.policy, WarmUp):
            self.policy.progress.frames = self._acted_before + sum(one.warm_up_frames for one in self._workers)

    def _replace(self, worker: Worker, error: ProcessError) -> None:
        """Start another worker in the place of one that was lost at a batch, and ask it for one; or raise.

        What its environment or policy raises on the way is its report.
        """
        worker.is_pending = False
        try:
            self._revive(worker, error)
        except ProcessError:
            raise
        except Exception as other:
            self._receive(worker, other)
        else:
            self._launch(worker)
        self.dropped_frames += self._frames_of(worker)

    def _revive(self, worker: Worker, error: ProcessError) -> None:
        """Start another worker in the place of one that was lost, again if need be; or raise."""
        while True:
            if not self._restarts or worker.num_failures >= MAX_RESTARTS:
                if self._restarts:
                    error.add_note(f"It was started {MAX_RESTARTS} times in a row without delivering a batch.")
                raise error
            worker.num_failures += 1
            try:
                self._restart_process(worker)
            except ProcessError as another:
                error = another
            else:
                return

    def _restart_process(self, worker: Worker) -> None:
        """Start another process in a worker's place, with random streams of its own and new episodes."""
        worker.remote.kill()
        worker.num_restarts += 1
        self.num_restarts += 1
        worker.earlier_warm_up_frames = worker.warm_up_frames
        worker.remote = worker.start()
        worker.remote.answer(self._timeout_s)
        self._post_preparations(worker)
        self._take_preparations(worker)
        if self._layout is not None:
            self._share_memory(worker)
            worker.remote.answer(self._timeout_s)

    def _call(self, command: str) -> list:
        for worker in self._workers:
            worker.remote.post(command)
        return self._answers(self._workers)

    def _answers(self, workers: Sequence[Worker]) -> list:
        return answers([worker.remote for worker in workers], self._timeout_s)

    def _copied(self, shared: TensorDict) -> TensorDict:
        """Copy a batch out of shared memory."""
        device = self.storage_device
        return shared.clone() if device is None or device.type == "cpu" else shared.to(device)

    @contextmanager
    def _while_idle(self, doing: str) -> Iterator[None]:
        """Do something while no worker collects."""
        self._require_open()
        with self._shut_down_if_lost():
            self._stop_collecting(doing)
            for worker in self._workers:
                if worker.remote.has_died():
                    self._revive(worker, worker.remote.death())
            yield

    def _require_weights(self, policy: Callable | None) -> None:
        if policy is not None and not isinstance(policy, nn.Module):
            expected = "a torch module, whose weights can be sent to the workers"
            raise ConfigError(explain(f"{self._who}, policy", expected=expected, got=type(policy).__name__))

    def _require_open(self) -> None:
        if self._is_shut_down:
            hint = "Make another collector."
            got = "ones that were shut down"
            raise ProcessError(explain(self._who, expected="running workers", got=got, hint=hint))

    @contextmanager
    def _shut_down_if_lost(self) -> Iterator[None]:
        """End all workers where one is lost or the wait was broken off (Ctrl-C): their answers would be mixed up."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, ProcessError) or not isinstance(error, Exception):
                self.shutdown()
            raise


class Worker:
    """What the parent knows of one worker process, and what survives its replacement."""

    def __init__(self, index: int, start: Callable[[], RemoteObject], *, device: str) -> None:
        self.index = index
        self.start = start
        self.device = device
        self.remote: RemoteObject | None = None
        self.first_row = 0
        self.num_rows = 0
        self.is_pending = False
        self.patience = Patience(0.0)
        self.num_trajectories = 0
        self.num_restarts = 0
        self.num_failures = 0  # since its last batch
        self.warm_up_frames = 0
        self.earlier_warm_up_frames = 0
        self.learned: Learned = {}  # what its transforms had learned with its last batch
        self.memory: SharedMemory | None = None
        self.shared: TensorDict | None = None


def _start(
    who: str,
    index: int,
    factory: Callable[[], Env],
    policy: Callable | None,
    num_threads: int,
    start_method: str,
    start_timeout_s: float,
) -> RemoteObject:
    arguments = (with_registered_ids(CollectorHost), factory, policy, num_threads)
    weights = map(memory_of, tensors_of(policy)) if isinstance(policy, nn.Module) else ()
    share = partial(parcel_of, copied=frozenset(weights))  # shared ones would change under a worker as it acts
    how = {"start_method": start_method, "start_timeout_s": start_timeout_s, "parcel_of": share}
    return RemoteObject(f"{who}, worker {index}", SERVE, *arguments, **how)


def _factories(who: str, make_env: Callable | Sequence[Callable], num_workers: int | None) -> list[Callable]:
    if isinstance(make_env, Env):
        hint = "Write a function that builds it: it is called in each worker."
        raise ConfigError(explain(who, expected="a callable that makes an Env", got=repr(make_env), hint=hint))
    if isinstance(make_env, str):
        hint = f'Write lambda: GymEnv("{make_env}", num_envs=...).'
        raise ConfigError(explain(who, expected="a callable that makes an Env", got=repr(make_env), hint=hint))
    if callable(make_env):
        if not isinstance(num_workers, Integral) or num_workers < 1:
            raise ConfigError(explain(who, expected="a num_workers of at least 1", got=num_workers))
        return [make_env] * num_workers
    factories = list(make_env)
    if not factories or num_workers not in (None, len(factories)) or not all(map(callable, factories)):
        expected = f"{num_workers or 'some'} callables that make an Env"
        raise ConfigError(explain(who, expected=expected, got=factories))
    return factories


def _require_arguments(who: str, policy: object, total_frames: int, on_worker_failure: str) -> None:
    require_policy(who, policy, total_frames)
    if on_worker_failure not in ("raise", "restart"):
        raise ConfigError(explain("on_worker_failure", expected='"raise" or "restart"', got=repr(on_worker_failure)))


def _require_seconds(**deadlines: float) -> None:
    for name, value in deadlines.items():
        if not value > 0:
            raise ConfigError(explain(name, expected="a positive number of seconds", got=value))


def _devices(who: str, devices: str | torch.device | Sequence, num_workers: int) -> list[torch.device]:
    each = [devices] * num_workers if isinstance(devices, (str, torch.device)) else list(devices)
    if len(each) != num_workers:
        expected = f"one device, or one for each of the {num_workers} workers"
        raise ConfigError(explain(f"{who}, devices", expected=expected, got=each))
    return [find_device(device) for device in each]


def _has_weights(policy: object) -> bool:
    return isinstance(policy, nn.Module) and bool(tensors_of(policy))


def _sendable(policy: Callable | None) -> Callable | None:
    """Return the policy on the CPU: itself where it is there."""
    if not _has_weights(policy) or all(tensor.device.type == "cpu" for tensor in tensors_of(policy)):
        return policy
    return copy.deepcopy(policy).cpu()


def _rows_of(
    info: Sequence[TensorDictBase | None], worker: Worker
) -> tuple[TensorDictBase | None, TensorDictBase | None]:
    rows = slice(worker.first_row, worker.first_row + worker.num_rows)
    return tuple(None if one is None else one[rows].clone() for one in info)
