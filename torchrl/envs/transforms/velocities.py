"""A transform that removes velocities from observations, so that a policy needs memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from torchrl.counts import is_count
from torchrl.data.specs import TensorSpec
from torchrl.envs.transforms.base import EnvSpecs
from torchrl.envs.transforms.leaves import is_number, map_spec
from torchrl.envs.transforms.observation import ObservationTransform
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.keys import Key

# Name of a task of gymnasium without its version -> the size of its observation, and where the velocities are in it.
_KNOWN = {
    "Acrobot": (6, (4, 5)),
    "CartPole": (4, (1, 3)),
    "LunarLander": (8, (2, 3, 5)),
    "LunarLanderContinuous": (8, (2, 3, 5)),
    "MountainCar": (2, (1,)),
    "MountainCarContinuous": (2, (1,)),
    "Pendulum": (3, (2,)),
}


class MaskVelocity(ObservationTransform):
    """Remove the velocities from an observation: ``[*B, F]`` becomes ``[*B, F - V]``, with V velocities.

    A single observation then does not tell how things move, so a policy needs memory, or a :class:`FrameStack` behind
    this transform. The velocities of classical tasks are known by the task's id (:attr:`known`); for other tasks give
    ``indices``.

    >>> TransformedEnv(GymEnv("CartPole-v1"), MaskVelocity()).observation_spec["observation"].shape  # position, angle
    torch.Size([2])

    Args:
        indices: which features are velocities, counted from 0; None looks them up by the task's id.
        in_keys: the observations to remove them from.

    Attributes:
        known: the names of the tasks, without their version, whose velocities need no ``indices``.

    Raises:
        ConfigError: ``indices`` is empty or not of indices; when wrapping: it is None, and the task is unknown.
        SpecError: when wrapping: an observation has another number of features than the task, or only velocities.
    """

    known = tuple(_KNOWN)
    expected = "a vector of numbers"

    def __init__(self, indices: Sequence[int] | None = None, in_keys: Sequence[Key] = ("observation",)) -> None:
        super().__init__(in_keys)
        if indices is not None and not _are_indices(indices):
            expected = "indices of features, each once, counted from 0, such as [1, 3]"
            raise ConfigError(explain("MaskVelocity", expected=expected, got=repr(indices)))
        self.indices = None if indices is None else tuple(map(int, indices))

    def takes(self, leaf: TensorSpec) -> bool:
        return is_number(leaf) and len(self.features(leaf)) > 0

    def read_specs(self, env: EnvSpecs) -> None:
        """Look up the task's velocities if ``indices`` is None, and check that the observations have them."""
        self._task_id = env.task
        super().read_specs(env)

    def function_of(self, leaf: TensorSpec) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function that removes the velocities of an observation: ``[*B, F]`` to ``[*B, F - V]``."""
        num = self.features(leaf)[-1]
        indices = _look_up(self._task_id, num) if self.indices is None else self.indices
        if max(indices) >= num or len(indices) == num:
            expected = f"some of the features 0 to {num - 1}, and others that stay"
            raise SpecError(explain("MaskVelocity", expected=expected, got=f"indices {list(indices)}"))
        others = [index for index in range(num) if index not in indices]
        return partial(_take, torch.tensor(others, device=leaf.device))

    def transform_spec(self, leaf: TensorSpec) -> TensorSpec:
        return map_spec(leaf, self.function_of(leaf))


def _take(indices: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return value.index_select(-1, indices)


def _are_indices(indices: object) -> bool:
    if not isinstance(indices, Sequence) or isinstance(indices, str):
        return False
    return len(indices) == len(set(indices)) > 0 and all(is_count(index, least=0) for index in indices)


def _look_up(task: str, num_features: int) -> tuple[int, ...]:
    """Return the indices of the velocities in the observation of a known task.

    Raises:
        ConfigError: the task is unknown.
        SpecError: the observation has another number of features.
    """
    name = task.rpartition("-v")[0]
    if name not in _KNOWN:
        got = f"the task {task!r}" if task else "an environment that does not tell its task"
        hint = "Write MaskVelocity(indices=[...]); Exclude([...]) leaves out velocities that have a key of their own."
        expected = f"indices, or a task whose velocities are known: {', '.join(_KNOWN)}"
        raise ConfigError(explain("MaskVelocity", expected=expected, got=got, hint=hint))
    num_known, indices = _KNOWN[name]
    if num_features != num_known:
        hint = "Put MaskVelocity() below what changes the features, or write MaskVelocity(indices=[...])."
        expected = f"the {num_known} features of {task}"
        raise SpecError(explain("MaskVelocity", expected=expected, got=num_features, hint=hint))
    return indices
