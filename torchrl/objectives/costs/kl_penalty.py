"""Proximal policy optimisation with an adaptive penalty on the divergence from the policy that acted."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.functional.costs import (
    adapted_kl_coef,
    approx_kl,
    effective_sample_size,
    penalized_policy_objective,
    sampled_kl,
)
from torchrl.modules import Distribution
from torchrl.objectives.costs.actor import head_of, require_formula_or_samples
from torchrl.objectives.costs.base import Coefficient
from torchrl.objectives.costs.ppo import PPOLoss


class KLPenaltyPPOLoss(PPOLoss):
    """PPO with a penalty: ``L = -ρ A + β KL(π_old ‖ π) + c_1 · d(V, target) - c_2 · H[π]``, with an adaptive β.

    Schulman et al., "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347, section 4 and
    equation 8. Computing the loss leaves β as it is; it changes where you say so, once per update of the policy, after
    all epochs over a batch::

        loss.adapt_(loss.divergence(batch))

    Reads what :class:`PPOLoss` does, and the parameters of the distribution that acted, as the actor wrote them
    (``logits``, or ``loc`` and ``scale``). Returns what :class:`PPOLoss` does; to be logged besides: ``kl``, the
    divergence in nats by formula or samples (``approx_kl`` estimates the same from the actions taken), and ``kl_coef``.

    Args:
        actor: as for :class:`PPOLoss`; its family has a ``kl``, or ``num_kl_samples`` is set.
        critic: as for :class:`PPOLoss`.
        kl_target: d_targ, the divergence that one update should bring about, in nats; 0.01 is the best of the three in
            table 1 of the paper.
        kl_coef: the first β, 1 as in table 1.
        increment: factor on β where the divergence exceeds the target by half.
        decrement: factor on β where it is less than two thirds of the target.
        num_kl_samples: estimate the divergence from that many actions of the policy that acted, drawn anew; None uses
            the family's formula.
        entropy_coef: as for :class:`PPOLoss`, like all that follow.
        critic_coef: weight of the value loss.
        normalize_advantage: shift and scale the advantage.
        value_clip: how far the value may move.
        critic_distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        num_entropy_samples: estimate the entropy.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        generator: source of what the loss draws.

    Raises:
        ConfigError: as :class:`PPOLoss`; the family has no formula for the divergence and ``num_kl_samples`` is None;
            a target or factor that cannot work.
    """

    kl_coef = Coefficient(least=0.0)

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
        require_formula_or_samples("KLPenaltyPPOLoss", actor, "kl", "num_kl_samples", num_kl_samples)
        if not (kl_target > 0 and kl_coef > 0 and increment > 1 > decrement > 0):
            expected = "kl_target > 0, kl_coef > 0 and increment > 1 > decrement > 0"
            got = f"{kl_target}, {kl_coef}, {increment} and {decrement}"
            raise ConfigError(explain("KLPenaltyPPOLoss", expected=expected, got=got))
        self.kl_target = kl_target
        self.kl_coef = kl_coef
        self.initial_kl_coef = kl_coef
        self.increment = increment
        self.decrement = decrement
        self.num_kl_samples = num_kl_samples

    def keys_of(self, actor: TensorDictModuleBase) -> list[NestedKey]:
        """Name the old log-prob and the parameters of the distribution that acted."""
        names = getattr(head_of(actor), "parameter_names", None)
        if names is None:
            who, got = type(self).__name__, type(head_of(actor)).__name__
            hint = "A ProbabilisticActor writes them."
            raise ConfigError(explain(who, expected="an actor that writes its parameters", got=got, hint=hint))
        return [*super().keys_of(actor), *names]

    def objective(
        self, rows: TensorDict, distribution: Distribution, log_prob: Tensor, advantage: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute -ρ A + β KL(π_old ‖ π)."""
        old_log_prob = rows.get(self.actor.log_prob_key)
        kl = self._kl(self._acted(rows), distribution)
        objective = penalized_policy_objective(log_prob, old_log_prob, advantage, kl, kl_coef=self._kl_coef)
        log_ratio = log_prob.detach() - old_log_prob
        return objective, {
            "approx_kl": approx_kl(log_ratio),
            "ess": effective_sample_size(log_ratio),
            "kl": kl.detach().mean(),
            "kl_coef": self._kl_coef.clone(),
        }

    @torch.no_grad()
    def divergence(self, batch: TensorDictBase) -> Tensor:
        """Compute the mean of KL(π_old ‖ π) over the valid rows of a batch, the whole of it at once.

        Args:
            batch: what the loss was trained on, any batch size.

        Returns:
            ``[]``, in nats.
        """
        rows = self._valid_rows(batch)
        return self._kl(self._acted(rows), self.actor.build(rows)).mean()

    @torch.no_grad()
    def adapt_(self, kl: Tensor | float) -> None:
        """Change β for the next update: up where the last one went too far, down where it hardly moved.

        Args:
            kl: the divergence that the last update brought about, in nats, ``[]`` or a number.
        """
        kl = torch.as_tensor(kl, dtype=self._kl_coef.dtype, device=self._kl_coef.device)
        factors = {"increment": self.increment, "decrement": self.decrement}
        self._kl_coef.copy_(adapted_kl_coef(self._kl_coef, kl, target=self.kl_target, **factors))

    def reset_(self) -> None:
        """Put β back to where it began."""
        self.kl_coef = self.initial_kl_coef

    def _acted(self, rows: TensorDict) -> Distribution:
        """Build the distribution that acted from the parameters it left behind."""
        head = head_of(self.actor)
        parameters = [rows.get(name) for name in head.parameter_names]
        mask_key = getattr(head, "mask_key", None)
        options = {} if mask_key is None else {"mask": rows.get(mask_key)}
        return head.distribution(*parameters, **options)

    def _kl(self, acted: Distribution, distribution: Distribution) -> Tensor:
        """Compute KL(acted ‖ distribution) of each row, ``[*B]``."""
        if self.num_kl_samples is None:
            return acted.kl(distribution)
        draws = [acted.sample_and_log_prob(self.generator) for _ in range(self.num_kl_samples)]
        return sampled_kl(torch.stack([distribution.log_prob(action) - log_prob for action, log_prob in draws]))
