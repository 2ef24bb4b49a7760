"""The serial back end: several simulators stepped one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs import Categorical, Composite
from torchrl.envs.base import Env, action_of
from torchrl.envs.conversions import spec_from_space
from torchrl.envs.simulators.base import Simulator
from torchrl.envs.vector.worker import SimulatorWorker, allocate, observation_leaves
from torchrl.errors import ConfigError, EnvError, SpecError, explain
from torchrl.unchecked import new_tensordict, put, shallow

RESERVED = (
    ("action", "next", "collector", "is_init", "reward", "terminated", "truncated", "done")
    + ("episode_return", "episode_length")
)  # fmt: skip


class SerialEnv(Env):
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
        simulators = [_checked_simulator(factory()) for factory in factories]
        _require_equal_spaces(simulators)
        rows = len(simulators)
        _require_free_names(simulators[0])
        batch_size = () if num_envs is None and callable(make_simulator) else (rows,)
        first = simulators[0]
        observation = spec_from_space(first.observation_space, batch_size)
        if not isinstance(observation, Composite):
            observation = Composite({"observation": observation}, shape=batch_size)
        super().__init__(
            batch_size=batch_size,
            observation_spec=observation,
            action_spec=spec_from_space(first.action_space, batch_size),
        )
        self._worker = SimulatorWorker(simulators, allocate(first.observation_space, rows))
        buffers = self._worker.buffers
        self._next = self._view(buffers.next)
        self._roots = tuple(self._view(root) for root in buffers.roots)
        self._folders = _folders(self._next)
        self._is_discrete = isinstance(self.action_spec, Categorical)

    @property
    def simulators(self) -> list[Simulator]:
        """The worlds, one per slot."""
        return self._worker.simulators

    def _view(self, tree: dict) -> TensorDict:
        """Wrap numpy buffers in a TensorDict over the same memory; batch size ``[]`` sees the one row."""
        rows = {}
        for key, value in tree.items():
            if isinstance(value, dict):
                rows[key] = self._view(value)
            else:
                rows[key] = torch.from_numpy(value) if self.batch_size else torch.from_numpy(value)[0]
        return new_tensordict(rows, self.batch_size)

    def _root(self) -> TensorDict:
        return _fresh(self._roots[self._worker.turn], self._folders)

    def _advance(self, tensordict: TensorDictBase) -> tuple[TensorDict, TensorDict, bool]:
        ended = self._worker.advance(self._actions(action_of(tensordict)))
        return _fresh(self._next, self._folders), self._root(), ended

    def _actions(self, action: torch.Tensor) -> np.ndarray:
        spec = self.action_spec
        if action.shape != spec.shape or action.dtype is not spec.dtype:
            raise SpecError(
                explain(
                    "action",
                    expected=f"shape {list(spec.shape)} and {spec.dtype}",
                    got=f"shape {list(action.shape)} and {action.dtype}",
                    hint="A discrete action is an int64 index, not one-hot." if self._is_discrete else "",
                )
            )
        rows = action.detach().numpy()
        return rows if self.batch_size else rows[None]

    def _reset(self, mask: torch.Tensor | None, *, seeds: list[int] | None, options: dict | None) -> TensorDict:
        rows = range(len(self.simulators)) if mask is None else np.flatnonzero(mask.numpy()).tolist()
        self._worker.restart(rows, None if seeds is None else [seeds[row] for row in rows], options)
        return self._root()

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

    def close(self) -> None:
        """Close the simulators."""
        self._worker.close()


def _fresh(views: TensorDict, folders: Sequence[str]) -> TensorDict:
    """New containers over the same tensors, so that what a policy writes does not stay for the next step."""
    fresh = shallow(views)
    for key in folders:
        inner = views.get(key)
        put(fresh, key, _fresh(inner, _folders(inner)))
    return fresh


def _folders(views: TensorDict) -> list[str]:
    return [key for key, value in views.items() if isinstance(value, TensorDict)]


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


def _checked_simulator(simulator: object) -> Simulator:
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


def _require_free_names(simulator: Simulator) -> None:
    taken = [path[0] for path, _ in observation_leaves(simulator.observation_space) if path[0] in RESERVED]
    if taken:
        raise EnvError(
            explain(
                "SerialEnv",
                expected="observations under names that the environment does not use itself",
                got=f"{taken[0]!r}",
                hint="Rename the key in the simulator.",
            )
        )


def _require_equal_spaces(simulators: list[Simulator]) -> None:
    first = simulators[0]
    for index, other in enumerate(simulators):
        for name in ("observation_space", "action_space"):
            if getattr(other, name) != getattr(first, name):
                raise EnvError(
                    explain(
                        "SerialEnv",
                        expected=f"the same {name} in every slot: {getattr(first, name)}",
                        got=f"{getattr(other, name)} in slot {index}",
                    )
                )
