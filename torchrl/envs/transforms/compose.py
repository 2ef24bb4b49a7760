"""A transform that chains several transforms into one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.specs import Composite, TensorSpec
from torchrl.envs.transforms.base import EnvSpecs, Transform, join_states, specs_above
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key
from torchrl.seeding import child_seeds


class Compose(Transform):
    """Chain transforms, the first one nearest to the environment; actions pass through them in reverse order.

    >>> chain = Compose(RewardScaling(2.0), RewardClipping(-1.5, 1.5))
    >>> TransformedEnv(env, chain).rollout(1)["next", "reward"].flatten()  # of 1, 1
    tensor([1.5000, 1.5000])

    Args:
        transforms: any number of transforms, none of which belongs to an environment.
    """

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        for transform in transforms:
            require_transform("Compose", transform)
        self.transforms = nn.ModuleList(transforms)
        self._chain = transforms  # iterating a ModuleList takes longer than a step of most transforms
        self._inverse_chain = transforms[::-1]
        self._devices: list[torch.device] | None = None  # of each transform's mask; None where all are the same
        self.ends_episodes = any(transform.ends_episodes for transform in transforms)

    def read_specs(self, env: EnvSpecs) -> None:
        """Let each transform read the specs of the environment as seen through those before it.

        Raises:
            ConfigError: two transforms define the same entry of a policy's initial state.
        """
        super().read_specs(env)
        devices = []
        for transform in self._chain:
            transform.read_specs(env)
            devices.append(env.device)
            env = specs_above(transform, env)
        self._devices = devices if any(device != env.device for device in devices) else None
        self.initial_state()

    def parts(self) -> list[Transform]:
        return [part for transform in self._chain for part in transform.parts()]

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Call every transform's ``step`` in order; see :meth:`Transform.step`."""
        for transform in self._chain:
            transform.step(next_, root)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Call every transform's ``reset`` in order; see :meth:`Transform.reset`."""
        if self._devices is None or mask is None:
            for transform in self._chain:
                transform.reset(root, mask)
            return
        for transform, device in zip(self._chain, self._devices, strict=True):
            transform.reset(root, mask.to(device))

    def inverse(self, inputs: TensorDict) -> None:
        """Call every transform's ``inverse``, the last one first; see :meth:`Transform.inverse`."""
        for transform in self._inverse_chain:
            transform.inverse(inputs)

    def set_waiting(self, rows: torch.Tensor | None) -> None:
        super().set_waiting(rows)
        for transform, device in zip(self._chain, self._devices or [None] * len(self), strict=True):
            transform.set_waiting(rows if rows is None or device is None else rows.to(device))

    def set_seed(self, seed: int) -> None:
        for transform, child in zip(self._chain, child_seeds(seed, len(self._chain)), strict=True):
            transform.set_seed(child)

    def initial_state(self) -> TensorDict | None:
        return reduce(join_states, (transform.initial_state() for transform in self._chain), None)

    def observation_spec(self, spec: Composite) -> Composite:
        return reduce(lambda spec, transform: transform.observation_spec(spec), self._chain, spec)

    def reward_spec(self, spec: TensorSpec) -> TensorSpec:
        return reduce(lambda spec, transform: transform.reward_spec(spec), self._chain, spec)

    def action_spec(self, spec: TensorSpec) -> TensorSpec:
        return reduce(lambda spec, transform: transform.action_spec(spec), self._chain, spec)

    def action_mask_key(self, key: Key | None) -> Key | None:
        return reduce(lambda key, transform: transform.action_mask_key(key), self._chain, key)

    def device(self, device: torch.device) -> torch.device:
        return reduce(lambda device, transform: transform.device(device), self._chain, device)

    def __len__(self) -> int:
        return len(self._chain)

    def __getitem__(self, index: int) -> Transform:
        return self._chain[index]

    def __iter__(self) -> Iterator[Transform]:
        return iter(self._chain)


def require_transform(who: str, transform: object) -> None:
    """Refuse an argument that is no transform.

    Raises:
        ConfigError: naming its type; for a list, the hint is ``Compose``.
    """
    if not isinstance(transform, Transform):
        hint = "Several go into Compose(*transforms)." if isinstance(transform, (list, tuple)) else ""
        raise ConfigError(explain(who, expected="a Transform", got=repr(transform), hint=hint))
