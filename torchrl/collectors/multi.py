"""Two collectors over several processes: batches made by all workers together, or by each on its own.

Neither stores nor trains. How workers are started, given weights and replaced is in ``workers``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

from tensordict import TensorDict, TensorDictBase

from torchrl.channels import SLICE_S
from torchrl.collectors.checks import postprocessed, steps_of
from torchrl.collectors.hosting import Report
from torchrl.collectors.transport import Layout, cut_batch, require_one_layout
from torchrl.collectors.workers import MultiCollector, Worker
from torchrl.errors import ConfigError, explain
from torchrl.shared_memory import SharedMemory, size_of


class MultiSyncCollector(MultiCollector):
    """Collect every batch ``[B, T]`` by all workers together; none steps while the learner trains.

    ``B`` is the number of environments in all workers, in their order, and ``frames_per_batch`` a multiple of it. A
    batch's rows all have the same policy version, so it suits on-policy learning. With one seed and actions that do not
    depend on chance, the batches are those of one process.

    ``launch()``, ``is_ready()`` and ``take()`` are the parts of ``collect()``, to do something else meanwhile.
    """

    def _frames_of(self, worker: Worker) -> int:
        return self.frames_per_batch // self.num_envs * worker.num_rows

    def _require_frames(self) -> None:
        steps_of(self.frames_per_batch, self.num_envs)

    def launch(self) -> None:
        """Start collecting a batch and return at once.

        Raises:
            ConfigError: one is being collected already.
        """
        self._require_open()
        if any(worker.is_pending for worker in self._workers) or self._reports:
            hint = "Call take() first."
            raise ConfigError(explain("launch", expected="no batch under way", got="one", hint=hint))
        with self._shut_down_if_lost():
            self._refreshed()
            for worker in self._workers:
                self._launch(worker)

    def is_ready(self) -> bool:
        """Answer whether :meth:`take` would return at once."""
        self._require_launched("is_ready")
        with self._shut_down_if_lost():
            self._gather(0.0)
        return len(self._reports) == len(self._workers)

    def take(self) -> TensorDict:
        """Wait for the batch that was launched and return it, ``[B, T]``.

        Raises:
            ProcessError: a worker was lost. Or what an environment or the policy raised, from the first worker in
                which something did; the others' rows are dropped then.
        """
        self._require_launched("take")
        with self._shut_down_if_lost():
            while len(self._reports) < len(self._workers):
                self._gather(SLICE_S)
            reports, self._reports = self._reports, {}
            for worker in self._workers:
                if isinstance(reports[worker.index], Exception):
                    raise reports[worker.index]
            if self._layout is None:
                self._lay_out([reports[worker.index].layout for worker in self._workers])
            batch = self._copied(self._shared)
        self.frames += batch.numel()
        return postprocessed(self.postproc, batch)

    def collect(self) -> TensorDict:
        """Collect and return the next batch, or the one that was launched, ``[B, T]``."""
        if not (self._reports or any(worker.is_pending for worker in self._workers)):
            self.launch()
        return self.take()

    def _open(self) -> None:
        self._reports: dict[int, Report | Exception] = {}
        super()._open()

    def _gather(self, timeout_s: float) -> None:
        for worker, report in self._arrivals(timeout_s):
            self._reports[worker.index] = report

    def _lay_out(self, layouts: Sequence[Layout]) -> None:
        require_one_layout(layouts, [worker.remote.name for worker in self._workers])
        self._layout = layouts[0]
        cut = partial(cut_batch, self._layout, self.num_envs)
        self._memory = SharedMemory(size_of(cut))
        self._shared = cut(self._memory.array)
        for worker in self._workers:
            self._attach(worker)
        self._answers(self._workers)

    def _attach(self, worker: Worker) -> None:
        arguments = (self._memory.size, self._layout, self.num_envs, worker.first_row)
        worker.remote.post("attach", *arguments, descriptors=[self._memory.descriptor])

    def _require_launched(self, doing: str) -> None:
        self._require_open()
        if not (self._reports or any(worker.is_pending for worker in self._workers)):
            hint = "Call launch() first."
            raise ConfigError(explain(doing, expected="a batch that was launched", got="none", hint=hint))

    def _come_to_rest(self, doing: str) -> None:
        if self._reports or any(worker.is_pending for worker in self._workers):
            hint = "Call take() first."
            raise ConfigError(explain(doing, expected="no batch under way", got="one", hint=hint))


class MultiAsyncCollector(MultiCollector):
    """Hand out whole batches ``[B, T]`` of single workers, first come, first served, while the others go on.

    ``B`` is the number of environments of the worker, and ``frames_per_batch`` a multiple of it. A worker begins its
    next batch when the last one is taken, before it is trained on, with the weights of that moment: what is handed out
    is older than the present weights by as many versions as there were updates since;
    ``("collector", "policy_version")`` says which. With one worker this is double buffering: one batch is collected
    while the learner trains on another.

    ``is_ready()`` tells whether a batch is there; ``take()`` is ``collect()``.
    """

    def _frames_of(self, worker: Worker) -> int:
        return self.frames_per_batch

    def _require_frames(self) -> None:
        for worker in self._workers:
            steps_of(self.frames_per_batch, worker.num_rows, of=f"environments of {worker.remote.name}")

    def launch(self) -> None:
        """Start collecting in all workers that wait, and return at once."""
        self._require_open()
        with self._shut_down_if_lost():
            for worker in self._workers:
                if not worker.is_pending:
                    self._launch(worker)

    def is_ready(self) -> bool:
        """Answer whether :meth:`take` would return at once."""
        self._require_open()
        with self._shut_down_if_lost():
            self._gather(0.0)
        return bool(self._arrived)

    def take(self) -> TensorDict:
        """Return the batch that has waited longest, or wait for the next one, ``[B, T]``.

        Raises:
            ProcessError: a worker was lost. Or what an environment or the policy raised.
        """
        self._require_open()
        self._refreshed()
        self.launch()
        with self._shut_down_if_lost():
            while not self._arrived:
                self._gather(SLICE_S)
            result = self._arrived.popleft()
            self.launch()
        if isinstance(result, Exception):
            raise result
        self.frames += self._num_frames(result)
        return postprocessed(self.postproc, result)

    collect = take

    def _num_frames(self, batch: TensorDict) -> int:
        return batch.numel()

    def _open(self) -> None:
        self._arrived: deque[TensorDict | Exception] = deque()
        super()._open()

    def _gather(self, timeout_s: float) -> None:
        """Copy the batches that have come; their workers wait until they are launched again."""
        for worker, report in self._arrivals(timeout_s):
            if isinstance(report, Exception):
                self._arrived.append(report)
                continue
            if worker.shared is None:
                self._lay_out(worker, report.layout)
            self._arrived.append(self._copied(worker.shared))

    def _lay_out(self, worker: Worker, layout: Layout) -> None:
        if self._layout is None:
            self._layout = layout
        require_one_layout([self._layout, layout], ["the first batch", worker.remote.name])
        cut = partial(cut_batch, layout, worker.num_rows)
        worker.memory = SharedMemory(size_of(cut))
        worker.shared = cut(worker.memory.array)
        self._attach(worker)
        worker.remote.answer(self._timeout_s)

    def _attach(self, worker: Worker) -> None:
        if worker.memory is None:  # lost before its first batch: it will be given memory then
            worker.remote.post("batch_size")
            return
        arguments = (worker.memory.size, self._layout, worker.num_rows, 0)
        worker.remote.post("attach", *arguments, descriptors=[worker.memory.descriptor])

    def _come_to_rest(self, doing: str) -> None:
        while any(worker.is_pending for worker in self._workers):
            self._gather(SLICE_S)

    def state_dict(self) -> dict:
        """Capture what :meth:`MultiCollector.state_dict` does, and the batches that wait to be taken."""
        state = super().state_dict()
        waiting = [batch for batch in self._arrived if isinstance(batch, TensorDictBase)]
        entries = [{"data": batch.to_dict(), "batch_size": list(batch.batch_size)} for batch in waiting]
        return state | {"waiting": {str(index): entry for index, entry in enumerate(entries)}}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`; see there."""
        super().load_state_dict(state)
        self._arrived = deque(
            TensorDict(entry["data"], batch_size=entry["batch_size"]) for entry in state["waiting"].values()
        )
