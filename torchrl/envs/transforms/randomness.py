"""The base of transforms that draw random numbers."""

from __future__ import annotations

import torch

from torchrl.envs.base import Env
from torchrl.envs.transforms.base import EnvSpecs, Transform


class RandomTransform(Transform):
    """A transform with a stream of random numbers of its own, ``self.generator``, on the environment's device.

    ``reset(seed=...)`` and ``set_seed`` of the environment seed it; its state is in ``state_dict``, so that a saved run
    continues with the same numbers. A subclass draws nothing in ``reset`` for a mask that is false everywhere.

    >>> transform = TransformedEnv(env, RandomTransform()).transform
    >>> transform.set_seed(3)
    >>> transform.generator.initial_seed()
    3
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.generator = torch.Generator().manual_seed(0)

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Put the stream where the environment's tensors are."""
        super().read_specs(env)
        self.generator = torch.Generator(env.device).manual_seed(0)

    def set_seed(self, seed: int) -> None:
        """Seed the stream."""
        self.generator.manual_seed(seed)

    def get_extra_state(self) -> torch.Tensor:
        """Save the stream's state."""
        return self.generator.get_state()

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Restore the stream's state."""
        self.generator.set_state(state.cpu())
