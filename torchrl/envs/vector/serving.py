"""The object inside a process of a parallel environment: the simulators of some rows, and the worker that steps them.

It reads actions from shared memory and writes outcomes there; messages only say what to do. Imports no torch.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from gymnasium import Space

from torchrl.envs.simulators.learning import learning_wrapper
from torchrl.envs.simulators.limits import step_limit_of
from torchrl.envs.simulators.tasks import task_of
from torchrl.envs.vector.batches import Actions, allocate_actions, rows_of
from torchrl.envs.vector.buffers import StepBuffers, allocate
from torchrl.envs.vector.building import Factory, build_simulators
from torchrl.envs.vector.worker import SimulatorWorker
from torchrl.processes.serving import serve_object
from torchrl.processes.shared_memory import MakeArray, SharedMemory


class SimulatorHost:
    """Build, in a worker process, the simulators of some rows of a parallel environment, and step them by message.

    Args:
        factories: one per row of this process.
        first_index: index of its first row in the whole environment.
    """

    COMMANDS = frozenset({"spaces", "map_memory", "advance", "call_worker", "step_limit", "task", "learning_wrapper"})

    def __init__(self, factories: Sequence[Factory], first_index: int) -> None:
        self._simulators = build_simulators("ParallelEnv", factories, first_index)
        self._first_index = first_index
        self._worker: SimulatorWorker | None = None
        self._actions: Actions = ()

    def spaces(self) -> tuple[Space, Space]:
        """Return the observation and the action space of one simulator."""
        return self._simulators[0].observation_space, self._simulators[0].action_space

    def map_memory(self, descriptor: int, size: int, num_envs: int) -> None:
        """Map the shared memory of all ``num_envs`` rows, and make the worker that writes this process's rows."""
        memory = SharedMemory(size, descriptor)
        buffers, actions = cut_buffers(*self.spaces(), num_envs, memory.array)
        memory.close()
        rows = slice(self._first_index, self._first_index + len(self._simulators))
        own = StepBuffers(roots=rows_of(buffers.roots, rows), next=rows_of(buffers.next, rows))
        self._worker = SimulatorWorker(self._simulators, own, self._first_index)
        self._actions = rows_of(actions, rows)

    def advance(self) -> bool:
        """Step this process's rows by the actions in shared memory; answer whether any of them ended."""
        return self._worker.advance(self._actions)

    def call_worker(self, turn: int, method: str, *arguments: object) -> object:
        """Set the ``turn`` of the :class:`SimulatorWorker` to the parent's, then call one of its methods."""
        self._worker.turn = turn
        return getattr(self._worker, method)(*arguments)

    def step_limit(self) -> float:
        """Return the least :meth:`Simulator.step_limit` of this process's rows."""
        return min(map(step_limit_of, self._simulators))

    def task(self) -> str:
        """Return the id of the task of this process's rows; empty where it is not known."""
        return task_of(self._simulators)

    def learning_wrapper(self) -> str:
        """Return the class name of a simulator's wrapper that still updates running statistics; empty without one."""
        return learning_wrapper(self._simulators)

    def close(self) -> None:
        """Close the simulators."""
        for simulator in self._simulators:
            simulator.close()


def cut_buffers(
    observation_space: Space, action_space: Space, num_envs: int, make: MakeArray
) -> tuple[StepBuffers, Actions]:
    """Allocate the arrays of a parallel environment by ``make(shape, dtype)``: its buffers, and a batch of actions."""
    return allocate(observation_space, num_envs, make), allocate_actions(action_space, num_envs, make)


def serve(connection: socket.socket) -> None:
    """Run a worker process until it is told to end; see :func:`~torchrl.processes.serving.serve_object`."""
    serve_object(connection)
