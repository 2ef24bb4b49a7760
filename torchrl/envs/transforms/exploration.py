"""Noise for exploration that lives in the environment, because episodes decide when it is drawn anew."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from torchrl.counts import is_count
from torchrl.data.specs import Composite, Unbounded
from torchrl.envs.base import Env
from torchrl.envs.transforms.base import EnvSpecs
from torchrl.envs.transforms.leaves import require_free
from torchrl.envs.transforms.randomness import RandomTransform
from torchrl.errors import ConfigError, explain
from torchrl.keys import Key, as_key, as_path
from torchrl.unchecked import put


class GSDENoise(RandomTransform):
    """Draw the noise of generalised state-dependent exploration: standard normal, ``[*B, F, A]`` float32.

    The policy multiplies it with its features and its learned deviations, so that within an episode the same state
    gets the same deviation from the mean (Raffin et al., "Smooth Exploration for Robotic Reinforcement Learning",
    2021, section 3; there the noise has variance σ², here it has 1 and the policy multiplies it with σ, so that it can
    learn it). It is an observation, and is drawn when a row restarts.

    Args:
        num_features: F, how many features the policy's head has.
        num_actions: A, length of the action.
        resample_every: also draw it anew for all rows after as many vector steps, the paper's n; None never does.
        out_key: where it goes.

    Raises:
        ConfigError: a number is not positive; when wrapping: ``out_key`` covers an observation or a name of the
            environment.
    """

    def __init__(
        self, num_features: int, num_actions: int, *, resample_every: int | None = None, out_key: Key = "gsde_noise"
    ) -> None:
        super().__init__()
        if not all(map(is_count, (num_features, num_actions, 1 if resample_every is None else resample_every))):
            got = f"num_features={num_features}, num_actions={num_actions}, resample_every={resample_every}"
            raise ConfigError(explain("GSDENoise", expected="numbers of at least 1", got=got))
        self.num_features = num_features
        self.num_actions = num_actions
        self.resample_every = resample_every
        self.out_key = as_key(as_path(out_key))
        self._set = (
            put if isinstance(self.out_key, str) else TensorDict.set
        )  # the checked one makes the levels it lacks
        self.register_memory("noise", None)  # [*B, F, A], once the batch size is known
        since_drawn = torch.zeros((), dtype=torch.int64)  # vector steps since all rows were drawn
        self.register_memory("num_steps", since_drawn, batch_dim=None)

    def read_specs(self, env: Env | EnvSpecs) -> None:
        """Make room for the noise of every row."""
        super().read_specs(env)
        require_free("GSDENoise", env.observation_spec, self.out_key)
        self._spec = Unbounded((*env.batch_size, self.num_features, self.num_actions), torch.float32, env.device)
        self.noise = self._spec.zero()

    def step(self, next_: TensorDict, root: TensorDict) -> None:
        """Draw for all rows when it is time; add the noise to both containers."""
        if self.resample_every is not None:
            self.num_steps += 1
            if int(self.num_steps) % self.resample_every == 0:
                self.noise = self._drawn()
        noise = self._buffers["noise"]
        self._set(next_, self.out_key, noise)
        self._set(root, self.out_key, noise)

    def reset(self, root: TensorDict, mask: torch.Tensor | None) -> None:
        """Draw for the rows that restarted; add the noise of all."""
        if mask is None:
            self.num_steps.zero_()
            self.noise = self._drawn()
        elif bool(mask.any()):
            self.noise = torch.where(mask[..., None, None], self._drawn(), self.noise)
        self._set(root, self.out_key, self.noise)

    def observation_spec(self, spec: Composite) -> Composite:
        """Return the spec with the noise."""
        return spec.clone().set(self.out_key, self._spec.clone())

    def _drawn(self) -> torch.Tensor:
        return torch.randn(self._spec.shape, generator=self.generator, device=self._spec.device)
