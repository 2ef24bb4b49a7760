"""The losses of soft actor-critics: SAC with or without a state-value network, SAC for discrete actions, and REDQ."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.data.specs import Categorical, OneHot, TensorSpec
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.costs import distance_loss
from torchrl.functional.q_values import temperature_loss
from torchrl.modules.distributions import OneHotCategorical
from torchrl.modules.exploration import without_exploration
from torchrl.modules.explorers import action_bounds
from torchrl.objectives.costs.actor import family_of, head_of, require_distribution, require_within
from torchrl.objectives.costs.actor_critic import ActorCriticLoss
from torchrl.objectives.costs.targets import target_copy
from torchrl.objectives.unrolling import split_memory


class Temperature(nn.Module):
    """Hold α, the weight of the entropy in SAC's losses, as a parameter log α, trained if ``learned`` is true.

    Args:
        value: α at the beginning.
        learned: whether it is trained.

    Raises:
        ConfigError: α is not positive, or not finite.
    """

    def __init__(self, value: float, *, learned: bool) -> None:
        super().__init__()
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(explain("temperature", expected="a positive number", got=value))
        self.log_value = nn.Parameter(torch.tensor(math.log(value)), requires_grad=learned)

    def forward(self) -> Tensor:
        """Return α, ``[]``, without gradient."""
        return self.log_value.detach().exp()


class _SoftLoss(ActorCriticLoss):
    """Base of the SAC losses: adds the temperature and the entropy that the temperature is trained towards.

    Args:
        actor: as for :class:`ActorCriticLoss`, with a distribution; exploring wrappers around it are removed.
        critic: as for :class:`ActorCriticLoss`.
        others: networks of the state that are trained beside these two, by name.
        temperature: α, or its initial value if it is learned.
        learn_temperature: train α.
        target_entropy: H̄ in nats, or ``"auto"``, for the number of :meth:`auto_entropy`.
        action_spec: of the action of one row, without batch dimensions; ``"auto"`` needs it.
        **options: those of :class:`ActorCriticLoss`.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        others: Mapping[str, TensorDictModuleBase],
        temperature: float = 1.0,
        learn_temperature: bool = True,
        target_entropy: float | str = "auto",
        action_spec: TensorSpec | None = None,
        **options: object,
    ) -> None:
        if target_entropy == "auto":
            target_entropy = self.auto_entropy(action_spec) if learn_temperature else 0.0
        actor = without_exploration(actor)
        require_distribution(type(self).__name__, actor)
        alpha = Temperature(temperature, learned=learn_temperature)
        super().__init__(actor, critic, trained=[actor, critic, *others.values(), alpha], others=others, **options)
        self.temperature = alpha
        self.learn_temperature = learn_temperature
        self.target_entropy = float(target_entropy)

    @abstractmethod
    def auto_entropy(self, action_spec: TensorSpec | None) -> float:
        """Return the target entropy in nats that ``target_entropy="auto"`` stands for.

        Raises:
            ConfigError: there is no spec, or one of another kind of action.
        """

    def temperature_terms(self, log_prob: Tensor) -> dict[str, Tensor]:
        """Compute ``loss_temperature`` if α is learned, and for the log ``entropy`` and ``temperature``.

        Args:
            log_prob: log π of actions of the present policy, or minus the policy's entropy, without gradient, ``[n]``.
        """
        logged = {"entropy": -log_prob.mean(), "temperature": self.temperature()}
        if not self.learn_temperature:
            return logged
        log_temperature = self.temperature.log_value
        loss = temperature_loss(log_prob, log_temperature=log_temperature, target_entropy=self.target_entropy)
        return {"loss_temperature": loss.mean()} | logged


