"""What the parent process knows of each worker of a collector, and the pool of the workers' processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.collectors.hosting import CollectorHost, Report
from torchrl.collectors.weights import on_cpu, tensors_of
from torchrl.devices import find_device
from torchrl.envs.base import Env
from torchrl.envs.learned import Learned
from torchrl.envs.simulators.ids import with_registered_ids
from torchrl.errors import ConfigError, explain
from torchrl.processes.pool import Job, WorkerPool
from torchrl.processes.shared_memory import SharedMemory
from torchrl.processes.shared_tensors import memory_of, parcel_of
from torchrl.seeding import named_seeds

SERVE = "torchrl.collectors.hosting:serve"
MAX_RESTARTS = 3  # of one worker in a row, without a batch in between
Info = tuple[TensorDictBase | None, TensorDictBase | None]  # agent_info and env_info, see Env.set_info_


class Worker:
    """Hold the parent's counters and statistics of one worker; they stay when the worker's process is replaced.

    Args:
        index: of the worker.
        name: for messages.
        device: where its copy of the policy acts.
    """

    def __init__(self, index: int, name: str, device: str) -> None:
        self.index = index
        self.name = name
        self.device = device
        self.rows = slice(0, 0)  # of all workers' rows
        self.num_trajectories = 0
        self.num_restarts = 0
        self.warm_up_frames = 0
        self.earlier_warm_up_frames = 0  # of the processes before this one
        self.learned: Learned = {}  # what its transforms had learned with its last batch
        self.memory: SharedMemory | None = None  # of its batches, where it has memory of its own
        self.shared: TensorDict | None = None

    @property
    def num_rows(self) -> int:
        """How many environments the worker has."""
        return self.rows.stop - self.rows.start

    def record(self, report: Report) -> None:
        """Copy the counts and the transforms' statistics out of a report that came with a batch."""
        self.num_trajectories = report.num_trajectories
        self.learned = {**self.learned, **report.learned}
        self.warm_up_frames = self.earlier_warm_up_frames + report.warm_up_frames

    def last_state(self) -> dict:
        """Return what a checkpoint of a closed collector saves of this worker; :meth:`load_state` takes it."""
        return {"num_trajectories": self.num_trajectories, "learned": self.learned}

    def load_state(self, state: dict, warm_up_frames: int) -> bool:
        """Restore a worker's counters from ``state``; return whether its process must load ``state`` as well."""
        facts = state.get("collector", state)
        self.num_trajectories, self.learned = facts["num_trajectories"], facts["learned"]
        self.warm_up_frames = warm_up_frames
        if facts is state:
            return False
        self.earlier_warm_up_frames = warm_up_frames - state["warm_up_frames"]
        return True

    def seeds_from(self, seed: int, num_restarts: int) -> tuple[int, int]:
        """Return two seeds: one to derive the environments' seeds from, one to derive the policies' seeds from.

        Args:
            seed: of the collector.
            num_restarts: of all its workers; a replaced worker gets seeds that depend on it, so none comes twice.
        """
        stream = f"restart {num_restarts}"
        seeds = named_seeds(seed, "policies", stream, f"policies, {stream}")
        is_first = not self.num_restarts
        return seed if is_first else seeds[stream], seeds["policies" if is_first else f"policies, {stream}"]

    def rows_of(self, info: Info) -> Info:
        """Return copies of this worker's rows of two TensorDicts ``[num_envs]`` over all workers; None stays None."""
        return tuple(None if one is None else one[self.rows].clone() for one in info)


def collector_pool(
    who: str,
    factories: Sequence[Callable[[], Env]],
    policy: Callable | None,
    *,
    num_threads: int,
    on_worker_failure: str,
    **how: Any,
) -> WorkerPool:
    """Return the pool of a collector's workers, each with an environment and a copy of the policy.

    Args:
        who: for messages.
        factories: one per worker, builds its environment.
        policy: each worker gets a copy on the CPU, also of tensors in shared memory, which could change as it acts.
        num_threads: of torch in each worker.
        on_worker_failure: ``"raise"`` or ``"restart"``.
        how: other options of :class:`WorkerPool`.

    Raises:
        ConfigError: another ``on_worker_failure``.
    """
    if on_worker_failure not in ("raise", "restart"):
        expected, got = '"raise" or "restart"', repr(on_worker_failure)
        raise ConfigError(explain("on_worker_failure", expected=expected, got=got))
    max_restarts = MAX_RESTARTS if on_worker_failure == "restart" else 0
    job_of = partial(_job, who, factories, on_cpu(policy), num_threads)
    return WorkerPool(who, SERVE, job_of, len(factories), awaited="a batch", max_restarts=max_restarts, **how)


def _job(
    who: str, factories: Sequence[Callable[[], Env]], policy: Callable | None, num_threads: int, index: int
) -> Job:
    weights = map(memory_of, tensors_of(policy)) if isinstance(policy, nn.Module) else ()
    share = partial(parcel_of, copied=frozenset(weights))
    build = with_registered_ids(CollectorHost)
    return Job(f"{who}, worker {index}", build, (factories[index], policy, num_threads), share)


def factories_of(who: str, make_env: Callable | Sequence[Callable], num_workers: int | None) -> list[Callable]:
    """Return a list of one callable per worker, each of which builds that worker's environment.

    Args:
        who: for messages.
        make_env: one callable for all workers, or a sequence of one for each.
        num_workers: how many workers; None takes one per entry of ``make_env``, which must then be a sequence.

    Raises:
        ConfigError: the numbers differ, or an entry cannot be called.
    """
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


def devices_of(who: str, devices: str | torch.device | Sequence, num_workers: int) -> list[torch.device]:
    """Return a list of one device per worker; ``devices`` is one for all, or a sequence of one for each.

    Raises:
        ConfigError: another number of devices than workers, or a device that this machine lacks.
    """
    each = [devices] * num_workers if isinstance(devices, (str, torch.device)) else list(devices)
    if len(each) != num_workers:
        expected = f"one device, or one for each of the {num_workers} workers"
        raise ConfigError(explain(f"{who}, devices", expected=expected, got=each))
    return [find_device(device) for device in each]


def require_rows(batch_size: tuple[int, ...], **infos: TensorDictBase | None) -> None:
    """Refuse each of ``infos`` that is neither None nor a TensorDict of batch size ``batch_size``.

    Raises:
        ConfigError: naming the argument.
    """
    for name, info in infos.items():
        if info is not None and (not isinstance(info, TensorDictBase) or info.batch_size != batch_size):
            got = list(info.batch_size) if isinstance(info, TensorDictBase) else type(info).__name__
            raise ConfigError(explain(name, expected=f"a TensorDict of batch size {list(batch_size)}", got=got))
