"""Advantages and value targets for actors with a critic. The equations are in ``functional/returns``."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.functional.returns import gae, n_step_return, require_count, td0_target, td_lambda
from torchrl.objectives.returns.base import ReturnEstimator


class GAE(ReturnEstimator):
    """Generalised advantages, Schulman et al. (2016): see :func:`torchrl.functional.gae`.

    >>> GAE(critic, gamma=0.99, lambda_=0.95)(batch)["advantage"].shape  # beside it, state_value and value_target
    torch.Size([2, 8, 1])

    The value of the next row is taken for the future of this one: both belong to the same agent. In a game whose
    players move in turn it would be the opponent's, see docs/concepts/endings.md.

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        lambda_: decay λ of the trace; 0.95 as in section 6.1 of Schulman et al. (2017),
            https://arxiv.org/abs/1707.06347.
        **options: ``gamma``, ``actor``, ``weight_clip``, ``average_reward``, ``standardize``: see
            :class:`ReturnEstimator`.
    """

    def __init__(self, critic: TensorDictModuleBase, *, lambda_: float | Tensor = 0.95, **options: object) -> None:
        super().__init__(critic, **options)
        self.keep_fraction("lambda_", lambda_)

    def estimate(self, **series: Tensor) -> tuple[Tensor, Tensor]:
        """Sum the one-step errors with weights (γλ)^l up to the next cut."""
        return gae(**series, gamma=self.gamma, lambda_=self.lambda_)


class TDLambda(GAE):
    """λ-returns, and by how much they exceed the value: see :func:`torchrl.functional.td_lambda`.

    >>> TDLambda(critic, gamma=0.99, lambda_=0.95)(batch)["value_target"].shape
    torch.Size([2, 8, 1])

    The arguments and, but for rounding, the numbers are those of :class:`GAE`; there the trace is of advantages.
    """

    def estimate(self, **series: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the returns of all lengths up to the next cut, that of l steps with weight (1 - λ)λ^{l-1}."""
        target = td_lambda(**series, gamma=self.gamma, lambda_=self.lambda_)
        return target - series["value"], target


class TD0(ReturnEstimator):
    """One-step targets and errors: see :func:`torchrl.functional.td0_target`.

    >>> TD0(critic, gamma=0.99)(batch)["value_target"].shape  # r + γ V(s')
    torch.Size([2, 8, 1])

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        gamma: discount γ.
        average_reward: see :class:`ReturnEstimator`.
        standardize: see :class:`ReturnEstimator`.
    """

    def __init__(
        self,
        critic: TensorDictModuleBase,
        *,
        gamma: float | Tensor = 0.99,
        average_reward: float | Tensor | str | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__(critic, gamma=gamma, average_reward=average_reward, standardize=standardize)

    def estimate(
        self, reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take one step; a cut changes nothing, since the next value is that of the true successor."""
        target = td0_target(reward, next_value, terminated, gamma=self.gamma)
        return target - value, target


class NStepReturn(ReturnEstimator):
    """n-step returns, and by how much they exceed the value: see :func:`torchrl.functional.n_step_return`.

    >>> NStepReturn(critic, 3, gamma=0.99)(batch)["advantage"].shape
    torch.Size([2, 8, 1])

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        n: number of rewards; fewer where the rows end before. 5 as in Mnih et al., "Asynchronous Methods for Deep
            Reinforcement Learning" (2016), https://arxiv.org/abs/1602.01783, section 5 (there the same as the length
            of a batch).
        **options: as for :class:`GAE`.

    Raises:
        ConfigError: ``n`` is less than 1.
    """

    def __init__(self, critic: TensorDictModuleBase, n: int = 5, **options: object) -> None:
        super().__init__(critic, **options)
        require_count("NStepReturn", n)
        self.n = n

    def estimate(self, **series: Tensor) -> tuple[Tensor, Tensor]:
        """Sum n rewards, or those up to the next cut, and the value of the state after the last."""
        target = n_step_return(**series, gamma=self.gamma, n=self.n)
        return target - series["value"], target
