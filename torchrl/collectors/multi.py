"""Two collectors over several worker processes: all workers fill one batch together, or each makes its own batches.

Their common base, which starts workers, sends them weights and replaces them, is in ``workers``.
"""

from __future__ import annotations

from collections import deque
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.collectors.checks import postprocess, steps_of
from torchrl.collectors.hosting import Report
from torchrl.collectors.jobs import Worker
from torchrl.collectors.transport import Layout, copy_out, cut_batch, require_one_layout
from torchrl.collectors.workers import MultiCollector
from torchrl.errors import ConfigError, ProcessError, SpecError, explain
from torchrl.processes.channels import SLICE_S
from torchrl.processes.shared_memory import SharedMemory, size_of


class MultiSyncCollector(MultiCollector):
    """Collect batches ``[B, T]`` with all workers at the same time; each worker fills its own rows of every batch.

    ``B`` is the number of environments in all workers, in their order, and ``frames_per_batch`` a multiple of it. A
    batch's rows all have the same policy version, so it suits on-policy learning. With one seed and actions that do not
    depend on chance, the batches are those of one process.

    ``collect()`` is ``launch()`` and ``take()`` in one; call them apart to do other work while workers collect.

    >>> from torchrl.envs import GymEnv
    >>> make_env = partial(GymEnv, "CartPole-v1", num_envs=2)
    >>> collector = MultiSyncCollector(make_env, actor, num_workers=2, frames_per_batch=32)
    >>> collector.collect().shape  # the rows of the first worker, then those of the second
    torch.Size([4, 8])
    >>> collector.shutdown()
    """

    def _frames_of(self, worker: Worker) -> int:
        return self.frames_per_batch // self.num_envs * worker.num_rows

    def _require_frames(self) -> None:
        steps_of(self.frames_per_batch, self.num_envs)

    def launch(self) -> None:
        """Start collecting a batch, with the weights of the last update, and return at once.

        With ``update_every_batch`` it takes the weights as they are now.

        Raises:
            ConfigError: a batch is being collected already.
        """
        self._require_open()
        if self._is_under_way():
            raise ConfigError(explain("launch", expected="no batch under way", got="one", hint="Call take() first."))
        with self._pool.closed_if_lost():
            if self.update_every_batch:
                self.update_policy_weights_()
            if self._staged is not None:
                self._weights.publish(self.policy_version, self._staged)
                self._staged = None
            self._version = self.policy_version
            for worker in self._workers:
                self._launch(worker)

    def is_ready(self) -> bool:
        """Answer whether :meth:`take` would return at once.

        Raises:
            ConfigError: no batch was launched.
        """
        self._require_launched("is_ready")
        with self._pool.closed_if_lost():
            self._gather(0.0)
        return len(self._reports) == len(self._workers)

    def take(self) -> TensorDict:
        """Wait for the batch that was launched and return it, ``[B, T]``.

        Raises:
            ConfigError: none was launched.
            ProcessError: a worker's process died. Or the exception of an environment or the policy, that of the first
                worker with one; the rows of all workers are dropped then.
        """
        self._require_launched("take")
        with self._pool.closed_if_lost():
            while not self._is_complete():
                self._gather(SLICE_S)
            failures, self._reports = self._failures(), {}
            if failures:
                raise failures[0]
            batch = copy_out(self._shared, self.storage_device)
        self.frames += batch.numel()
        return postprocess(self.postproc, batch)

    def update_policy_weights_(self) -> None:
        """Let every batch that is launched from now on act with the present weights, and count one more version.

        A batch that is being collected keeps the weights that it was launched with, in all workers. See
        :meth:`MultiCollector.update_policy_weights_`.
        """
        if self._weights is None or not self._is_under_way():
            super().update_policy_weights_()
            return
        self._staged = self._weights.snapshot()
        self.policy_version += 1

    def collect(self) -> TensorDict:
        """Return the batch that was launched, or launch the next one and return it, ``[B, T]``."""
        if not self._is_under_way():
            self.launch()
        return self.take()

    def _open(self) -> None:
        self._reports: dict[int, Report | Exception] = {}
        self._staged: list[torch.Tensor] | None = None  # weights of an update while a batch is under way
        self._version = 0
        super()._open()

    def _launched_version(self) -> int:
        return self._version

    def _receive(self, worker: Worker, report: Report | Exception) -> None:
        self._reports[worker.index] = report

    def _failures(self) -> list[Exception]:
        return [one for _, one in sorted(self._reports.items()) if isinstance(one, Exception)]

    def _is_complete(self) -> bool:
        """Answer whether all workers have reported, with rows in shared memory or an error; see :meth:`_lay_out`."""
        if len(self._reports) < len(self._workers):
            return False
        if not self._failures():
            self._lay_out()
        return len(self._reports) == len(self._workers)

    def _lay_out(self) -> None:
        """Make shared memory by the first batch's layout, and let workers that have none write their batch into it.

        A worker that dies at this is replaced, and collects another batch.
        """
        if self._layout is None:
            layouts = [self._reports[worker.index].layout for worker in self._workers]
            require_one_layout(layouts, [worker.name for worker in self._workers])
            self._layout = layouts[0]
            cut = partial(cut_batch, self._layout, self.num_envs)
            self._memory = SharedMemory(size_of(cut))
            self._shared = cut(self._memory.array)
        for worker in self._workers:
            report = self._reports[worker.index]
            if report.layout is None:
                continue
            try:
                self._share_memory(worker)
                report.layout = None
            except ProcessError as error:
                del self._reports[worker.index]
                self._replace(worker, error)

    def _share_memory(self, worker: Worker) -> None:
        arguments = (self._memory.size, self._layout, self.num_envs, worker.rows.start)
        self._pool.call_one(worker.index, "map_memory", *arguments, descriptors=[self._memory.descriptor])

    def _is_under_way(self) -> bool:
        return bool(self._reports) or self._pool.has_requests

    def _require_launched(self, doing: str) -> None:
        self._require_open()
        if not self._is_under_way():
            hint = "Call launch() first."
            raise ConfigError(explain(doing, expected="a batch that was launched", got="none", hint=hint))

    def _stop_collecting(self, doing: str) -> None:
        if self._is_under_way():
            raise ConfigError(explain(doing, expected="no batch under way", got="one", hint="Call take() first."))


