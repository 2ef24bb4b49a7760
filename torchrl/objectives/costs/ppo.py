"""The losses of proximal policy optimisation: plain, clipped, and with a penalty on the divergence.

Schulman et al., "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347. Each is
:class:`PolicyGradientLoss` with one objective of ``policy_objectives`` and the defaults of the paper.
"""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.objectives.costs.base import Coefficient, prefix_errors
from torchrl.objectives.costs.policy_gradient import PolicyGradientLoss
from torchrl.objectives.costs.policy_objectives import ClippedSurrogate, PenalizedSurrogate, Surrogate


class PPOLoss(PolicyGradientLoss):
    """PPO without clip or penalty: ``L = -ρ A + c_1 · d(V, target) - c_2 · H[π]`` with ρ = π(a|s) / π_old(a|s).

    >>> from torchrl.objectives import GAE
    >>> loss = PPOLoss(actor, critic)
    >>> sorted(loss(GAE(critic)(batch)).keys())
    ['approx_kl', 'entropy', 'ess', 'loss_critic', 'loss_entropy', 'loss_objective']

    Schulman et al. (2017), equations 6 and 9. Nothing keeps ρ near 1: for few gradient steps on a batch, or with
    ``MinibatchEpochs(target_kl=...)``. Of the defaults, c_2 = 0 is that of section 6.1 (continuous control; 0.01 is
    usual with discrete actions), and c_1 = 0.5 on a squared error without ½ is 1 on one with it, as in table 5. The
    agent logs ``explained_variance`` beside what :class:`~torchrl.objectives.costs.policy_objectives.Surrogate` logs,
    once for the whole batch.

    Args:
        actor: as for :class:`PolicyGradientLoss`, with a ``log_prob_key``.
        critic: reads a state, writes its value ``[*B, 1]`` under its first out key.
        normalize_advantage: shift and scale the advantage of each batch to mean 0 and deviation 1 over the valid rows
            (not in the paper, in its first implementation).
        **options: those of :class:`PolicyGradientLoss`.

    Raises:
        ConfigError: as :class:`PolicyGradientLoss`, or the actor writes no log-prob.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        normalize_advantage: bool = True,
        **options: object,
    ) -> None:
        super().__init__(actor, critic, Surrogate(), normalize_advantage=normalize_advantage, **options)


class ClipPPOLoss(PolicyGradientLoss):
    """PPO with a clipped ratio: ``L = L_clip + c_1 · d(V, target) - c_2 · H[π]``.

    >>> from torchrl.objectives import GAE
    >>> loss = ClipPPOLoss(actor, critic, clip_epsilon=0.1)
    >>> terms = loss(GAE(critic)(batch))
    >>> terms["clip_fraction"].item()  # the policy is still the one that acted: every ratio is 1
    0.0

    Schulman et al. (2017), equations 7 and 9. Returns what :class:`PPOLoss` does, but logs ``clip_fraction``
    instead of ``ess``.

    Args:
        actor: as for :class:`PPOLoss`.
        critic: as for :class:`PPOLoss`.
        clip_epsilon: ε, how far the ratio may move; 0.2 did best in table 1 of the paper. May be scheduled.
        normalize_advantage: as for :class:`PPOLoss`.
        **options: those of :class:`PolicyGradientLoss`.

    Raises:
        ConfigError: as :class:`PPOLoss`.
    """

    clip_epsilon = Coefficient(of="objective")

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        clip_epsilon: float = 0.2,
        normalize_advantage: bool = True,
        **options: object,
    ) -> None:
        with prefix_errors(type(self).__name__):
            objective = ClippedSurrogate(clip_epsilon)
        super().__init__(actor, critic, objective, normalize_advantage=normalize_advantage, **options)


class KLPenaltyPPOLoss(PolicyGradientLoss):
    """PPO: ``L = -ρ A + β KL(π_old ‖ π) + c_1 · d(V, target) - c_2 · H[π]``; β changes when :meth:`adapt_` is called.

    >>> from torchrl.objectives import GAE
    >>> loss = KLPenaltyPPOLoss(actor, critic, kl_coef=1.0)
    >>> bool(loss.divergence(GAE(critic)(batch)) < 1e-6)  # the policy is still the one that acted
    True
    >>> loss.adapt_(0.5)  # far above kl_target
    >>> loss.kl_coef
    2.0

    Schulman et al. (2017), section 4 and equation 8. Computing the loss leaves β as it is; it changes where you say so,
    once per update of the policy, after all epochs over a batch: ``loss.adapt_(loss.divergence(batch))``, which is what
    the hook :class:`~torchrl.agents.AdaptPenalty` does.

    Reads what :class:`PPOLoss` does and the parameters of the distribution that acted; logs what
    :class:`~torchrl.objectives.costs.policy_objectives.PenalizedSurrogate` does.

    Args:
        actor: as for :class:`PPOLoss`; its family has a ``kl``, or ``num_kl_samples`` is set.
        critic: as for :class:`PPOLoss`.
        kl_target: d_targ in nats, and like the next four as for
            :class:`~torchrl.objectives.costs.policy_objectives.PenalizedSurrogate`.
        kl_coef: the first β.
        increment: factor on β where the divergence is far above the target.
        decrement: factor on β where it is far below.
        num_kl_samples: estimate the divergence from that many drawn actions; None uses the family's formula.
        normalize_advantage: as for :class:`PPOLoss`.
        generator: source of what the loss draws.
        **options: those of :class:`PolicyGradientLoss`.

    Raises:
        ConfigError: as :class:`PPOLoss`; the family has no formula for the divergence and ``num_kl_samples`` is None;
            a target or factor that cannot work.
    """

    kl_coef = Coefficient(of="objective")

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        kl_target: float = 0.01,
        kl_coef: float = 1.0,
        increment: float = 2.0,
        decrement: float = 0.5,
        num_kl_samples: int | None = None,
        normalize_advantage: bool = True,
        generator: torch.Generator | None = None,
        **options: object,
    ) -> None:
        with prefix_errors(type(self).__name__):
            objective = PenalizedSurrogate(
                kl_target=kl_target,
                kl_coef=kl_coef,
                increment=increment,
                decrement=decrement,
                num_kl_samples=num_kl_samples,
                generator=generator,
            )
        options |= {"normalize_advantage": normalize_advantage, "generator": generator}
        super().__init__(actor, critic, objective, **options)

    @torch.no_grad()
    def divergence(self, batch: TensorDictBase) -> Tensor:
        """Compute the mean KL(π_old ‖ π) over the valid rows of a whole batch, as :meth:`adapt_` takes it.

        Args:
            batch: what the loss was trained on, any batch size.

        Returns:
            ``[]``, in nats.
        """
        rows = self._valid_rows(batch)
        distribution = self.networks.head("actor").build(self.networks.here(rows, "actor"))
        return self.objective.divergence(self.actor, rows, distribution).mean()

    def adapt_(self, kl: Tensor | float) -> None:
        """Raise β if ``kl``, the last update's divergence in nats, is well above its target; lower it if well below."""
        self.objective.adapt_(kl)

    def reset_(self) -> None:
        """Set β back to the ``kl_coef`` that the constructor was given."""
        self.objective.reset_()
