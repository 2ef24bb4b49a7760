"""The loss of an actor on a batch with advantages, perhaps with a critic, and its plainest forms: REINFORCE and A2C."""

from __future__ import annotations

import math

from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.costs import standardize, value_loss
from torchrl.modules import Sequence
from torchrl.modules.operator import require_keys
from torchrl.modules.training_layers import require_repeatable
from torchrl.objectives.costs.actor import ActorLoss, require_distance, require_distribution
from torchrl.objectives.costs.base import Coefficient
from torchrl.objectives.costs.policy_objectives import PolicyGradient, PolicyObjective, PolicyRows
from torchrl.objectives.keys import decision_keys
from torchrl.objectives.unrolling import Networks
from torchrl.unchecked import shallow


class PolicyGradientLoss(ActorLoss):
    """Train an actor, perhaps with a critic, on ``L = L_π + c_1 · d(V, target) - c_2 · H[π]`` with an objective L_π.

    >>> from torchrl.objectives import GAE, ClippedSurrogate
    >>> loss = PolicyGradientLoss(actor, critic, ClippedSurrogate(clip_epsilon=0.1), entropy_coef=0.01)
    >>> sorted(key for key in loss(GAE(critic)(batch)).keys() if key.startswith("loss_"))
    ['loss_critic', 'loss_entropy', 'loss_objective']

    Reads what actor and critic read, the action, ``advantage`` and, with a critic, ``value_target``, ``[*B, 1]`` each.
    Returns ``loss_objective``, ``loss_entropy`` and, with a critic, ``loss_critic``; to be logged: ``entropy`` (nats)
    and what the objective adds.

    Trains the actor and the critic. A trunk that both share gets gradient from both; if they are two
    :class:`~torchrl.modules.Sequence` that begin with the same modules, as those of ``ActorValueOperator`` do, the
    trunk is computed once.

    Args:
        actor: a :class:`~torchrl.modules.ProbabilisticActor`, or a sequence that ends with one: ``build(tensordict)``
            returns a distribution with ``log_prob`` and ``entropy``, ``[*B]`` each; ``action_key`` and ``log_prob_key``
            say what it writes.
        critic: reads a state, writes its value ``[*B, 1]`` under its first out key; None for a policy alone.
        objective: L_π: ``PolicyGradient()``, ``Surrogate()``, ``ClippedSurrogate(...)``, ``PenalizedSurrogate(...)`` or
            a :class:`PolicyObjective` of your own.
        entropy_coef: c_2. May be scheduled.
        critic_coef: c_1. May be scheduled.
        normalize_advantage: shift and scale the advantage of each batch to mean 0 and deviation 1 over the valid rows.
        value_clip: largest difference between the value and the collected ``state_value``, ``[*B, 1]``, that can lower
            the loss, see :func:`torchrl.functional.value_loss`; None for no limit.
        critic_distance: d: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        num_entropy_samples: estimate the entropy from that many newly drawn actions, with an unbiased gradient; None
            uses the family's formula.
        reduction: over the rows, of each ``loss_*``: ``"mean"``, ``"sum"``, or ``"none"``, which leaves a number per
            row, ``[*B]``, or ``[n]`` where a mask leaves n rows. What is logged is a mean in any case.
        generator: source of the actions that the loss draws; None uses torch's global one, the only one that
            ``torch.compile`` takes (torch 2.13).

    Raises:
        ConfigError: a lazy layer is not initialised, an option is unknown, the actor has no distribution, or its family
            has no formula for the entropy and ``num_entropy_samples`` is None, or the objective compares log-probs with
            those of the batch and the actor has dropout or a batch norm.
    """

    critic_coef = Coefficient(least=0.0)

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase | None,
        objective: PolicyObjective,
        *,
        critic_coef: float = 0.5,
        normalize_advantage: bool = False,
        value_clip: float | None = None,
        critic_distance: str = "l2",
        **options: object,
    ) -> None:
        who = type(self).__name__
        require_distribution(who, actor)
        require_keys(who, actor=actor, **({} if critic is None else {"critic": critic}))
        require_distance(who, "critic_distance", critic_distance)
        compared = objective.keys_of(actor, who=who)
        if compared:
            require_repeatable(who, actor)
        keys = [*actor.in_keys, *decision_keys(actor), actor.action_key, "advantage", *compared]
        if critic is not None:
            keys += [*critic.in_keys, "value_target", *([] if value_clip is None else ["state_value"])]
        networks = Networks(who, actor=actor, critic=critic)
        trained = [actor] if critic is None else [actor, critic]
        super().__init__(actor, in_keys=keys, trained=trained, networks=networks, **options)
        if not (value_clip is None or 0 < value_clip < math.inf):
            raise ConfigError(explain(who, expected="value_clip, a positive number or None", got=value_clip))
        self.critic = critic
        self.objective = objective
        self.critic_coef = critic_coef
        self.normalize_advantage = normalize_advantage
        self.value_clip = value_clip
        self.critic_distance = critic_distance
        heads = networks.head("actor"), None if critic is None else networks.head("critic")
        is_shared = critic is not None and networks.share_memory("actor", "critic")
        # tuples: references only, registered once as actor and critic
        self._trunk, self._heads = _split(*heads) if is_shared else ((), heads)

    def state_dict(self, *args: object, prefix: str = "", **kwargs: object) -> dict[str, Tensor]:
        """Return the state dict, with the objective's entries named as if they were the loss's own."""
        state = super().state_dict(*args, prefix=prefix, **kwargs)
        inside = f"{prefix}objective."
        for key in [key for key in state if key.startswith(inside)]:
            state[prefix + key.removeprefix(inside)] = state.pop(key)
        return state

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args: object) -> None:
        for name in self.objective.state_dict():
            if prefix + name in state:
                state[f"{prefix}objective.{name}"] = state.pop(prefix + name)
        super()._load_from_state_dict(state, prefix, *args)

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_objective``, ``loss_entropy``, with a critic ``loss_critic``, and what is to be logged."""
        # the networks' own container: what they write cannot hide what the batch holds
        inputs = shallow(self.networks.here(rows, "actor"))
        for module in self._trunk:
            module(inputs)
        policy, (actor, critic) = self.actor, self._heads
        distribution = actor.build(inputs)
        log_prob = distribution.log_prob(rows.get(policy.action_key))
        advantage = self._advantage(rows, log_prob)
        objective, logged = self.objective.terms(PolicyRows(policy, rows, distribution, log_prob, advantage))
        terms = {"loss_objective": self._reduce(objective)}
        if critic is not None:
            if not self._trunk:
                inputs = shallow(self.networks.here(rows, "critic"))
            terms["loss_critic"] = self._reduce_column(self._critic_error(critic, inputs, rows)) * self._critic_coef
        return terms | self.entropy_terms(distribution) | logged

    def _advantage(self, rows: TensorDict, log_prob: Tensor) -> Tensor:
        """Return the advantage in the shape of log-probs, ``[*B]``, normalised if the loss was built so."""
        advantage = rows.get("advantage")
        if log_prob.shape != rows.batch_size:
            expected = f"log-probs of shape {list(rows.batch_size)} from its actor's distribution"
            hint = "Sum them over the dimensions of an action, or drop the last one."
            raise SpecError(explain(type(self).__name__, expected=expected, got=list(log_prob.shape), hint=hint))
        if advantage.shape[:-1] != log_prob.shape or advantage.shape[-1] != 1:
            expected = f"advantage of shape {[*log_prob.shape, 1]}, as log-probs are {list(log_prob.shape)}"
            hint = "Add or remove the trailing dimension; nothing is broadcast."
            raise SpecError(explain(type(self).__name__, expected=expected, got=list(advantage.shape), hint=hint))
        if self.normalize_advantage:
            advantage = standardize(advantage)
        return advantage.squeeze(-1)

    def _critic_error(self, critic: TensorDictModuleBase, inputs: TensorDict, rows: TensorDict) -> Tensor:
        """Compute d(V, target) of each row, ``[*B, 1]``."""
        value = critic(inputs).get(self.networks.value_key("critic"))
        old_value = None if self.value_clip is None else rows.get("state_value")
        target = rows.get("value_target")
        return value_loss(value, target, old_value=old_value, clip=self.value_clip, distance=self.critic_distance)


class ReinforceLoss(PolicyGradientLoss):
    """REINFORCE: ``L = -log π(a|s) (G - b) - c_2 · H[π]``, and with a baseline ``+ c_1 · d(V, target)``.

    >>> from torchrl.objectives import DiscountedReturn
    >>> batch["next", "terminated"][:, -1] = True  # two whole episodes
    >>> terms = ReinforceLoss(actor)(DiscountedReturn(gamma=0.99)(batch))
    >>> sorted(terms.keys())
    ['entropy', 'loss_entropy', 'loss_objective']

    Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning" (1992),
    https://doi.org/10.1007/BF00992696. The gradient is that of the return only while the policy is the one that acted:
    take one gradient step on each batch. An estimator of returns writes ``advantage``: G - V(s) if it was given the
    critic, else the return G itself.

    Args:
        actor: as for :class:`PolicyGradientLoss`.
        critic: the baseline: reads a state, writes its value ``[*B, 1]`` under its first out key; None for none.
        **options: those of :class:`PolicyGradientLoss`.

    Raises:
        ConfigError: as :class:`PolicyGradientLoss`.
    """

    def __init__(
        self, actor: TensorDictModuleBase, critic: TensorDictModuleBase | None = None, **options: object
    ) -> None:
        super().__init__(actor, critic, PolicyGradient(), **options)


class A2CLoss(PolicyGradientLoss):
    """Advantage actor-critic: ``L = -log π(a|s) A + c_1 · d(V, target) - c_2 · H[π]``.

    >>> from torchrl.objectives import GAE
    >>> terms = A2CLoss(actor, critic)(GAE(critic, lambda_=1.0)(batch))
    >>> sorted(terms.keys())
    ['entropy', 'loss_critic', 'loss_entropy', 'loss_objective']

    Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning" (2016), https://arxiv.org/abs/1602.01783,
    section 4 and algorithm S3, with all actors in step. The gradient is that of the return only while the policy is the
    one that acted: take one gradient step on each batch.

    Args:
        actor: as for :class:`PolicyGradientLoss`.
        critic: reads a state, writes its value ``[*B, 1]`` under its first out key.
        entropy_coef: c_2; 0.01 as the paper has it for Atari, while continuous actions had 1e-4. May be scheduled.
        **options: those of :class:`PolicyGradientLoss`; c_1 = 0.5 makes of ``"l2"`` half the squared error.

    Raises:
        ConfigError: as :class:`PolicyGradientLoss`.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        entropy_coef: float = 0.01,
        **options: object,
    ) -> None:
        super().__init__(actor, critic, PolicyGradient(), entropy_coef=entropy_coef, **options)


def _split(actor: nn.Module, critic: nn.Module | None) -> tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]:
    """Return the modules with which actor and critic both begin, and an actor and a critic of the modules behind."""
    if not (isinstance(actor, Sequence) and isinstance(critic, Sequence)):
        return (), (actor, critic)
    shared = 0
    while shared < min(len(actor), len(critic)) - 1 and actor[shared] is critic[shared]:
        shared += 1
    return tuple(actor)[:shared], tuple(_rest(sequence, shared) for sequence in (actor, critic))


def _rest(sequence: Sequence, start: int) -> nn.Module:
    parts = tuple(sequence)[start:]
    if start == 0:
        return sequence
    return parts[0] if len(parts) == 1 else Sequence(*parts)
