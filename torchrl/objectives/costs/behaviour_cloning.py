"""Behaviour cloning: supervised learning of the actions that a stored batch holds."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.costs import distance_loss
from torchrl.objectives.costs.actor import ActorLoss, head_of, require_distance, require_distribution
from torchrl.objectives.keys import decision_keys
from torchrl.objectives.unrolling import Networks


class BehaviourCloningLoss(ActorLoss):
    """Imitate the actions of a batch: ``L = -log π(a|s) - c · H[π]``, or ``L = d(π(s), a)`` for a deterministic actor.

    >>> sorted(BehaviourCloningLoss(actor, entropy_coef=0.01)(batch).keys())
    ['entropy', 'loss_entropy', 'loss_objective']

    Pomerleau, "ALVINN: An Autonomous Land Vehicle in a Neural Network" (1988). Needs nothing of a batch but what the
    actor reads and the action. The distance is the mean over the entries of an action; the log-prob of several is the
    sum over them.

    Returns ``loss_objective``; with a distribution also ``loss_entropy`` and, to be logged, ``entropy`` (nats).

    Args:
        actor: with ``build(tensordict)``, which returns a distribution; or without, like
            :class:`~torchrl.modules.Actor`: then it writes one tensor of real numbers under ``action_key``.
        distance: d, for a deterministic actor: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        entropy_coef: c, for a distribution. May be scheduled.
        num_entropy_samples: estimate the entropy from that many newly drawn actions; None uses the family's formula.
        reduction: over the rows: ``"mean"``, ``"sum"``, or ``"none"``, which leaves a number per row.
        generator: source of the actions that the loss draws; None uses torch's global one.

    Raises:
        ConfigError: a lazy layer is not initialised, an option is unknown, an entropy is asked of a deterministic actor
            or of a family without a formula.
        SpecError: from a call, the action is no tensor of real numbers, or has not the shape of the actor's.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        *,
        distance: str = "l2",
        entropy_coef: float = 0.0,
        num_entropy_samples: int | None = None,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        who = "BehaviourCloningLoss"
        require_distance(who, "distance", distance)
        is_probabilistic = hasattr(head_of(actor), "build")
        if is_probabilistic:
            require_distribution(who, actor)
        elif entropy_coef or num_entropy_samples is not None:
            got = type(head_of(actor)).__name__
            raise ConfigError(explain(who, expected="an actor with a distribution, for its entropy", got=got))
        super().__init__(
            actor,
            in_keys=[*actor.in_keys, *decision_keys(actor), actor.action_key],
            trained=[actor],
            entropy_coef=entropy_coef,
            num_entropy_samples=num_entropy_samples,
            reduction=reduction,
            generator=generator,
            networks=Networks(who, actor=actor),
        )
        self.distance = distance
        self._is_probabilistic = is_probabilistic

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_objective``, and for an actor with a distribution ``loss_entropy`` and ``entropy``."""
        action = rows.get(self.actor.action_key)  # before the actor writes its own
        inputs, actor = self.networks.here(rows, "actor"), self.networks.head("actor")
        if self._is_probabilistic:
            distribution = actor.build(inputs)
            return {"loss_objective": self._reduce(-distribution.log_prob(action))} | self.entropy_terms(distribution)
        if not isinstance(action, Tensor) or not action.is_floating_point():
            got = str(action.dtype) if isinstance(action, Tensor) else type(action).__name__
            hint = "A ProbabilisticActor imitates any action."
            raise SpecError(explain("BehaviourCloningLoss", expected="an action of real numbers", got=got, hint=hint))
        error = distance_loss(actor(inputs).get(self.actor.action_key), action, distance=self.distance)
        return {"loss_objective": self._reduce(error.reshape(*rows.batch_size, -1).mean(-1))}