class MultiAsyncCollector(MultiCollector):
    """Return batches ``[B, T]``, each of one worker, in the order in which they finish, while other workers collect.

    ``B`` is the number of environments of the worker, and ``frames_per_batch`` a multiple of it. When a batch is taken,
    its worker begins the next one at once, with the weights of that moment (``("collector", "policy_version")``), while
    the learner trains on the taken one. A worker whose batch is not taken yet does not begin another. With one worker
    this is double buffering: one batch is collected while the learner trains on another.

    ``is_ready()`` tells whether a batch is there; ``take()`` is ``collect()``.

    >>> from torchrl.envs import GymEnv
    >>> make_env = partial(GymEnv, "CartPole-v1", num_envs=2)
    >>> collector = MultiAsyncCollector(make_env, actor, num_workers=2, frames_per_batch=32)
    >>> collector.collect().shape  # the rows of one worker, which begins its next batch at once
    torch.Size([2, 16])
    >>> collector.shutdown()
    """

    def _frames_of(self, worker: Worker) -> int:
        return self.frames_per_batch

    def _require_frames(self) -> None:
        for worker in self._workers:
            steps_of(self.frames_per_batch, worker.num_rows, of=f"environments of {worker.name}")

    def launch(self) -> None:
        """Start a batch in every worker that is not collecting and has no batch to be taken; return at once."""
        self._require_open()
        with self._pool.closed_if_lost():
            waiting = {worker.index for worker, _ in self._arrived}
            for worker in self._workers:
                if not self._pool.is_busy(worker.index) and worker.index not in waiting:
                    self._launch(worker)

    def is_ready(self) -> bool:
        """Answer whether :meth:`take` would return at once; false where no worker was launched."""
        self._require_open()
        with self._pool.closed_if_lost():
            self._gather(0.0)
        return bool(self._arrived)

    def take(self) -> TensorDict:
        """Return the batch ``[B, T]`` that was finished first of those not taken yet; wait if there is none.

        Raises:
            ProcessError: a worker's process died. Or the exception of an environment or the policy.
        """
        self._require_open()
        if self.update_every_batch:
            self.update_policy_weights_()
        self.launch()
        with self._pool.closed_if_lost():
            while not self._arrived:
                self._gather(SLICE_S)
            _, result = self._arrived.popleft()
        self.launch()
        if isinstance(result, Exception):
            raise result
        self.frames += self._num_frames(result)
        return postprocess(self.postproc, result)

    collect = take

    def _num_frames(self, batch: TensorDict) -> int:
        return batch.numel()

    def _open(self) -> None:
        self._arrived: deque[tuple[Worker, TensorDict | Exception]] = deque()
        super()._open()

    def _receive(self, worker: Worker, report: Report | Exception) -> None:
        """Queue a copy of the batch that a worker reports; the worker begins no other until this one is taken."""
        if isinstance(report, Exception):
            self._arrived.append((worker, report))
            return
        if report.layout is not None:
            try:
                self._lay_out(worker, report.layout)
            except ProcessError as error:
                self._replace(worker, error)
                return
            except SpecError as error:  # raised when this batch is taken: those of other workers are not lost by it
                self._arrived.append((worker, error))
                return
        self._arrived.append((worker, copy_out(worker.shared, self.storage_device)))

    def _lay_out(self, worker: Worker, layout: Layout) -> None:
        if self._layout is None:
            self._layout = layout
        require_one_layout([self._layout, layout], ["the first batch", worker.name])
        cut = partial(cut_batch, layout, worker.num_rows)
        worker.memory = SharedMemory(size_of(cut))
        worker.shared = cut(worker.memory.array)
        self._share_memory(worker)

    def _share_memory(self, worker: Worker) -> None:
        if worker.memory is not None:  # else it was lost before its first batch, and is given memory with it
            arguments = (worker.memory.size, self._layout, worker.num_rows, 0)
            self._pool.call_one(worker.index, "map_memory", *arguments, descriptors=[worker.memory.descriptor])

    def _stop_collecting(self, doing: str) -> None:
        while self._pool.has_requests:
            self._gather(SLICE_S)

    def state_dict(self) -> dict:
        """Return the state of :meth:`MultiCollector.state_dict` and the batches that were not taken yet."""
        state = super().state_dict()
        waiting = [(worker.index, batch) for worker, batch in self._arrived if isinstance(batch, TensorDictBase)]
        entries = [
            {"worker": index, "data": batch.to_dict(), "batch_size": list(batch.batch_size)} for index, batch in waiting
        ]
        return state | {"waiting": {str(index): entry for index, entry in enumerate(entries)}}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`, with the batches that were not taken yet."""
        super().load_state_dict(state)
        self._arrived = deque(
            (self._workers[entry["worker"]], TensorDict(entry["data"], batch_size=entry["batch_size"]))
            for entry in state["waiting"].values()
        )
