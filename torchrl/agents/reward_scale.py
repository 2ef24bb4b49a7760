"""Rewards of replayed samples, scaled by what is known of returns when they are sampled. The buffer holds them raw."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDictBase

from torchrl.errors import ConfigError, explain
from torchrl.objectives.keys import MASK


class RewardScale:
    """Divide the rewards of samples by the running standard deviation of the discounted return.

    Rewards are stored as they are, so that what was collected early is scaled as what comes late. They are not centred,
    which would change the task. The returns ``R_t = γ R_{t-1} + r_t`` begin anew with each episode, with each batch and
    behind masked rows, and count with weights that fade: the last of n batches with 1, the first with ``decay``ⁿ⁻¹.
    Before there is a spread, rewards are left alone.

    Engstrom et al., "Implementation Matters in Deep Policy Gradients" (2020), https://arxiv.org/abs/2005.12729, section
    3, item 2, for the division; the fading is ours.

    Args:
        gamma: γ.
        decay: weight of the past at each batch.
        clip: the largest size of a scaled reward; None for no limit.

    Raises:
        ConfigError: a number out of its range.
    """

    def __init__(self, gamma: float, *, decay: float = 0.999, clip: float | None = 10.0) -> None:
        if not (0 <= gamma <= 1 and 0 < decay <= 1) or (clip is not None and not clip > 0):
            got = f"gamma={gamma}, decay={decay}, clip={clip}"
            raise ConfigError(explain("RewardScale", expected="gamma and decay up to 1, a positive clip", got=got))
        self.gamma = gamma
        self.decay = decay
        self.clip = clip
        self._weight = self._mean = self._square = 0.0

    @property
    def std(self) -> float:
        """The present divisor."""
        if self._weight == 0:
            return 1.0
        variance = self._square / self._weight - (self._mean / self._weight) ** 2
        return math.sqrt(variance) if variance > 1e-12 else 1.0

    def update(self, batch: TensorDictBase) -> None:
        """Take the returns of a batch ``[*B, T]`` into account."""
        reward = batch.get(("next", "reward")).double()
        starts, mask = batch.get("is_init"), batch.get(MASK, None)
        if mask is not None:
            reward = torch.where(mask.unsqueeze(-1), reward, 0)
            starts = starts | ~mask.unsqueeze(-1)
        running, returns = torch.zeros_like(reward[..., 0, :]), []
        for step in range(reward.shape[-2]):
            running = torch.where(starts[..., step, :], 0, running * self.gamma) + reward[..., step, :]
            returns.append(running)
        values = torch.stack(returns, -2)
        values = values.flatten() if mask is None else values[mask].flatten()
        if not values.numel():
            return
        self._weight = self._weight * self.decay + values.numel()
        self._mean = self._mean * self.decay + values.sum().item()
        self._square = self._square * self.decay + values.square().sum().item()

    def __call__(self, sample: TensorDictBase) -> TensorDictBase:
        """Return a sample with scaled rewards; the one that is given stays as it is."""
        reward = sample.get(("next", "reward")) / self.std
        if self.clip is not None:
            reward = reward.clamp(-self.clip, self.clip)
        result = sample.copy()
        result.set("next", sample.get("next").copy().set("reward", reward))
        return result

    def state_dict(self) -> dict:
        """Capture the statistics."""
        return {"weight": self._weight, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""
        self._weight, self._mean, self._square = state["weight"], state["mean"], state["square"]
