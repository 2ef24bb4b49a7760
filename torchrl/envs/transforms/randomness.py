"""Transforms that draw random numbers: their base, and the noise of state-dependent exploration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from torchrl.counts import is_count
from torchrl.data.specs import TensorSpec, Unbounded
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.episode import EpisodeObservation
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key


class RandomTransform(Transform):
    """Base of transforms with a random generator of their own, ``self.generator``, on the environment's device.

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

    def read_specs(self, env: EnvSpecs) -> None:
        """Make the generator on the environment's device."""
        super().read_specs(env)
        self.generator = torch.Generator(env.device).manual_seed(0)

    def set_seed(self, seed: int) -> None:
        self.generator.manual_seed(seed)

    def get_extra_state(self) -> torch.Tensor:
        """Return the generator's state, for ``state_dict``."""
        return self.generator.get_state()

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Restore the generator's state."""
        self.generator.set_state(state.cpu())


class GSDENoise(RandomTransform, EpisodeObservation):
    """Add an observation of standard normal noise ``[*B, F, A]``, redrawn when a row restarts, for gSDE exploration.

    The policy multiplies the noise by its features and its learned standard deviations σ, so that within an episode the
    same state gets the same deviation from the mean action (Raffin et al., "Smooth Exploration for Robotic
    Reinforcement Learning", 2021, section 3; there the noise itself has variance σ², here 1, so that the policy can
    learn σ).

    >>> TransformedEnv(env, GSDENoise(num_features=64, num_actions=1)).reset()["gsde_noise"].shape
    torch.Size([2, 64, 1])

    Args:
        num_features: F, how many features the policy's head has.
        num_actions: A, length of the action.
        resample_every: also redraw the noise of all rows after this number of vector steps, the paper's n; None does
            not.
        out_key: key of the noise.

    Raises:
        ConfigError: a number is not positive; when wrapping: ``out_key`` covers an observation or a name of the
            environment.
    """

    memory_names = ("noise",)

    def __init__(
        self, num_features: int, num_actions: int, *, resample_every: int | None = None, out_key: Key = "gsde_noise"
    ) -> None:
        if not all(map(is_count, (num_features, num_actions, 1 if resample_every is None else resample_every))):
            got = f"num_features={num_features}, num_actions={num_actions}, resample_every={resample_every}"
            raise ConfigError(explain("GSDENoise", expected="numbers of at least 1", got=got))
        super().__init__(out_key)
        self.num_features = num_features
        self.num_actions = num_actions
        self.resample_every = resample_every
        since_drawn = torch.zeros((), dtype=torch.int64)  # vector steps since all rows were drawn
        self.register_memory("num_steps", since_drawn, batch_dim=None)

    def start(self, env: EnvSpecs) -> tuple[TensorSpec, torch.Tensor]:
        spec = Unbounded((*env.batch_size, self.num_features, self.num_actions), torch.float32, env.device)
        return spec, spec.zero()

    def advance(self, values: Sequence[torch.Tensor], next_: TensorDict) -> Sequence[torch.Tensor]:
        """Draw new noise for all rows every ``resample_every`` steps; else keep the present noise."""
        if self.resample_every is not None:
            self.num_steps += 1
            if int(self.num_steps) % self.resample_every == 0:
                return (self._draw(),)
        return values

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Draw new noise for restarted rows, and add the noise of all rows to the root."""
        if mask is None:
            self.num_steps.zero_()
        if mask is None or bool(mask.any()):
            self._starts = (self._draw(),)
        super().reset(root, mask)

    def _draw(self) -> torch.Tensor:
        return torch.randn(self._spec.shape, generator=self.generator, device=self._spec.device)
