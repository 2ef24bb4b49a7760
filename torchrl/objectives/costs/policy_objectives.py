"""Policy objectives, the exchangeable term L_π of :class:`PolicyGradientLoss`. Equations: ``functional/costs``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.errors import ConfigError, explain
from torchrl.functional.costs import (
    adapted_kl_coef,
    approx_kl,
    clip_fraction,
    clipped_policy_objective,
    effective_sample_size,
    penalized_policy_objective,
    policy_gradient_loss,
    sampled_kl,
    weighted_policy_objective,
)
from torchrl.keys import Key
from torchrl.modules import Distribution
from torchrl.objectives.costs.actor import head_of, require_formula_or_samples
from torchrl.objectives.costs.base import Coefficient

Terms = tuple[Tensor, dict[str, Tensor]]


class PolicyRows(NamedTuple):
    """Hold the inputs of a :class:`PolicyObjective`: valid rows, the actor, its distribution, log-probs, advantages.

    >>> rows = PolicyRows(actor, batch, actor.build(batch), torch.zeros(2, 8), torch.ones(2, 8))
    >>> rows.old_log_prob is batch["action_log_prob"]  # of the policy that acted
    True

    Attributes:
        actor: the policy in training.
        batch: the rows as they were collected, with what :meth:`PolicyObjective.keys_of` names.
        distribution: π(·|s) in training.
        log_prob: log π(a|s) of the actions in ``batch``, ``[*B]``.
        advantage: A, normalised if the loss was built so, ``[*B]``.
    """

    actor: TensorDictModuleBase
    batch: TensorDict
    distribution: Distribution
    log_prob: Tensor
    advantage: Tensor

    @property
    def old_log_prob(self) -> Tensor:
        """Return log π_old(a|s), which the policy that acted wrote, ``[*B]``."""
        return self.batch.get(self.actor.log_prob_key)


class PolicyObjective(nn.Module, ABC):
    """Base of the objectives that train a policy: a subclass computes the loss of each transition in :meth:`terms`.

    >>> class PolicyGradient(PolicyObjective):
    ...     def terms(self, rows):
    ...         return -rows.log_prob * rows.advantage, {}
    """

    def keys_of(self, actor: TensorDictModuleBase, *, who: str) -> list[Key]:
        """List the keys, beside the action's, that the acting policy wrote into the batch and :meth:`terms` reads.

        Args:
            actor: the policy in training.
            who: the loss, for errors.

        Raises:
            ConfigError: the actor does not write one of them.
        """
        return []

    @abstractmethod
    def terms(self, rows: PolicyRows) -> Terms:
        """Compute L_π of each row, ``[*B]``, and scalars without gradient to be logged beside it."""


class PolicyGradient(PolicyObjective):
    """Compute the plain policy-gradient objective ``-log π(a|s) A``: :func:`torchrl.functional.policy_gradient_loss`.

    >>> rows = PolicyRows(actor, batch, None, torch.tensor([-1.5]), torch.tensor([2.0]))  # log π(a|s) and A
    >>> PolicyGradient().terms(rows)[0].item()
    3.0

    Its gradient is that of the return only while the policy is the one that acted.
    """

    def terms(self, rows: PolicyRows) -> Terms:
        """Compute -log π(a|s) A of each row, and nothing to be logged."""
        return policy_gradient_loss(rows.log_prob, rows.advantage), {}


class Surrogate(PolicyObjective):
    """Compute ``-ρ A``, ρ = π(a|s) / π_old(a|s) without limit: :func:`torchrl.functional.weighted_policy_objective`.

    >>> log_prob = batch["action_log_prob"] + torch.tensor(1.5).log()  # ρ = 1.5
    >>> objective, logged = Surrogate().terms(PolicyRows(actor, batch, None, log_prob, torch.ones(2, 8)))
    >>> objective[0, 0].item(), logged["ess"].item()
    (-1.5, 1.0)

    Schulman et al., "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347, equation 6.
    Nothing keeps ρ near 1. Logs ``approx_kl`` (nats) and ``ess`` (effective sample size, as a share of the rows).
    """

    def keys_of(self, actor: TensorDictModuleBase, *, who: str) -> list[Key]:
        """List the key of the acting policy's log-prob, or refuse an actor that writes none.

        Raises:
            ConfigError: the actor writes no log-prob.
        """
        if getattr(actor, "log_prob_key", None) is None:
            hint = "Give the actor a log_prob_key before collecting."
            raise ConfigError(explain(who, expected="an actor that writes log-probs", got=None, hint=hint))
        return [actor.log_prob_key]

    def terms(self, rows: PolicyRows) -> Terms:
        """Compute -ρ A of each row, and for the log ``approx_kl`` and ``ess``."""
        old_log_prob = rows.old_log_prob
        log_ratio = rows.log_prob.detach() - old_log_prob
        objective = weighted_policy_objective(rows.log_prob, old_log_prob, rows.advantage)
        return objective, {"approx_kl": approx_kl(log_ratio), "ess": effective_sample_size(log_ratio)}


class ClippedSurrogate(Surrogate):
    """Compute PPO's ``-min(ρ A, clip(ρ, 1 - ε, 1 + ε) A)``: :func:`torchrl.functional.clipped_policy_objective`.

    >>> log_prob = batch["action_log_prob"] + torch.tensor(1.5).log()  # ρ = 1.5
    >>> objective, logged = ClippedSurrogate(0.25).terms(PolicyRows(actor, batch, None, log_prob, torch.ones(2, 8)))
    >>> objective[0, 0].item(), logged["clip_fraction"].item()
    (-1.25, 1.0)

    Schulman et al. (2017), equation 7. Logs ``approx_kl`` (nats) and ``clip_fraction``.

    Args:
        clip_epsilon: ε, how far the ratio may move; 0.2 did best in table 1 of the paper. May be scheduled.
    """

    clip_epsilon = Coefficient(least=0.0, below=1.0)

    def __init__(self, clip_epsilon: float = 0.2) -> None:
        super().__init__()
        self.clip_epsilon = clip_epsilon

    def terms(self, rows: PolicyRows) -> Terms:
        """Compute the clipped objective of each row, and for the log ``approx_kl`` and ``clip_fraction``."""
        old_log_prob, clip = rows.old_log_prob, self._clip_epsilon
        log_ratio = rows.log_prob.detach() - old_log_prob
        objective = clipped_policy_objective(rows.log_prob, old_log_prob, rows.advantage, clip_epsilon=clip)
        fraction = clip_fraction(log_ratio, clip_epsilon=clip)
        return objective, {"approx_kl": approx_kl(log_ratio), "clip_fraction": fraction}


class PenalizedSurrogate(Surrogate):
    """Compute PPO's ``-ρ A + β KL(π_old ‖ π)``; the penalty's weight β changes when :meth:`adapt_` is called.

    >>> objective = PenalizedSurrogate(kl_target=0.01, kl_coef=4.0)
    >>> objective.adapt_(0.001)  # far below the target
    >>> objective.kl_coef
    2.0

    Schulman et al. (2017), section 4 and equation 8; see :func:`torchrl.functional.penalized_policy_objective`.
    Reads also the parameters of the distribution that acted, as the actor wrote them (``logits``, or ``loc`` and
    ``scale``). Logs what :class:`Surrogate` does, ``kl``, the mean divergence in nats by formula or samples
    (``approx_kl`` estimates the same from the actions taken), and ``kl_coef``.

    Args:
        kl_target: d_targ, the divergence that one update should bring about, in nats; 0.01 is the best of the three in
            table 1 of the paper.
        kl_coef: the first β, 1 as in table 1.
        increment: factor on β where the divergence exceeds the target by half.
        decrement: factor on β where it is less than two thirds of the target.
        num_kl_samples: estimate the divergence from that many actions of the policy that acted, drawn anew; None uses
            the family's formula.
        generator: source of these actions; None uses torch's global one.

    Raises:
        ConfigError: a target or factor that cannot work.
    """

    kl_coef = Coefficient(least=0.0)

    def __init__(
        self,
        *,
        kl_target: float = 0.01,
        kl_coef: float = 1.0,
        increment: float = 2.0,
        decrement: float = 0.5,
        num_kl_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not (kl_target > 0 and kl_coef > 0 and increment > 1 > decrement > 0):
            expected = "kl_target > 0, kl_coef > 0 and increment > 1 > decrement > 0"
            got = f"{kl_target}, {kl_coef}, {increment} and {decrement}"
            raise ConfigError(explain(type(self).__name__, expected=expected, got=got))
        self.kl_coef = self.initial_kl_coef = kl_coef
        self.rule = {"target": kl_target, "increment": increment, "decrement": decrement}
        self.num_kl_samples = num_kl_samples
        self.generator = generator

    def keys_of(self, actor: TensorDictModuleBase, *, who: str) -> list[Key]:
        """List the keys of the log-prob and of the distribution's parameters that the acting policy wrote.

        Raises:
            ConfigError: the actor writes no parameters or no log-prob, or its family has no formula for the divergence
                and there is no ``num_kl_samples``.
        """
        head = head_of(actor)
        names = getattr(head, "parameter_names", None)
        if names is None:
            hint, expected = "A ProbabilisticActor writes them.", "an actor that writes its parameters"
            raise ConfigError(explain(who, expected=expected, got=type(head).__name__, hint=hint))
        require_formula_or_samples(who, actor, "kl", "num_kl_samples", self.num_kl_samples)
        return [*super().keys_of(actor, who=who), *names]

    def terms(self, rows: PolicyRows) -> Terms:
        """Compute -ρ A + β KL(π_old ‖ π) of each row, and for the log ``approx_kl``, ``ess``, ``kl``, ``kl_coef``."""
        old_log_prob, beta = rows.old_log_prob, self._kl_coef
        log_ratio = rows.log_prob.detach() - old_log_prob
        kl = self.divergence(rows.actor, rows.batch, rows.distribution)
        objective = penalized_policy_objective(rows.log_prob, old_log_prob, rows.advantage, kl, kl_coef=beta)
        logged = {"approx_kl": approx_kl(log_ratio), "ess": effective_sample_size(log_ratio)}
        return objective, logged | {"kl": kl.detach().mean(), "kl_coef": beta.clone()}

    def divergence(self, actor: TensorDictModuleBase, rows: TensorDict, distribution: Distribution) -> Tensor:
        """Compute KL(π_old ‖ π) of each row in nats, ``[*B]``, with π_old built from the parameters in ``rows``."""
        head = head_of(actor)
        parameters = [rows.get(name) for name in head.parameter_names]
        mask_key = getattr(head, "mask_key", None)
        acted = head.distribution(*parameters, **({} if mask_key is None else {"mask": rows.get(mask_key)}))
        if self.num_kl_samples is None:
            return acted.kl(distribution)
        draws = [acted.sample_and_log_prob(self.generator) for _ in range(self.num_kl_samples)]
        return sampled_kl(torch.stack([distribution.log_prob(action) - log_prob for action, log_prob in draws]))

    @torch.no_grad()
    def adapt_(self, kl: Tensor | float) -> None:
        """Multiply β by ``increment`` if ``kl`` exceeds 1.5 · target, by ``decrement`` if it is below target / 1.5.

        Computing the loss never does; the hook :class:`~torchrl.agents.AdaptPenalty` does after each batch.

        Args:
            kl: the divergence that the last update brought about, in nats, ``[]`` or a number.
        """
        kl = torch.as_tensor(kl, dtype=self._kl_coef.dtype, device=self._kl_coef.device)
        self._kl_coef.copy_(adapted_kl_coef(self._kl_coef, kl, **self.rule))

    def reset_(self) -> None:
        """Set β back to the ``kl_coef`` that the constructor was given."""
        self.kl_coef = self.initial_kl_coef
