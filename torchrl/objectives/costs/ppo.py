"""The losses of proximal policy optimisation, plain and clipped; the one with a penalty is in ``kl_penalty``.

Schulman et al., "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347. The terms are in
``functional/costs``, GAE in ``objectives/returns``.
"""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.functional.costs import (
    approx_kl,
    clip_fraction,
    clipped_policy_objective,
    effective_sample_size,
    weighted_policy_objective,
)
from torchrl.modules import Distribution
from torchrl.objectives.costs.base import Coefficient
from torchrl.objectives.costs.policy_gradient import PolicyGradientLoss


class PPOLoss(PolicyGradientLoss):
    """The surrogate without any limit: ``L = -ρ A + c_1 · d(V, target) - c_2 · H[π]`` with ρ = π(a|s) / π_old(a|s).

    Schulman et al. (2017), equations 6 and 9. Nothing keeps ρ near 1: for few gradient steps on a batch, or with
    ``MinibatchEpochs(target_kl=...)``.

    Reads what actor and critic read, the action, its old log-prob ``[*B]``, ``advantage`` and ``value_target``
    ``[*B, 1]`` (and ``state_value`` ``[*B, 1]`` with ``value_clip``). Returns ``loss_objective``, ``loss_critic``,
    ``loss_entropy``; to be logged: ``approx_kl`` and ``entropy`` (nats), ``ess`` (effective sample size, as a share of
    the rows). The agent logs ``explained_variance`` beside them, once for the whole batch.

    Args:
        actor: as for :class:`PolicyGradientLoss`, with a ``log_prob_key``.
        critic: reads a state, writes its value ``[*B, 1]`` under its first out key.
        entropy_coef: c_2; 0 as in section 6.1 (continuous control), 0.01 is usual with discrete actions. May be
            scheduled.
        critic_coef: c_1; 0.5 on a squared error without ½ is c_1 = 1 on one with it, as in table 5. May be scheduled.
        normalize_advantage: shift and scale the advantage of each batch to mean 0 and deviation 1 over the valid rows
            (not in the paper, in its first implementation).
        value_clip: how far the value may move from ``state_value`` before it gains nothing; None for no limit.
        critic_distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        num_entropy_samples: as for :class:`PolicyGradientLoss`.
        reduction: as for :class:`PolicyGradientLoss`.
        generator: as for :class:`PolicyGradientLoss`.

    Raises:
        ConfigError: as :class:`PolicyGradientLoss`, or the actor writes no log-prob.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        entropy_coef: float = 0.0,
        critic_coef: float = 0.5,
        normalize_advantage: bool = True,
        value_clip: float | None = None,
        critic_distance: str = "l2",
        num_entropy_samples: int | None = None,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            actor,
            critic,
            entropy_coef=entropy_coef,
            critic_coef=critic_coef,
            normalize_advantage=normalize_advantage,
            value_clip=value_clip,
            critic_distance=critic_distance,
            num_entropy_samples=num_entropy_samples,
            reduction=reduction,
            generator=generator,
        )

    def keys_of(self, actor: TensorDictModuleBase) -> list[NestedKey]:
        """Name the old log-prob."""
        if actor.log_prob_key is None:
            who, hint = type(self).__name__, "Give the actor a log_prob_key before collecting."
            raise ConfigError(explain(who, expected="an actor that writes log-probs", got=None, hint=hint))
        return [actor.log_prob_key]

    def objective(
        self, rows: TensorDict, distribution: Distribution, log_prob: Tensor, advantage: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute -ρ A."""
        old_log_prob = rows.get(self.actor.log_prob_key)
        objective = weighted_policy_objective(log_prob, old_log_prob, advantage)
        log_ratio = log_prob.detach() - old_log_prob
        return objective, {"approx_kl": approx_kl(log_ratio), "ess": effective_sample_size(log_ratio)}


class ClipPPOLoss(PPOLoss):
    """PPO with a clipped ratio: ``L = L_clip + c_1 · d(V, target) - c_2 · H[π]``.

    Schulman et al. (2017), equations 7 and 9. Reads and returns what :class:`PPOLoss` does, but logs ``clip_fraction``
    in the place of ``ess``.

    Args:
        actor: as for :class:`PPOLoss`.
        critic: as for :class:`PPOLoss`.
        clip_epsilon: ε, how far the ratio may move; 0.2 did best in table 1 of the paper. May be scheduled.
        entropy_coef: as for :class:`PPOLoss`, like all that follow.
        critic_coef: weight of the value loss.
        normalize_advantage: shift and scale the advantage.
        value_clip: how far the value may move.
        critic_distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        num_entropy_samples: estimate the entropy.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        generator: source of what the loss draws.

    Raises:
        ConfigError: as :class:`PPOLoss`.
    """

    clip_epsilon = Coefficient(least=0.0, below=1.0)

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        clip_epsilon: float = 0.2,
        entropy_coef: float = 0.0,
        critic_coef: float = 0.5,
        normalize_advantage: bool = True,
        value_clip: float | None = None,
        critic_distance: str = "l2",
        num_entropy_samples: int | None = None,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            actor,
            critic,
            entropy_coef=entropy_coef,
            critic_coef=critic_coef,
            normalize_advantage=normalize_advantage,
            value_clip=value_clip,
            critic_distance=critic_distance,
            num_entropy_samples=num_entropy_samples,
            reduction=reduction,
            generator=generator,
        )
        self.clip_epsilon = clip_epsilon

    def objective(
        self, rows: TensorDict, distribution: Distribution, log_prob: Tensor, advantage: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute L_clip."""
        old_log_prob = rows.get(self.actor.log_prob_key)
        objective = clipped_policy_objective(log_prob, old_log_prob, advantage, clip_epsilon=self._clip_epsilon)
        log_ratio = log_prob.detach() - old_log_prob
        return objective, {
            "approx_kl": approx_kl(log_ratio),
            "clip_fraction": clip_fraction(log_ratio, clip_epsilon=self._clip_epsilon),
        }
