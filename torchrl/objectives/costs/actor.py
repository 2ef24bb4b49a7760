"""The base of losses that train a policy: its distribution, entropy, and the reduction over rows. No algorithm."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add

import torch
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.data.specs import Bounded
from torchrl.errors import ConfigError, explain
from torchrl.functional.costs import DISTANCES, sampled_entropy
from torchrl.keys import Key
from torchrl.modules import Actor, CompositeDistribution, Delta, Distribution, Sequence
from torchrl.modules.distributions.bounds import Bounds
from torchrl.modules.families import require_bounds
from torchrl.modules.wrapper import PolicyWrapper
from torchrl.objectives.costs.base import Coefficient, Loss
from torchrl.objectives.options import refuse_unknown
from torchrl.objectives.unrolling import Networks


def _identity(x: Tensor) -> Tensor:
    return x


def _drop_column(x: Tensor) -> Tensor:
    return x.squeeze(-1)


# How a term of shape [*B] is reduced, and how one of shape [*B, 1].
REDUCTIONS = {"mean": (torch.mean, torch.mean), "sum": (torch.sum, torch.sum), "none": (_identity, _drop_column)}


class ActorLoss(Loss):
    """Base of losses that train a policy: adds the entropy bonus and the reduction of each term over the rows.

    Args:
        actor: ``build(tensordict)`` returns a distribution with ``log_prob`` and ``entropy``, ``[*B]`` each;
            ``action_key`` says where the action is.
        in_keys: what the loss reads.
        trained: the networks that it trains.
        networks: actor and critic by name, split where they have memory.
        entropy_coef: weight of the entropy bonus.
        num_entropy_samples: estimate the entropy from that many newly drawn actions; None uses the family's formula.
        reduction: over the rows of each ``loss_*``: ``"mean"``, ``"sum"``, or ``"none"``, which keeps the rows.
        generator: source of the actions that the loss draws; None uses torch's global one.

    Raises:
        ConfigError: an unknown reduction, or a family without a formula for the entropy and no number of samples.
    """

    entropy_coef = Coefficient(least=0.0)

    def __init__(
        self,
        actor: TensorDictModuleBase,
        *,
        in_keys: Iterable[Key],
        trained: Iterable[nn.Module],
        networks: Networks,
        entropy_coef: float = 0.0,
        num_entropy_samples: int | None = None,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
        **unknown: object,
    ) -> None:
        refuse_unknown(type(self), unknown)
        super().__init__(in_keys=in_keys, trained=trained, networks=networks)
        who = type(self).__name__
        if hasattr(head_of(actor), "build"):
            require_formula_or_samples(who, actor, "entropy", "num_entropy_samples", num_entropy_samples)
        if reduction not in REDUCTIONS:
            raise ConfigError(explain(who, expected=f"a reduction out of {list(REDUCTIONS)}", got=repr(reduction)))
        self.actor = actor
        self.entropy_coef = entropy_coef
        self.num_entropy_samples = num_entropy_samples
        self.reduction = reduction
        self.generator = generator
        self._reduce, self._reduce_column = REDUCTIONS[reduction]

    def entropy_terms(self, distribution: Distribution) -> dict[str, Tensor]:
        """Return ``loss_entropy``, which is -``entropy_coef`` times the entropy, and for the log its mean in nats."""
        if self.num_entropy_samples is None:
            entropy = distribution.entropy()
        else:
            entropy = entropy_from_samples(distribution, self.num_entropy_samples, generator=self.generator)
        reduced = self._reduce(entropy)
        mean = reduced if self.reduction == "mean" else entropy.mean()
        return {"loss_entropy": reduced * -self._entropy_coef, "entropy": mean.detach()}


def entropy_from_samples(
    distribution: Distribution, num_samples: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Estimate the entropy of each row's distribution by drawing actions from it; value and gradient are unbiased.

    The gradient goes through the actions where the family has ``rsample_and_log_prob``; elsewhere it is the
    score-function estimate of :func:`torchrl.functional.sampled_entropy`, which is noisier. The entropy of a
    :class:`CompositeDistribution`, whose parts are independent, is the sum over its parts.

    Args:
        distribution: of any family that can sample.
        num_samples: actions per row.
        generator: source of the actions; None uses torch's global one.

    Returns:
        ``[*B]``, in nats.
    """
    if isinstance(distribution, CompositeDistribution):
        parts = distribution.parts.values()
        return reduce(add, [entropy_from_samples(part, num_samples, generator=generator) for part in parts])
    draw = getattr(distribution, "rsample_and_log_prob", None)
    if draw is not None:
        return -torch.stack([draw(generator)[1] for _ in range(num_samples)]).mean(0)
    actions = [distribution.sample(generator) for _ in range(num_samples)]
    return sampled_entropy(torch.stack([distribution.log_prob(action) for action in actions]))