class SACLoss(_SoftLoss):
    """Train an actor, critics and α: the critics' target is ``r + γ (min_i Q'_i(s', a') - α log π(a'|s'))``.

    >>> from torchrl.modules import MLP, NormalHead, ProbabilisticActor, TanhNormal, ValueEnsemble
    >>> policy = ProbabilisticActor(nn.Sequential(MLP(4, 1), NormalHead(1)), TanhNormal)
    >>> loss = SACLoss(policy, ValueEnsemble(lambda: MLP(5, 1), 2), target_entropy=-1.0)
    >>> sorted(key for key in loss(batch.set("action", torch.zeros(2, 8, 1))).keys() if key.startswith("loss_"))
    ['loss_actor', 'loss_critic', 'loss_temperature']

    Haarnoja et al., "Soft Actor-Critic Algorithms and Applications" (2018), https://arxiv.org/abs/1812.05905, equations
    5, 9 and 18. With ``value`` it is the first version, https://arxiv.org/abs/1801.01290, equations 5, 8 and 12: a
    network V is trained towards ``min_i Q_i(s, a) - α log π(a|s)``, and the critics towards ``r + γ V'(s')`` with the
    target network V'.

    Returns what :class:`ActorCriticLoss` does, ``loss_temperature`` where α is learned, and ``loss_state_value`` with
    ``value``; to be logged also ``entropy`` (in nats, of the actions drawn) and ``temperature``.

    Args:
        actor: a :class:`~torchrl.modules.ProbabilisticActor` whose distribution has ``rsample_and_log_prob``, such as
            ``TanhNormal``.
        critic: a :class:`~torchrl.modules.ValueEnsemble`, usually of two.
        value: reads a state, writes its value ``[*B, 1]``; None for the second version.
        action_spec: of the action of one row, without batch dimensions, with finite bounds; ``"auto"`` needs it.
        generator: source of the actions; None uses torch's global one.
        **options: those of :class:`ActorCriticLoss`; ``temperature``, α or its initial value;
            ``learn_temperature``; ``target_entropy``, H̄ in nats: ``"auto"`` is -A for actions scaled to [-1, 1]
            (appendix D), so ``-A + Σ log(half the range)`` for the actions in their own units.

    Raises:
        ConfigError: as :class:`ActorCriticLoss`, an actor that cannot be differentiated through its actions, a
            temperature that is not positive, or "auto" without a spec.
        SpecError: the action has no finite bounds.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        value: TensorDictModuleBase | None = None,
        action_spec: TensorSpec | None = None,
        generator: torch.Generator | None = None,
        **options: object,
    ) -> None:
        who, others = type(self).__name__, {} if value is None else {"value": value}
        super().__init__(actor, critic, others=others, action_spec=action_spec, **options)
        self.generator = generator
        family = family_of(head_of(self.actor))
        if not hasattr(family, "rsample_and_log_prob"):
            hint = "TanhNormal has it; DiscreteSACLoss is for choices."
            expected = "an actor that can be differentiated through its actions"
            raise ConfigError(explain(who, expected=expected, got=family.__name__, hint=hint))
        if action_spec is not None:
            require_within(who, actor, *action_bounds(who, action_spec))
        self.value = value
        self.target_value = None if value is None else target_copy(value)
        if value is not None:
            self.networks.add("target_value", self.target_value)

    def auto_entropy(self, action_spec: TensorSpec | None) -> float:
        """Return the target entropy: -A for actions scaled to [-1, 1], converted to the actions' own range.

        Raises:
            ConfigError: there is no action spec.
        """
        who = type(self).__name__
        if action_spec is None:
            hint = "Pass it, or a number of nats as target_entropy."
            raise ConfigError(explain(who, expected='an action_spec with target_entropy="auto"', got=None, hint=hint))
        low, high = action_bounds(who, action_spec)
        return float(((high - low) / 2).double().log().sum() - len(low))

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the state-value network paired with its target, or where there is none the critic with its target."""
        return super().targets() if self.value is None else [(self.value, self.target_value)]

    def next_value(self, rows: TensorDict) -> Tensor:
        """Compute the successor's soft value by the target critics, or by the target state-value network if given."""
        networks = self.networks
        if self.value is not None:
            after = networks.after(rows, "target_value").copy()
            return networks.head("target_value")(after).get(self.networks.value_key("value"))
        action, log_prob = self._draw(networks.after(rows, "actor"))
        values = self.join_for_target(self.values("target_critic", rows, action))
        return values - self.temperature() * log_prob.unsqueeze(-1)

    def actor_terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_actor`` from newly drawn actions, and the terms of temperature and state-value network."""
        action, log_prob = self._draw(self.networks.here(rows, "actor"))
        values = self.join_for_actor(self.frozen_values(rows, action)).squeeze(-1)
        alpha = self.temperature()
        terms = {"loss_actor": (alpha * log_prob - values).mean()} | self.temperature_terms(log_prob.detach())
        if self.value is not None:
            target = (values - alpha * log_prob).detach().unsqueeze(-1)
            seen = self.networks.here(rows, "value").copy()
            present = self.networks.head("value")(seen).get(self.networks.value_key("value"))
            terms["loss_state_value"] = distance_loss(present, target, distance=self.distance).mean()
        return terms

    def join_for_target(self, values: Tensor) -> Tensor:
        """Take the smallest of E target critics' values of n rows, ``[n, E]`` to ``[n, 1]``."""
        return values.min(-1, keepdim=True).values

    def join_for_actor(self, values: Tensor) -> Tensor:
        """Take the smallest of E critics' values of the actor's action, ``[n, E]`` to ``[n, 1]``."""
        return values.min(-1, keepdim=True).values

    def seen_successors(self) -> list[str]:
        """Return the names of the networks that look at successors."""
        return ["actor", "target_critic"] if self.value is None else ["target_value"]

    def _draw(self, seen: TensorDict) -> tuple[Tensor, Tensor]:
        return self.networks.head("actor").build(seen).rsample_and_log_prob(self.generator)


