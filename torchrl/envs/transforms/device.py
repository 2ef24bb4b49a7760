"""Transforms that move what the policy sees to another device, or into pinned memory for copies to a GPU."""

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
    """Replace every entry by a copy elsewhere. A subclass sets ``move``, a function of one tensor."""

    move: Callable[[torch.Tensor], torch.Tensor]

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Move the outcome, once for both containers, and what the root holds beside it."""
        _move(next_, self.move)
        _share(next_, root, self.move)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Move every row."""
        _move(root, self.move)


class DeviceCast(_MoveTransform):
    """Let the policy see everything on another device; actions go back to the environment's.

    The transforms before it in the chain work where the environment is, those after it on ``device``.

    >>> TransformedEnv(env, DeviceCast("cpu")).device
    device(type='cpu')

    Args:
        device: where the environment shall seem to be.

    Raises:
        ConfigError: there is no such device.
    """

    def __init__(self, device: torch.device | str) -> None:
        super().__init__()
        self.destination = find_device(device)

    def move(self, value: torch.Tensor) -> torch.Tensor:
        """Move one tensor."""
        return value.to(self.destination)

    def read_specs(self, env: EnvSpecs) -> None:
        """Note the environment's device, to which actions go back."""
        super().read_specs(env)
        self._home = env.device

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Move a step's outcome and the next root to the other device, unless it is the environment's own."""
        if self.destination != self._home:  # where nothing moves, both containers keep tensors of their own
            super().step(next_, root)

    def inverse(self, inputs: TensorDict) -> None:
        """Move the action back."""
        put(inputs, "action", action_of(inputs).to(self._home))

    def observation_spec(self, spec: TensorSpec) -> TensorSpec:
        return spec.to(self.destination)

    reward_spec = action_spec = observation_spec

    def device(self, device: torch.device) -> torch.device:
        return self.destination


class PinMemory(_MoveTransform):
    """Put what the policy sees into pinned memory, from which a GPU copies without waiting.

    >>> TransformedEnv(env, PinMemory()).reset()["observation"].is_pinned()  # doctest: +SKIP
    True

    Raises:
        ConfigError: when wrapping: there is no CUDA device, or the environment's tensors are not on the CPU.
    """

    move = staticmethod(torch.Tensor.pin_memory)

    def read_specs(self, env: EnvSpecs) -> None:
        """Refuse an environment for which nothing can be pinned."""
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
    """Give a root the entries of ``next_``, which are the same; move what only the root holds."""
    for key, value in list(root.items()):
        moved = next_.get(key, None)
        if isinstance(value, TensorDictBase):
            _share(TensorDict() if moved is None else moved, value, move)
        else:
            put(root, key, move(value) if moved is None else moved)
