"""Advantages and value targets for actors with a critic. The equations are in ``functional/returns``."""

from __future__ import annotations

from numbers import Integral

from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.functional.returns import gae, n_step_return, td0_target, td_lambda
from torchrl.functional.steps import require_clip
from torchrl.objectives.returns.base import ReturnEstimator, require_fraction


class GAE(ReturnEstimator):
    """Generalised advantages, Schulman et al. (2016): see :func:`torchrl.functional.gae`.

    >>> GAE(critic, gamma=0.99, lambda_=0.95)(batch)["advantage"].shape  # beside it, state_value and value_target
    torch.Size([2, 8, 1])

    The value of the next row is taken for the future of this one: both belong to the same agent. In a game whose
    players move in turn it would be the opponent's, see docs/concepts/endings.md.

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        gamma: discount γ; 0.99 as in section 6.1 of Schulman et al. (2017), https://arxiv.org/abs/1707.06347.
        lambda_: decay λ of the trace; 0.95, same place.
        actor: the policy that the estimates are about, if another one acted.
        weight_clip: the largest importance weight, if there is an actor; None clips nothing.
        average_reward: taken off each reward, as :class:`ReturnEstimator` says.
        standardize: shift and scale the advantages over the valid rows of the batch.
    """

    def __init__(
        self,
        critic: TensorDictModuleBase,
        *,
        gamma: float | Tensor = 0.99,
        lambda_: float | Tensor = 0.95,
        actor: TensorDictModuleBase | None = None,
        weight_clip: float | None = 1.0,
        average_reward: float | Tensor | str | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__(critic, gamma=gamma, actor=actor, average_reward=average_reward, standardize=standardize)
        require_fraction("GAE", "lambda_", lambda_)
        self._keep("lambda_", lambda_)
        require_clip("GAE", weight_clip)
        self.weight_clip = weight_clip

    def estimate(
        self,
        reward: Tensor,
        value: Tensor,
        next_value: Tensor,
        terminated: Tensor,
        cut: Tensor,
        *,
        log_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sum the one-step errors with weights (γλ)^l up to the next cut."""
        return gae(
            reward,
            value,
            next_value,
            terminated,
            cut,
            gamma=self.gamma,
            lambda_=self.lambda_,
            log_weight=log_weight,
            weight_clip=self.weight_clip,
        )


class TD0(ReturnEstimator):
    """One-step targets and errors: see :func:`torchrl.functional.td0_target`.

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        gamma: discount γ.
        average_reward: taken off each reward, as :class:`ReturnEstimator` says.
        standardize: shift and scale the advantages over the valid rows of the batch.
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
        self, reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, cut: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take one step; a cut changes nothing, since the next value is that of the true successor."""
        target = td0_target(reward, next_value, terminated, gamma=self.gamma)
        return target - value, target


class TDLambda(ReturnEstimator):
    """λ-returns and what they exceed the value by: see :func:`torchrl.functional.td_lambda`.

    The same numbers as :class:`GAE` with the same λ, whose names differ: there the trace is of advantages.

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        gamma: discount γ.
        lambda_: decay λ of the trace; 0.95 as for :class:`GAE`.
        actor: the policy that the estimates are about, if another one acted.
        weight_clip: the largest importance weight, if there is an actor; None clips nothing.
        average_reward: taken off each reward, as :class:`ReturnEstimator` says.
        standardize: shift and scale the advantages over the valid rows of the batch.
    """

    def __init__(
        self,
        critic: TensorDictModuleBase,
        *,
        gamma: float | Tensor = 0.99,
        lambda_: float | Tensor = 0.95,
        actor: TensorDictModuleBase | None = None,
        weight_clip: float | None = 1.0,
        average_reward: float | Tensor | str | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__(critic, gamma=gamma, actor=actor, average_reward=average_reward, standardize=standardize)
        require_fraction("TDLambda", "lambda_", lambda_)
        self._keep("lambda_", lambda_)
        require_clip("TDLambda", weight_clip)
        self.weight_clip = weight_clip

    def estimate(
        self,
        reward: Tensor,
        value: Tensor,
        next_value: Tensor,
        terminated: Tensor,
        cut: Tensor,
        *,
        log_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mix the returns of all lengths up to the next cut, that of l steps with weight (1 - λ)λ^{l-1}."""
        target = td_lambda(
            reward,
            next_value,
            terminated,
            cut,
            gamma=self.gamma,
            lambda_=self.lambda_,
            value=value,
            log_weight=log_weight,
            weight_clip=self.weight_clip,
        )
        return target - value, target


class NStepReturn(ReturnEstimator):
    """n-step returns and what they exceed the value by: see :func:`torchrl.functional.n_step_return`.

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        n: number of rewards; fewer where the rows end before. 5 as in Mnih et al., "Asynchronous Methods for Deep
            Reinforcement Learning" (2016), https://arxiv.org/abs/1602.01783, section 5 (there the same as the length
            of a batch).
        gamma: discount γ.
        actor: the policy that the estimates are about, if another one acted.
        weight_clip: the largest importance weight, if there is an actor; None clips nothing.
        average_reward: taken off each reward, as :class:`ReturnEstimator` says.
        standardize: shift and scale the advantages over the valid rows of the batch.

    Raises:
        ConfigError: ``n`` is less than 1.
    """

    def __init__(
        self,
        critic: TensorDictModuleBase,
        n: int = 5,
        *,
        gamma: float | Tensor = 0.99,
        actor: TensorDictModuleBase | None = None,
        weight_clip: float | None = 1.0,
        average_reward: float | Tensor | str | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__(critic, gamma=gamma, actor=actor, average_reward=average_reward, standardize=standardize)
        if not isinstance(n, Integral) or n < 1:
            raise ConfigError(explain("NStepReturn", expected="n, an integer of at least 1", got=n))
        self.n = n
        require_clip("NStepReturn", weight_clip)
        self.weight_clip = weight_clip

    def estimate(
        self,
        reward: Tensor,
        value: Tensor,
        next_value: Tensor,
        terminated: Tensor,
        cut: Tensor,
        *,
        log_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sum n rewards, or those up to the next cut, and the value of the state after the last."""
        target = n_step_return(
            reward,
            next_value,
            terminated,
            cut,
            gamma=self.gamma,
            n=self.n,
            value=value,
            log_weight=log_weight,
            weight_clip=self.weight_clip,
        )
        return target - value, target
