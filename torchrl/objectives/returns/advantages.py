"""Advantages and value targets for actors with a critic. The equations are in ``functional/returns``."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.functional.returns import gae, td0_target
from torchrl.objectives.returns.base import ReturnEstimator


class GAE(ReturnEstimator):
    """Generalised advantages, Schulman et al. (2016): see :func:`torchrl.functional.gae`.

    >>> GAE(critic, gamma=0.99, lambda_=0.95)(batch)  # writes state_value, advantage, value_target

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        gamma: discount γ; 0.99 as in section 6.1 of Schulman et al. (2017), https://arxiv.org/abs/1707.06347.
        lambda_: decay λ of the trace; 0.95, same place.
    """

    def __init__(self, critic: TensorDictModuleBase, *, gamma: float = 0.99, lambda_: float = 0.95) -> None:
        super().__init__(critic, gamma=gamma)
        self.lambda_ = lambda_

    def estimate(
        self, reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, cut: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum the one-step errors with weights (γλ)^l up to the next cut."""
        return gae(reward, value, next_value, terminated, cut, gamma=self.gamma, lambda_=self.lambda_)


class TD0(ReturnEstimator):
    """One-step targets and errors: see :func:`torchrl.functional.td0_target`.

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        gamma: discount γ.
    """

    def __init__(self, critic: TensorDictModuleBase, *, gamma: float = 0.99) -> None:
        super().__init__(critic, gamma=gamma)

    def estimate(
        self, reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, cut: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take one step; a cut changes nothing, since the next value is that of the true successor."""
        target = td0_target(reward, next_value, terminated, gamma=self.gamma)
        return target - value, target