class REDQLoss(SACLoss):
    """SAC with E critics: the target takes the smallest value of M critics, redrawn at each call; the actor, the mean.

    >>> from torchrl.modules import MLP, NormalHead, ProbabilisticActor, TanhNormal, ValueEnsemble
    >>> policy = ProbabilisticActor(nn.Sequential(MLP(4, 1), NormalHead(1)), TanhNormal)
    >>> loss = REDQLoss(policy, ValueEnsemble(lambda: MLP(5, 1), 10), num_sampled=2, target_entropy=-1.0)
    >>> loss.join_for_target(torch.ones(3, 10)).shape, loss.join_for_actor(torch.arange(10.0).expand(3, 10))[0].item()
    (torch.Size([3, 1]), 4.5)

    Chen et al., "Randomized Ensembled Double Q-Learning: Learning Fast Without a Model" (2021),
    https://arxiv.org/abs/2101.05982, algorithm 1, with E = 10 (their N), M = 2 and twenty updates of the critics a
    frame for one of the actor: ``ReplayUpdates(updates_per_frame=20, actor_interval=20)``.

    Args:
        actor: as for :class:`SACLoss`, like all that is not named here.
        critic: a :class:`~torchrl.modules.ValueEnsemble` of E.
        num_sampled: M, the critics that a target looks at.
        gamma: discount γ.
        distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        temperature: α, or its initial value.
        learn_temperature: train α.
        target_entropy: H̄ in nats, or ``"auto"``.
        action_spec: of the action of one row.
        generator: source of the actions and of the draws of critics; None uses torch's global one.

    Raises:
        ConfigError: as :class:`SACLoss`, or M is not between 1 and E.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        num_sampled: int = 2,
        gamma: float = 0.99,
        distance: str = "l2",
        burn_in: int = 0,
        zero_state: bool = False,
        temperature: float = 1.0,
        learn_temperature: bool = True,
        target_entropy: float | str = "auto",
        action_spec: TensorSpec | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        num = getattr(head_of(split_memory("REDQLoss", critic)[1]), "num", 1)
        if not 1 <= num_sampled <= num:
            expected = f"num_sampled from 1 to the {num} critics"
            raise ConfigError(explain("REDQLoss", expected=expected, got=num_sampled))
        super().__init__(
            actor,
            critic,
            gamma=gamma,
            distance=distance,
            burn_in=burn_in,
            zero_state=zero_state,
            temperature=temperature,
            learn_temperature=learn_temperature,
            target_entropy=target_entropy,
            action_spec=action_spec,
            generator=generator,
        )
        self.num_sampled = num_sampled

    def join_for_target(self, values: Tensor) -> Tensor:
        """Take the smallest value of M critics drawn at each call, the same for all rows, ``[n, E]`` to ``[n, 1]``."""
        home = values.device if self.generator is None else self.generator.device
        chosen = torch.randperm(values.shape[-1], generator=self.generator, device=home)[: self.num_sampled]
        return super().join_for_target(values.index_select(-1, chosen.to(values.device)))

    def join_for_actor(self, values: Tensor) -> Tensor:
        """Take the mean of all E critics' values of n rows, ``[n, E]`` to ``[n, 1]``."""
        return values.mean(-1, keepdim=True)


