"""What a worker process of a parallel environment holds: a few simulators and the worker that steps them.

It reads actions from shared memory and writes outcomes there; messages only say what to do. Imports no torch.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from gymnasium import Space

from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.learning import learning_wrapper
from torchrl.envs.simulators.limits import step_limit_of
from torchrl.envs.vector.batches import Actions, allocate_actions, rows_of
from torchrl.envs.vector.buffers import StepBuffers, allocate
from torchrl.envs.vector.building import build_simulators
from torchrl.envs.vector.worker import SimulatorWorker
from torchrl.processes.serving import serve_object
from torchrl.processes.shared_memory import MakeArray, SharedMemory


class SimulatorHost:
    """The simulators of some rows of a parallel environment.

    Args:
        factories: one per row of this process.
        first_index: index of its first row in the whole environment.
    """

    COMMANDS = frozenset(
        ("spaces", "map_memory", "advance", "restart", "require_ability", "step_limit", "freeze", "render")
        + ("get_state", "set_state", "learning_wrapper")
    )  # fmt: skip

    def __init__(self, factories: Sequence[Callable[[], Simulator]], first_index: int) -> None:
        self._simulators = build_simulators("ParallelEnv", factories, first_index)
        self._first_index = first_index
        self._worker: SimulatorWorker | None = None
        self._actions: Actions = ()

    def spaces(self) -> tuple[Space, Space]:
        """Return the observation and the action space of one simulator."""
        return self._simulators[0].observation_space, self._simulators[0].action_space

    def map_memory(self, descriptor: int, size: int, num_envs: int) -> None:
        """Work in the memory that :func:`cut_buffers` laid out for all ``num_envs`` rows."""
        memory = SharedMemory(size, descriptor)
        buffers, actions = cut_buffers(*self.spaces(), num_envs, memory.array)
        memory.close()
        rows = slice(self._first_index, self._first_index + len(self._simulators))
        own = StepBuffers(roots=rows_of(buffers.roots, rows), next=rows_of(buffers.next, rows))
        self._worker = SimulatorWorker(self._simulators, own, self._first_index)
        self._actions = rows_of(actions, rows)

    def advance(self) -> bool:
        """Step by the actions in shared memory; see :meth:`Worker.advance`."""
        return self._worker.advance(self._actions)

    def restart(
        self, turn: int, indices: Sequence[int], seeds: Sequence[int | None] | None, options: dict | Sequence | None
    ) -> None:
        """Restart rows, writing into the root of this turn; see :meth:`Worker.restart`."""
        self._worker.turn = turn
        self._worker.restart(indices, seeds, options)

    def require_ability(self, ability: str) -> None:
        """See :meth:`Worker.require_ability`."""
        self._worker.require_ability(ability)

    def step_limit(self) -> float:
        """Return the least :meth:`Simulator.step_limit` of this process's rows."""
        return min(map(step_limit_of, self._simulators))

    def learning_wrapper(self) -> str:
        """See :func:`~torchrl.envs.simulators.learning.learning_wrapper`."""
        return learning_wrapper(self._simulators)

    def freeze(self, indices: Sequence[int]) -> None:
        """See :meth:`Worker.freeze`."""
        self._worker.freeze(indices)

    def render(self) -> list:
        """See :meth:`Worker.render`."""
        return self._worker.render()

    def get_state(self) -> dict:
        """See :meth:`SimulatorWorker.get_state`."""
        return self._worker.get_state()

    def set_state(self, turn: int, state: dict) -> None:
        """Restore a state, its root into that of this turn; see :meth:`SimulatorWorker.set_state`."""
        self._worker.turn = turn
        self._worker.set_state(state)

    def close(self) -> None:
        """Close the simulators."""
        for simulator in self._simulators:
            simulator.close()


def cut_buffers(
    observation_space: Space, action_space: Space, num_envs: int, make: MakeArray
) -> tuple[StepBuffers, Actions]:
    """Lay out the memory of a parallel environment: what the worlds write, and the actions they read."""
    return allocate(observation_space, num_envs, make), allocate_actions(action_space, num_envs, make)


def serve(connection: socket.socket) -> None:
    """Be a worker process; see :func:`~torchrl.processes.serving.serve_object`."""
    serve_object(connection)
