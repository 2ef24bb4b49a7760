"""The object inside a collector's worker process: an environment, a copy of the policy, and a collector over both.

It writes batches to shared memory and reads weights from there; the parent calls its methods by message.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn

from torchrl.collectors.checks import require_arguments
from torchrl.collectors.fragments import FragmentSource
from torchrl.collectors.single import Collector
from torchrl.collectors.transport import Layout, cut_batch, layout_of, require_one_layout
from torchrl.collectors.warmup import WarmUp
from torchrl.collectors.weights import WeightReader
from torchrl.envs.base import Env
from torchrl.envs.learned import Learned, equalise_, is_same, join_learned, restore_own_
from torchrl.errors import ConfigError, explain
from torchrl.modules import ExplorationType, set_exploration_type
from torchrl.modules.randomness import generators_of
from torchrl.processes.serving import serve_object
from torchrl.processes.shared_memory import SharedMemory
from torchrl.seeding import child_seeds

Source = Collector | FragmentSource


@dataclass(frozen=True)
class Plan:
    """Tell a worker process how to collect: by which collector, on which device, with which seeds and counts.

    Attributes:
        make_source: makes the collector: called with the environment, the policy, ``device`` and ``seed``.
        device: where its copy of the policy acts.
        row_seeds: one per environment of this worker; None does not seed them.
        policy_seed: seeds the random generators of its copy of the policy; None seeds them differently in every run.
        index: of this worker.
        num_workers: how many there are; ``index`` and ``num_workers`` make trajectory ids unique.
        first_trajectory: how many trajectories this worker had begun before it was started again.
        warm_up_frames: its share of the frames of a warm-up.
    """

    make_source: Callable[..., Source]
    device: str = "cpu"
    row_seeds: Sequence[int] | None = None
    policy_seed: int | None = None
    index: int = 0
    num_workers: int = 1
    first_trajectory: int = 0
    warm_up_frames: int = 0


@dataclass
class Report:
    """Tell the parent of a worker process about a finished batch: its layout, counts, and the transforms' statistics.

    Attributes:
        layout: keys, shapes and dtypes of the batch, where there is no shared memory for it yet; otherwise None.
        num_trajectories: how many trajectories the worker has begun.
        learned: the statistics of the transforms (see :meth:`Env.learned_state_dict`) that have changed since the last
            report.
        warm_up_frames: how many frames of the warm-up the worker has acted at random.
    """

    layout: Layout | None
    num_trajectories: int
    learned: Learned
    warm_up_frames: int = field(default=0)


class CollectorHost:
    """Collect batches in a worker process, each when the parent asks for it, with a copy of the policy.

    Args:
        make_env: builds the environment, ``[*B]``.
        policy: a copy of the policy; None acts at random.
        num_threads: how many threads torch uses.
    """

    COMMANDS = frozenset(
        ("batch_size", "share_weights", "prepare", "collect", "map_memory", "reset", "set_info")
        + ("state_dict", "load_state_dict", "learned_state_dict", "load_learned_states", "restore_own")
    )

    def __init__(self, make_env: Callable[[], Env], policy: Callable | None, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        env = make_env()
        require_arguments("make_env", env, policy)
        self.env = env
        self.policy = policy
        self._reader: WeightReader | None = None
        self._source: Source | None = None
        self._plan: Plan | None = None
        self._views: TensorDict | None = None
        self._waiting: TensorDict | None = None  # the first batch, until there is memory for it
        self._reported: Learned = env.learned_state_dict()  # what transforms had learned when the parent was told last

    def batch_size(self) -> torch.Size:
        """Return the batch size of the environment."""
        return self.env.batch_size

    def share_weights(self, descriptor: int, size: int) -> None:
        """Map the shared memory of the weights, and copy them into the policy now and before every batch."""
        self._reader = WeightReader(self.policy, descriptor, size)
        self._reader.refresh()

    def prepare(self, plan: Plan) -> None:
        """Make the collector, seed the environment and the policy, and set the counters, as ``plan`` says."""
        self._plan = plan
        if plan.row_seeds is not None:
            self.env.set_seed(list(plan.row_seeds))
        _begin_streams(self.policy, plan)
        if isinstance(self.policy, WarmUp):
            self.policy.frames = plan.warm_up_frames
            self.policy.progress.frames = 0
        device = None if self.policy is None else plan.device
        seed = plan.policy_seed if self.policy is None else None
        self._source = plan.make_source(self.env, self.policy, device=device, seed=seed)
        if self.policy is None and plan.row_seeds is not None:  # the seed was for the actions alone
            self.env.set_seed(list(plan.row_seeds))
        self._source.trajectories.num_begun = plan.first_trajectory

    def learned_state_dict(self) -> Learned:
        """Return the statistics that the transforms have learned; see :meth:`Env.learned_state_dict`."""
        self._reported = self.env.learned_state_dict()
        return self._reported

    def load_learned_states(self, states: Sequence[Learned], for_acting: bool) -> None:
        """Join the statistics that the transforms of one or more workers have learned, and load the result."""
        self.env.load_learned_state_dict(join_learned(self.env.transforms, states), for_acting=for_acting)

    def restore_own(self, learned: Learned) -> None:
        """Load the statistics that this worker's transforms had learned before its process died and was replaced."""
        restore_own_(self.env.transforms, learned)

    def collect(
        self, version: int, exploration: ExplorationType | None, learned: Sequence[Learned] | None = None
    ) -> Report:
        """Collect a batch, write it to shared memory if that is mapped (:meth:`map_memory`), and return a report.

        Without shared memory the batch is kept until :meth:`map_memory`.

        Args:
            version: the policy version to note, where the policy has no weights in shared memory.
            exploration: how the policy acts.
            learned: the statistics of every worker's transforms, to be joined and loaded first; None loads nothing.
        """
        source = self._source
        if learned is not None:
            equalise_(self.env.transforms, learned)
        if self._reader is not None and self._reader.refresh():
            source.update_policy_weights_()
        source.policy_version = version if self._reader is None else self._reader.version
        with set_exploration_type(exploration):
            batch = source.collect()
        _number_over_all(batch, self._plan)
        if not self.env.batch_size:
            batch = batch.unsqueeze(0)
        acted = self.policy.frames_acted if isinstance(self.policy, WarmUp) else 0
        layout = None
        if self._views is None:
            layout, self._waiting = layout_of(batch), batch
        else:
            _write(self._views, batch)
        return Report(layout, source.trajectories.num_begun, self._newly_learned(), acted)

    def _newly_learned(self) -> Learned:
        """Return the statistics of those transforms that have changed since the last report to the parent."""
        before = self._reported
        now = self.learned_state_dict() if before else before  # where none learns, nothing is asked
        return {name: tensors for name, tensors in now.items() if not is_same(tensors, before[name])}

    def map_memory(self, descriptor: int, size: int, layout: Layout, num_rows: int, start: int) -> None:
        """Map shared memory; write the kept batch, and all later ones, to its rows from ``start`` on.

        Args:
            descriptor: the open file of the memory.
            size: of the memory, in bytes.
            layout: keys, shapes and dtypes of the shared batch.
            num_rows: how many rows the shared batch has.
            start: the first row of this worker.
        """
        memory = SharedMemory(size, descriptor)
        own = slice(start, start + max(1, self.env.batch_size.numel()))
        self._views = cut_batch(layout, num_rows, memory.array)[own]
        memory.close()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            _write(self._views, waiting)

    def reset(self) -> None:
        """Restart every environment before the next batch."""
        self._source.reset()

    def set_info(self, agent_info: TensorDictBase | None, env_info: TensorDictBase | None) -> None:
        """Set parameters of each row of this worker; see :meth:`Collector.set_info`."""
        if not self.env.batch_size:  # one world is a row of the batch
            agent_info, env_info = [None if info is None else info[0] for info in (agent_info, env_info)]
        self._source.set_info(agent_info=agent_info, env_info=env_info)

    def state_dict(self) -> dict:
        """Return the state of the collector and of the random generators of the copy of the policy."""
        return {
            "collector": self._source.state_dict(),
            "generators": {path: one.get_state() for path, one in generators_of(self._source.policy).items()},
            "torch_rng": torch.get_rng_state(),
            "warm_up_frames": self.policy.frames_acted if isinstance(self.policy, WarmUp) else 0,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""
        if self._reader is not None:
            self._reader.refresh()
        self._source.load_state_dict(state["collector"])
        for path, generator in generators_of(self._source.policy).items():
            generator.set_state(state["generators"][path])
        torch.set_rng_state(state["torch_rng"])
        if isinstance(self.policy, WarmUp):
            self.policy.progress.frames = state["warm_up_frames"]

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def _begin_streams(policy: Callable | None, plan: Plan) -> None:
    """Seed the generators of this copy of the policy by the plan, so that no two workers draw the same numbers."""
    generators = list(generators_of(policy).values()) if isinstance(policy, nn.Module) else []
    if plan.policy_seed is None:
        torch.seed()
        for generator in generators:
            generator.manual_seed(child_seeds(generator.initial_seed(), plan.index + 1)[-1])
        return
    seeds = child_seeds(plan.policy_seed, len(generators) + 1)
    torch.manual_seed(seeds[-1])
    for generator, seed in zip(generators, seeds, strict=False):
        generator.manual_seed(seed)


def _number_over_all(batch: TensorDictBase, plan: Plan) -> None:
    """Edit the trajectory ids of a worker's batch so that they are unique over all workers."""
    facts = batch.get("collector", None)
    facts = batch.get(("batch", "collector")) if facts is None else facts
    facts.get("traj_ids").mul_(plan.num_workers).add_(plan.index)


def _write(views: TensorDict, batch: TensorDictBase) -> None:
    layout = layout_of(batch)
    if layout != layout_of(views):
        require_one_layout([layout_of(views), layout], ["its first batch", "a batch"])
    if batch.batch_size != views.batch_size:
        expected = f"a batch of size {list(views.batch_size)}"
        raise ConfigError(explain("Collector", expected=expected, got=list(batch.batch_size)))
    views.update_(batch)


def serve(connection: socket.socket) -> None:
    """Run a collector's worker process; see :func:`~torchrl.processes.serving.serve_object`."""
    serve_object(connection)