class DiscreteSACLoss(_SoftLoss):
    """SAC for discrete actions: its losses are expectations over all actions instead of estimates from one draw.

    >>> from torchrl.modules import MLP, ValueEnsemble
    >>> critics = ValueEnsemble(lambda: MLP(4, 2), 2, in_keys=["observation"])  # two, of two actions each
    >>> DiscreteSACLoss(actor, critics, target_entropy=0.2)(batch)["loss_actor"].shape
    torch.Size([])

    Christodoulou, "Soft Actor-Critic for Discrete Action Settings" (2019), https://arxiv.org/abs/1910.07207, equations
    10 to 12: the value of a state is ``Σ_a π(a|s) (min_i Q_i(s, a) - α log π(a|s))``.

    Returns what :class:`ActorCriticLoss` does, and ``loss_temperature`` where α is learned; to be logged also
    ``entropy`` (nats) and ``temperature``.

    Args:
        actor: a :class:`~torchrl.modules.ProbabilisticActor` of ``Categorical`` or ``OneHotCategorical`` actions, or of
            masked ones.
        critic: a :class:`~torchrl.modules.ValueEnsemble` that values all actions, ``[*B, A, E]``, usually E = 2.
        **options: those of :class:`SACLoss` but ``value`` and ``generator``. ``target_entropy="auto"`` is 0.98 log A,
            nearly that of a uniform choice, as in the author's implementation. Where good policies have less, α grows
            without limit (on CartPole to 10⁶ in 50,000 frames): give a number, such as 0.3 log A.

    Raises:
        ConfigError: as :class:`ActorCriticLoss`, another kind of actor, a temperature that is not positive, or "auto"
            without a spec.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        **options: object,
    ) -> None:
        super().__init__(actor, critic, others={}, **options)
        family = family_of(head_of(self.actor))
        if "logits" not in getattr(family, "parameter_names", ()) or not hasattr(family, "log_probs"):
            expected = "an actor of one choice"
            raise ConfigError(explain("DiscreteSACLoss", expected=expected, got=getattr(family, "__name__", family)))
        self._is_one_hot = issubclass(family, OneHotCategorical)

    def auto_entropy(self, action_spec: TensorSpec | None) -> float:
        """Return 0.98 log A, nearly the entropy of a uniform choice among A actions.

        Raises:
            ConfigError: the spec is not that of one choice.
        """
        if not isinstance(action_spec, (Categorical, OneHot)):
            hint = "Pass it, or a number of nats as target_entropy."
            expected = 'an action_spec of one choice with target_entropy="auto"'
            raise ConfigError(explain("DiscreteSACLoss", expected=expected, got=repr(action_spec), hint=hint))
        return 0.98 * math.log(action_spec.n)

    def seen_successors(self) -> list[str]:
        """Return the names of the networks that look at successors."""
        return ["actor", "target_critic"]

    def taken_values(self, rows: TensorDict) -> Tensor:
        """Return the value that each of E critics gives the actions of n valid rows, ``[n, E]``."""
        values = self.values("critic", rows)
        action = rows.get(self.actor.action_key)
        if self._is_one_hot:
            action = action.argmax(-1)
        index = action[..., None, None].expand(*action.shape, 1, values.shape[-1])
        return values.gather(-2, index).squeeze(-2)

    def next_value(self, rows: TensorDict) -> Tensor:
        """Compute the successor's soft value, an expectation over all actions, by the target critics, ``[n, 1]``."""
        distribution = self.networks.head("actor").build(self.networks.after(rows, "actor"))
        values = self.values("target_critic", rows).min(-1).values
        return self._soft_value(distribution, values)[0].unsqueeze(-1)

    def actor_terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_actor``, minus the mean soft value of the states, and the terms of the temperature."""
        distribution = self.networks.head("actor").build(self.networks.here(rows, "actor"))
        with torch.no_grad():
            values = self.values("critic", rows).min(-1).values
        value, entropy = self._soft_value(distribution, values)
        return {"loss_actor": -value.mean()} | self.temperature_terms(-entropy.detach())

    def _soft_value(self, distribution: object, values: Tensor) -> tuple[Tensor, Tensor]:
        if distribution.logits.shape != values.shape:
            got = f"{distribution.logits.shape[-1]} choices and {values.shape[-1]} values"
            expected = "an actor and critics of as many actions"
            raise SpecError(explain("DiscreteSACLoss", expected=expected, got=got))
        entropy = distribution.entropy()
        expected = (distribution.log_probs.exp() * values).sum(-1)
        return expected + self.temperature() * entropy, entropy
