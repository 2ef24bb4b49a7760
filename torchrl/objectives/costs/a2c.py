"""The loss of advantage actor-critic."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.functional.costs import policy_gradient_loss
from torchrl.modules import Distribution
from torchrl.objectives.costs.policy_gradient import PolicyGradientLoss


class A2CLoss(PolicyGradientLoss):
    """Advantage actor-critic: ``L = -log π(a|s) A + c_1 · d(V, target) - c_2 · H[π]``.

    Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning" (2016), https://arxiv.org/abs/1602.01783,
    section 4 and algorithm S3, with all actors in step. The gradient is that of the return only while the policy is the
    one that acted: take one gradient step on each batch.

    Reads what actor and critic read, the action, ``advantage`` and ``value_target`` ``[*B, 1]``. Returns
    ``loss_objective``, ``loss_critic``, ``loss_entropy``; to be logged: ``entropy`` (nats).

    Args:
        actor: as for :class:`PolicyGradientLoss`, like all but the next three.
        critic: reads a state, writes its value ``[*B, 1]`` under its first out key.
        entropy_coef: c_2; 0.01 as the paper has it for Atari, while continuous actions had 1e-4. May be scheduled.
        critic_coef: c_1; 0.5, which makes of ``"l2"`` half the squared error. May be scheduled.
        normalize_advantage: shift and scale the advantage of each batch to mean 0 and deviation 1; not in the paper.
        critic_distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        num_entropy_samples: estimate the entropy.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        generator: source of what the loss draws.

    Raises:
        ConfigError: as :class:`PolicyGradientLoss`.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        entropy_coef: float = 0.01,
        critic_coef: float = 0.5,
        normalize_advantage: bool = False,
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
            critic_distance=critic_distance,
            num_entropy_samples=num_entropy_samples,
            reduction=reduction,
            generator=generator,
        )

    def objective(
        self, rows: TensorDict, distribution: Distribution, log_prob: Tensor, advantage: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute -log π(a|s) A."""
        return policy_gradient_loss(log_prob, advantage), {}
