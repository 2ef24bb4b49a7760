"""The base of off-policy actor-critic losses; a subclass says how to value the successor and how to train the actor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.errors import ConfigError, explain
from torchrl.functional.costs import distance_loss
from torchrl.keys import Key
from torchrl.modules.operator import require_keys, write
from torchrl.objectives.costs.actor import require_distance
from torchrl.objectives.costs.targets import target_copy
from torchrl.objectives.costs.temporal_difference import TDLoss, call_frozen
from torchrl.objectives.options import refuse_unknown
from torchrl.objectives.unrolling import Networks
from torchrl.unchecked import new_tensordict, shallow


class ActorCriticLoss(TDLoss):
    """Base of losses that train E critics towards one target, and an actor towards actions that the critics value high.

    Reads the in keys of actor and critic, for the state and for its successor, the action taken, and the keys of
    :class:`TDLoss`. Returns ``loss_critic``, the sum over the critics, ``loss_actor``, ``td_error``, each row's mean
    over the critics, and for the log the means ``q_value`` and ``target_value``.

    The gradient of ``loss_actor`` passes through the critics and does not reach them; that of ``loss_critic`` does not
    reach the actor. ``loss(batch, with_actor=False)`` leaves the actor's terms out, for delayed updates.
    Target networks are copies that stay as they are until a :class:`~torchrl.objectives.SoftUpdate` or ``HardUpdate``
    moves them.

    >>> class Deterministic(ActorCriticLoss):  # DDPG without a target of the actor
    ...     def next_value(self, rows):
    ...         action = self.actor(rows["next"].copy())["action"]
    ...         return self.values("target_critic", rows, action)
    ...     def actor_terms(self, rows):
    ...         return {"loss_actor": -self.frozen_values(rows, self.actor(rows.copy())["action"]).mean()}
    >>> actor, critic = Actor(MLP(4, 2)), ValueOperator(MLP(6, 1), in_keys=["observation", "action"])
    >>> loss = Deterministic(actor, critic, trained=[actor, critic], others={})
    >>> loss(batch.set("action", torch.zeros(2, 8, 2)))["loss_actor"].shape
    torch.Size([])

    Args:
        actor: the policy, without wrappers that explore.
        critic: reads state and action, writes its value under its first out key: ``[*B, E]``, as a
            :class:`~torchrl.modules.ValueEnsemble` does, or ``[*B, 1]``.
        trained: the networks that are trained.
        others: further networks that read a state and its successor, by name.
        gamma: discount γ.
        distance: of the critics' losses: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        burn_in: for networks with memory, as ``zero_state``: see :class:`TDLoss`.
        zero_state: see ``burn_in``.

    Raises:
        ConfigError: as :class:`TDLoss`, a lazy layer is not initialised, or an unknown distance.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        trained: Iterable[nn.Module],
        others: Mapping[str, TensorDictModuleBase],
        gamma: float = 0.99,
        distance: str = "l2",
        burn_in: int = 0,
        zero_state: bool = False,
        **unknown: object,
    ) -> None:
        refuse_unknown(type(self), unknown)
        require_keys(type(self).__name__, actor=actor, critic=critic)
        if not hasattr(actor, "action_key"):
            hint = "The actor comes first: Actor(network), or ProbabilisticActor(network, family)."
            got = type(actor).__name__
            raise ConfigError(explain(type(self).__name__, expected="an actor with an action_key", got=got, hint=hint))
        require_distance(type(self).__name__, "distance", distance)
        named = {"actor": actor, "critic": critic, **others}
        networks = Networks(type(self).__name__, **named)
        here = [key for network in named.values() for key in network.in_keys]
        after = [key for name in named for key in networks.next_keys(name)]
        super().__init__(
            in_keys=[*_without(actor.action_key, here), actor.action_key],
            next_keys=_without(actor.action_key, after),
            trained=trained,
            gamma=gamma,
            networks=networks,
            burn_in=burn_in,
            zero_state=zero_state,
        )
        self.actor = actor
        self.critic = critic
        self.target_critic = target_copy(critic)
        networks.add("target_critic", self.target_critic)
        self._has_nested_keys = any(isinstance(key, tuple) for key in (actor.action_key, *critic.out_keys))
        self.distance = distance

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the critic paired with its target network, for ``SoftUpdate`` and ``HardUpdate``."""
        return [(self.critic, self.target_critic)]

    def forward(self, batch: TensorDictBase, *, with_actor: bool = True) -> TensorDict:
        """Compute all terms on the valid rows of the batch; see :class:`Loss`.

        Args:
            batch: any batch size.
            with_actor: False leaves out what trains the actor.
        """
        rows = self._valid_rows(batch)
        terms = self.critic_terms(rows)
        if with_actor:
            terms |= self.actor_terms(rows)
        return new_tensordict(terms, torch.Size([]))

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute the terms of the critics and of the actor on valid rows."""
        return self.critic_terms(rows) | self.actor_terms(rows)

    def critic_terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_critic``, ``td_error`` and, for the log, ``q_value`` and ``target_value``."""
        with torch.no_grad():
            target = self.target_of(rows, self.next_value(rows))
        values = self.taken_values(rows)
        target = target.expand_as(values)
        losses = distance_loss(values, target, distance=self.distance).sum(-1, keepdim=True)
        td_error = (values.detach() - target).abs().mean(-1).flatten()
        q_value, target_value = values.detach().mean(), target[..., 0].mean()
        return {
            "loss_critic": self.weighted_mean(rows, losses),
            "td_error": td_error,
            "q_value": q_value,
            "target_value": target_value,
        }

    def taken_values(self, rows: TensorDict) -> Tensor:
        """Return the value that each of E critics gives the actions of n valid rows, ``[n, E]``."""
        return self.values("critic", rows)

    @abstractmethod
    def next_value(self, rows: TensorDict) -> Tensor:
        """Return the value of the successor, ``[n, 1]``; called without gradient."""

    @abstractmethod
    def actor_terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_actor``, and the terms of other networks that the subclass trains beside the critics."""

    def values(self, name: str, rows: TensorDictBase, action: Tensor | None = None) -> Tensor:
        """Return E critics' values of n rows' states and actions, ``[n, E]``, or of ``action`` if it is given.

        Args:
            name: ``"critic"`` for the rows themselves, ``"target_critic"`` for their successors.
            rows: the valid rows, which hold the states, and the actions if none are given.
            action: values these instead of the actions in ``rows``.
        """
        see = self.networks.after if name == "target_critic" else self.networks.here
        return self.networks.head(name)(self._with_action(see(rows, name), action)).get(self.networks.value_key(name))

    def frozen_values(self, rows: TensorDictBase, action: Tensor) -> Tensor:
        """Return the critics' values of ``action``, ``[n, E]``, with gradient to the action but not to the critics."""
        seen = self.networks.here(rows, "critic", frozen=True)
        return call_frozen(self.networks.head("critic"), self._with_action(seen, action)).get(
            self.networks.value_key("critic")
        )

    def _with_action(self, rows: TensorDictBase, action: Tensor | None) -> TensorDictBase:
        rows = rows.copy() if self._has_nested_keys else shallow(rows)  # what is written stays in its own container
        if action is not None:
            write(rows, self.actor.action_key, action)
        return rows


def _without(key: Key, keys: Iterable[Key]) -> list[Key]:
    return [other for other in dict.fromkeys(keys) if other != key]
