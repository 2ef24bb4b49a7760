"""Estimators of advantages and value targets by a critic: GAE, TD(λ), TD(0), n-step. Maths: ``functional/returns``."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.functional.returns import gae, n_step_return, require_count, td0_target, td_lambda
from torchrl.objectives.returns.base import ReturnEstimator


class GAE(ReturnEstimator):
    """Write generalised advantages and the value targets ``A + V`` into a batch: see :func:`torchrl.functional.gae`.

    >>> GAE(critic, gamma=0.99, lambda_=0.95)(batch)["advantage"].shape  # beside it, state_value and value_target
    torch.Size([2, 8, 1])

    The value at step t+1 is taken for the future of step t, so both steps must be of the same agent. In a game whose
    players take turns it would be the opponent's value, see docs/concepts/endings.md.

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
        """Return the sums of one-step errors δ_{t+l} times (γλ)^l as advantages, and these plus values as targets."""
        return gae(**series, gamma=self.gamma, lambda_=self.lambda_)


class TDLambda(GAE):
    """Write λ-returns as targets, and their excess over the value as advantages: :func:`torchrl.functional.td_lambda`.

    >>> TDLambda(critic, gamma=0.99, lambda_=0.95)(batch)["value_target"].shape
    torch.Size([2, 8, 1])

    Arguments and, but for rounding, results are those of :class:`GAE`, which sums errors where this sums returns.
    """

    def estimate(self, **series: Tensor) -> tuple[Tensor, Tensor]:
        """Return λ-returns minus values as advantages, and the λ-returns as value targets."""
        target = td_lambda(**series, gamma=self.gamma, lambda_=self.lambda_)
        return target - series["value"], target


class TD0(ReturnEstimator):
    """Write one-step targets, and their excess over the value as advantages: see :func:`torchrl.functional.td0_target`.

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
        """Return one-step errors and targets; truncation changes nothing, as ``next_value`` is the true successor's."""
        target = td0_target(reward, next_value, terminated, gamma=self.gamma)
        return target - value, target


class NStepReturn(ReturnEstimator):
    """Write n-step returns as targets, these minus values as advantages: :func:`torchrl.functional.n_step_return`.

    >>> NStepReturn(critic, 3, gamma=0.99)(batch)["advantage"].shape
    torch.Size([2, 8, 1])

    Args:
        critic: reads a state, writes its value ``[..., 1]`` under its first out key.
        n: number of rewards; fewer near an ending or the batch's edge. 5 as in Mnih et al., "Asynchronous Methods for
            Deep Reinforcement Learning" (2016), https://arxiv.org/abs/1602.01783, section 5 (where it is also the
            length of a batch).
        **options: as for :class:`GAE`.

    Raises:
        ConfigError: ``n`` is less than 1.
    """

    def __init__(self, critic: TensorDictModuleBase, n: int = 5, **options: object) -> None:
        super().__init__(critic, **options)
        require_count("NStepReturn", n)
        self.n = n

    def estimate(self, **series: Tensor) -> tuple[Tensor, Tensor]:
        """Return n-step returns minus values as advantages, and the n-step returns as value targets."""
        target = n_step_return(**series, gamma=self.gamma, n=self.n)
        return target - series["value"], target
