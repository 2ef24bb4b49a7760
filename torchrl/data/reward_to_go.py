"""Write into each step of a batch the return of the rest of its episode. The sum itself is in ``functional``."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl.data.multistep import (
    read_facts,
    read_reward,
    require_discount,
    require_episodes,
    require_single_steps,
)
from torchrl.data.trajectories import MASK
from torchrl.functional.returns import discounted_return, reaches_ending
from torchrl.keys import Key


class Reward2Go:
    """Add to a batch an entry with each step's return: the discounted sum of rewards to the end of its episode.

    >>> Reward2Go(0.99)(batch)["reward_to_go"].shape  # or Collector(..., postproc=Reward2Go(0.99))
    torch.Size([2, 8, 1])

    A step whose episode does not end inside the batch has no such sum: it gets 0, and its ``("collector", "mask")``
    becomes false, so a buffer leaves it out. ``EpisodeStream(Reward2Go(...))`` stores steps until their episode ends,
    so that every step of a finished episode gets its sum. A time limit counts as an end: no value is added for what it
    cut off. Rewards of masked steps enter no sum of another step.

    The result is a new container that shares its other entries with the batch, which is not written to.

    Args:
        gamma: discount γ, a number or a tensor ``[R]``; 1 sums the rewards as they are.
        out_key: where the sum goes, ``[*B, T, R]`` like the reward.

    Raises:
        ConfigError: γ is not between 0 and 1.
    """

    def __init__(self, gamma: float | Tensor, *, out_key: Key = "reward_to_go") -> None:
        for each in gamma.flatten().tolist() if isinstance(gamma, Tensor) else [gamma]:
            require_discount("Reward2Go", each)
        self.gamma = gamma
        self.out_key = out_key

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> TensorDictBase:
        """Return a new batch ``[*B, T]`` with the sums, and a mask, true where the episode's end is in the batch.

        Raises:
            KeyMissing: the reward or a flag is not there.
            SpecError: the batch has no time dimension, or single steps of longer episodes; an entry has a wrong shape;
                or the steps are n-step sums.
        """
        ended, _, starts, mask = read_facts(batch, who="Reward2Go")
        require_episodes(batch, who="Reward2Go")
        require_single_steps(batch, who="Reward2Go")
        reward = read_reward(batch, who="Reward2Go")
        valid = reaches_ending(ended, ended, is_init=starts, mask=mask)
        # Beginnings are not asked again: none lies between a valid step and the end that it reaches.
        sums = discounted_return(reward, ended, ended, gamma=self.gamma, mask=valid)
        result = batch.copy()
        result.set(self.out_key, sums)
        result.set(MASK, valid.squeeze(-1))
        return result
