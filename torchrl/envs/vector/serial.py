"""The serial back end: several simulators stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from numbers import Integral

from tensordict import TensorDict

from torchrl.envs.base import Env
from torchrl.envs.simulators.base import Simulator
from torchrl.envs.vector.base import WorkerEnv, require_free_names
from torchrl.envs.vector.worker import SimulatorWorker, own_method
from torchrl.errors import ConfigError, EnvError, explain


class SerialEnv(WorkerEnv):
    """A batch of simulators, stepped in turn.

    Args:
        make_simulator: builds one simulator; or a sequence of such callables, one per slot.
        num_envs: how many slots, batch size ``[num_envs]``; None gives one world with batch size ``[]``.

    Raises:
        EnvError: a factory does not return a simulator, or the simulators' spaces differ.
    """

    def __init__(
        self, make_simulator: Callable[[], Simulator] | Sequence[Callable[[], Simulator]], num_envs: int | None = None
    ) -> None:
        factories = _factories(make_simulator, num_envs)
        with ExitStack() as built:  # closes what was built if something fails
            simulators: list[Simulator] = []
            for index, factory in enumerate(factories):
                simulators.append(_built(factory, index))
                built.callback(own_method("close", simulators[-1]))
            _require_alike(simulators)
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
        """The worlds, one per slot."""
        return self._worker.simulators

    def state_dict(self) -> dict:
        """Capture every simulator and the current root.

        Raises:
            EnvError: a simulator's state cannot be captured.
        """
        return {"worker": self._worker.get_state(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict) -> TensorDict:
        """Restore :meth:`state_dict` and return the root to act on, the caller's own."""
        self._worker.set_state(state["worker"])
        self._generator.set_state(state["generator"])
        self._pending_seed = None
        return self._root().clone()


def _factories(make_simulator: Callable | Sequence[Callable], num_envs: int | None) -> list[Callable]:
    if callable(make_simulator):
        if num_envs is not None and (not isinstance(num_envs, Integral) or num_envs < 1):
            raise ConfigError(explain("SerialEnv", expected="a whole num_envs of at least 1", got=num_envs))
        return [make_simulator] * (num_envs or 1)
    factories = list(make_simulator)
    if not factories or num_envs not in (None, len(factories)):
        raise ConfigError(
            explain("SerialEnv", expected=f"{num_envs or 'some'} factories", got=f"{len(factories)} of them")
        )
    return factories


def _built(factory: Callable[[], Simulator], index: int) -> Simulator:
    try:
        simulator = factory()
    except Exception as error:
        error.add_note(f"Raised while the simulator of slot {index} was built.")
        raise
    if isinstance(simulator, Env):
        raise EnvError(
            explain(
                "SerialEnv",
                expected="a factory of simulators (one world in numpy)",
                got=f"one that returns {type(simulator).__name__}",
                hint="Transforms wrap the batch: TransformedEnv(SerialEnv(make_simulator, num_envs), transform).",
            )
        )
    lacking = [name for name in ("observation_space", "action_space", "reset", "step") if not hasattr(simulator, name)]
    if lacking:
        raise EnvError(
            explain("SerialEnv", expected="a simulator", got=f"{type(simulator).__name__} without {', '.join(lacking)}")
        )
    return simulator


def _require_alike(simulators: list[Simulator]) -> None:
    """Refuse one simulator in two slots, and slots whose spaces differ."""
    first, seen = simulators[0], {}
    for index, other in enumerate(simulators):
        if seen.setdefault(id(other), index) != index:
            hint = "The factory builds a new one at each call."
            got = f"the same one in the slots {seen[id(other)]} and {index}"
            raise EnvError(explain("SerialEnv", expected="a simulator of its own for every slot", got=got, hint=hint))
        for name in ("observation_space", "action_space"):
            if getattr(other, name) != getattr(first, name):
                raise EnvError(
                    explain(
                        "SerialEnv",
                        expected=f"the same {name} in every slot: {getattr(first, name)}",
                        got=f"{getattr(other, name)} in slot {index}",
                    )
                )
