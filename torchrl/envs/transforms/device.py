"""Transforms that copy roots and outcomes to another device, or into pinned memory for faster copies to a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs import TensorSpec
from torchrl.devices import find_device
from torchrl.envs.base import action_of
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.errors import ConfigError, explain
from torchrl.unchecked import put


class _MoveTransform(Transform):
    """Base of transforms that replace every tensor of roots and outcomes; a subclass writes ``move(tensor)``."""

    move: Callable[[torch.Tensor], torch.Tensor]

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Move the outcome's tensors, use the results in the root as well, and move the root's other tensors."""
        _move(next_, self.move)
        _share(next_, root, self.move)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Move all tensors of the root."""
        _move(root, self.move)


class DeviceCast(_MoveTransform):
    """Copy everything that the policy sees to another device, and its actions back to the environment's.

    The transforms before it in the chain work where the environment is, those after it on ``device``.

    >>> TransformedEnv(env, DeviceCast("cpu")).device
    device(type='cpu')

    Args:
        device: the device for the policy.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(self, device: torch.device | str) -> None:
        super().__init__()
        self.destination = find_device(device)

    def move(self, value: torch.Tensor) -> torch.Tensor:
        """Return a tensor on the policy's device."""
        return value.to(self.destination)

    def read_specs(self, env: EnvSpecs) -> None:
        """Store the environment's device, to which actions are copied."""
        super().read_specs(env)
        self._home = env.device

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Copy a step's outcome and the next root to the policy's device, unless that is the environment's."""
        if self.destination != self._home:  # where nothing moves, both containers keep tensors of their own
            super().step(next_, root)

    def inverse(self, inputs: TensorDict) -> None:
        """Copy the action to the environment's device."""
        put(inputs, "action", action_of(inputs).to(self._home))

    def observation_spec(self, spec: TensorSpec) -> TensorSpec:
        return spec.to(self.destination)

    reward_spec = action_spec = observation_spec

    def device(self, device: torch.device) -> torch.device:
        return self.destination


class PinMemory(_MoveTransform):
    """Copy everything that the policy sees into pinned memory, from which copies to a GPU can be asynchronous.

    >>> TransformedEnv(env, PinMemory()).reset()["observation"].is_pinned()  # doctest: +SKIP
    True

    Raises:
        ConfigError: when wrapping: there is no CUDA device, or the environment's tensors are not on the CPU.
    """

    move = staticmethod(torch.Tensor.pin_memory)

    def read_specs(self, env: EnvSpecs) -> None:
        """Refuse to wrap if there is no CUDA device, or the environment's tensors are not on the CPU."""
        super().read_specs(env)
        if not torch.cuda.is_available() or env.device.type != "cpu":
            got = f"an environment on {env.device}, CUDA {'' if torch.cuda.is_available() else 'not '}available"
            hint = "Leave it out: it only serves copies to a GPU."
            expected = "a CUDA device, and an environment on the CPU"
            raise ConfigError(explain("PinMemory", expected=expected, got=got, hint=hint))


def _move(tensordict: TensorDictBase, move: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace every entry, at any level, by ``move`` of it."""
    for key, value in list(tensordict.items()):
        if isinstance(value, TensorDictBase):
            _move(value, move)
        else:
            put(tensordict, key, move(value))


def _share(next_: TensorDictBase, root: TensorDictBase, move: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Set a root's entries to those of ``next_``, which are moved already; apply ``move`` to entries only it has."""
    for key, value in list(root.items()):
        moved = next_.get(key, None)
        if isinstance(value, TensorDictBase):
            _share(TensorDict() if moved is None else moved, value, move)
        else:
            put(root, key, move(value) if moved is None else moved)
