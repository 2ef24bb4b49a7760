"""An Env whose simulators are stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from torchrl.envs.driving import innermost
from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.learning import learning_wrapper
from torchrl.envs.simulators.limits import step_limit_of
from torchrl.envs.simulators.tasks import task_of
from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.building import Factory, build_simulators, factories_of, require_free_names
from torchrl.envs.vector.worker import SimulatorWorker, own_method


class SerialEnv(WorkerEnv):
    """Step a batch of simulators one after the other in this process.

    >>> from torchrl.envs.simulators import Matching
    >>> SerialEnv(Matching, 3).batch_size, SerialEnv(Matching).batch_size
    (torch.Size([3]), torch.Size([]))

    Args:
        make_simulator: builds one simulator, or an ``Env`` of batch size ``[]``, see :meth:`Env.as_simulator`; or a
            sequence of such callables, one per row.
        num_envs: how many rows, batch size ``[num_envs]``; None gives one simulator with batch size ``[]``.

    Raises:
        EnvError: a factory does not return a simulator, or the simulators' spaces differ.
    """

    def __init__(self, make_simulator: Factory | Sequence[Factory], num_envs: int | None = None) -> None:
        simulators = build_simulators("SerialEnv", factories_of("SerialEnv", make_simulator, num_envs))
        with ExitStack() as built:  # closes what was built if something fails
            for simulator in simulators:
                built.callback(own_method("close", simulator))
            require_free_names("SerialEnv", simulators[0].observation_space)
            super().__init__(
                partial(SimulatorWorker, simulators),
                observation_space=simulators[0].observation_space,
                action_space=simulators[0].action_space,
                batch_size=() if num_envs is None and callable(make_simulator) else (len(simulators),),
            )
            built.pop_all()

    @property
    def simulators(self) -> list[Simulator]:
        """The simulators, one per row."""
        return self._worker.simulators

    @property
    def step_limit(self) -> float:
        """The least number of steps after which a simulator truncates by itself; infinity where none does."""
        return min(map(step_limit_of, self.simulators))

    @property
    def task(self) -> str:
        """The gymnasium id that all simulators have; empty where they have none or different ones."""
        return task_of(self.simulators)

    @property
    def learning_wrapper(self) -> str:
        """Class name of the first wrapper that normalises by statistics it still updates; empty without one.

        Only gymnasium's ``NormalizeObservation`` and ``NormalizeReward`` are found; see :attr:`Env.learning_wrapper`.
        """
        return learning_wrapper(self.simulators)

    def driven_things(self) -> list:
        """List what stepping this env steps: itself, and each simulator's innermost object.

        See :meth:`Env.driven_things`.
        """
        return [self, *map(innermost, self.simulators)]