def head_of(actor: nn.Module) -> nn.Module:
    """Return the module that chooses an actor's action: the innermost of wrappers, the last of a :class:`Sequence`."""
    while isinstance(actor, (Sequence, PolicyWrapper)):
        actor = actor[-1] if isinstance(actor, Sequence) else actor.module
    return actor


def require_distribution(who: str, actor: nn.Module) -> None:
    """Refuse an actor without a distribution, and one with a :class:`Delta`, whose log-prob is infinite.

    Raises:
        ConfigError: saying what to write.
    """
    head = head_of(actor)
    if not hasattr(head, "build"):
        hint = "Wrap the network in ProbabilisticActor."
        raise ConfigError(explain(who, expected="an actor with a distribution", got=type(head).__name__, hint=hint))
    family = family_of(head)
    if isinstance(family, type) and issubclass(family, Delta):
        hint = "The log-prob of a Delta is infinite: clone the network as an Actor, or choose another family."
        raise ConfigError(explain(who, expected="an actor with a random action", got=family.__name__, hint=hint))


def family_of(head: nn.Module) -> object:
    """Return the ``distribution`` class of an actor's head, without the ``functools.partial`` around it; else None."""
    distribution = getattr(head, "distribution", None)
    return getattr(distribution, "func", distribution)


def require_formula_or_samples(who: str, actor: nn.Module, what: str, name: str, num_samples: int | None) -> None:
    """Refuse an actor whose distribution has no formula for entropy or KL, unless a number of samples is given.

    Args:
        who: the loss.
        actor: has a distribution.
        what: the method of the distribution, ``"entropy"`` or ``"kl"``.
        name: the user's option for the number of samples, such as ``num_entropy_samples``.
        num_samples: the value of that option; refused if below 1.

    Raises:
        ConfigError: the family has no formula and no number of samples is given, or one below 1.
    """
    if num_samples is not None:
        if num_samples < 1:
            raise ConfigError(explain(f"{who}({name}=...)", expected="at least 1, or None", got=num_samples))
        return
    family = family_of(head_of(actor))
    if getattr(family, what, None) is getattr(Distribution, what):
        hint = f"Estimate it: {name}=16."
        raise ConfigError(
            explain(who, expected=f"a family with a formula for `{what}`", got=family.__name__, hint=hint)
        )


def require_distance(who: str, name: str, distance: str) -> None:
    """Refuse a distance other than ``"l2"``, ``"l1"`` and ``"smooth_l1"``.

    Raises:
        ConfigError: naming the three.
    """
    if distance not in DISTANCES:
        raise ConfigError(explain(who, expected=f"{name} out of {list(DISTANCES)}", got=repr(distance)))


def require_within(who: str, actor: nn.Module, low: Tensor, high: Tensor) -> None:
    """Refuse an actor whose own bounds exceed ``low`` and ``high``, ``[A]`` each; warn where its bounds are narrower.

    Raises:
        SpecError: naming the bounds to write.
    """
    head, row = head_of(actor), Bounded(low, high)
    distribution, family = getattr(head, "distribution", None), family_of(head)
    if isinstance(head, Actor):
        head.require_fit(row)
    elif isinstance(family, type) and hasattr(family, "within"):
        keywords = getattr(distribution, "keywords", {})
        bounds = keywords.get("bounds") or Bounds.of(keywords.get("low", -1.0), keywords.get("high", 1.0))
        require_bounds(f"{who}, {family.__name__}", bounds, row)
