"""The losses of two off-policy algorithms with a deterministic actor, DDPG and TD3."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.data.specs import TensorSpec
from torchrl.errors import ConfigError, explain
from torchrl.modules.distributions.base import draw
from torchrl.modules.exploration import without_exploration
from torchrl.modules.explorers import action_bounds
from torchrl.objectives.costs.actor import head_of, require_within
from torchrl.objectives.costs.actor_critic import ActorCriticLoss
from torchrl.objectives.costs.targets import target_copy


class DDPGLoss(ActorCriticLoss):
    """Train a deterministic actor and its critic: ``L = d(Q(s, a), r + γ Q'(s', μ'(s'))) - Q(s, μ(s))``.

    >>> from torchrl.modules import MLP, Actor, ValueEnsemble
    >>> loss = DDPGLoss(Actor(MLP(4, 1)), ValueEnsemble(lambda: MLP(5, 1), 1))  # 4 observations, 1 action
    >>> sorted(loss(batch.set("action", torch.zeros(2, 8, 1))).keys())
    ['loss_actor', 'loss_critic', 'q_value', 'target_value', 'td_error']

    Lillicrap et al., "Continuous control with deep reinforcement learning" (2016), https://arxiv.org/abs/1509.02971,
    equations 4 to 6. With several critics, the target takes the smallest of their values, and ``loss_actor`` the first
    critic's. See :class:`ActorCriticLoss`.

    Args:
        actor: an :class:`~torchrl.modules.Actor`, perhaps inside a wrapper that explores.
        critic: as for :class:`ActorCriticLoss`.
        **options: those of :class:`ActorCriticLoss`.

    Raises:
        ConfigError: as :class:`ActorCriticLoss`, or an actor with a distribution.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        **options: object,
    ) -> None:
        actor = without_exploration(actor)
        if hasattr(head_of(actor), "build"):
            hint = "Wrap the network in Actor; SACLoss trains distributions."
            got = type(actor).__name__
            raise ConfigError(explain(type(self).__name__, expected="a deterministic actor", got=got, hint=hint))
        super().__init__(actor, critic, trained=[actor, critic], others={}, **options)
        self.target_actor = target_copy(actor)
        self.networks.add("target_actor", self.target_actor)

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the critic and the actor, each paired with its target network."""
        return [*super().targets(), (self.actor, self.target_actor)]

    def next_value(self, rows: TensorDict) -> Tensor:
        """Compute Q'(s', μ'(s')), the smallest of the target critics' values, ``[n, 1]``."""
        values = self.values("target_critic", rows, self.next_action(rows))
        return values.min(-1, keepdim=True).values

    def seen_successors(self) -> list[str]:
        """Return the names of the networks that look at successors."""
        return ["target_actor", "target_critic"]

    def next_action(self, rows: TensorDict) -> Tensor:
        """Choose the target actor's action at the successor, ``[n, A]``."""
        after = self.networks.after(rows, "target_actor").copy()
        return self.networks.head("target_actor")(after).get(self.actor.action_key)

    def actor_terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_actor``, the mean of -Q(s, μ(s)) by the first critic."""
        seen = self.networks.here(rows, "actor").copy()
        action = self.networks.head("actor")(seen).get(self.actor.action_key)
        return {"loss_actor": -self.frozen_values(rows, action)[..., 0].mean()}


class TD3Loss(DDPGLoss):
    """DDPG with a target made from the smaller of two critics' values at a noisy action; the caller delays the actor.

    >>> from torchrl.data.specs import Bounded
    >>> from torchrl.modules import MLP, Actor, TanhHead, ValueEnsemble
    >>> policy = Actor(nn.Sequential(MLP(4, 1), TanhHead(-1, 1)))
    >>> loss = TD3Loss(policy, ValueEnsemble(lambda: MLP(5, 1), 2), action_spec=Bounded(-torch.ones(1), torch.ones(1)))
    >>> sorted(loss(batch.set("action", torch.zeros(2, 8, 1)), with_actor=False).keys())
    ['loss_critic', 'q_value', 'target_value', 'td_error']

    Fujimoto, van Hoof and Meger, "Addressing Function Approximation Error in Actor-Critic Methods" (2018),
    https://arxiv.org/abs/1802.09477, algorithm 1: ``ã = clip(μ'(s') + clip(ε, -c, c))`` with ε ~ N(0, σ), both in units
    of half the action's range. An update without the actor calls ``loss(batch, with_actor=False)``, as
    ``ReplayUpdates(actor_interval=2)`` does for the paper's delay d = 2.

    Args:
        actor: as for :class:`DDPGLoss`.
        critic: a :class:`~torchrl.modules.ValueEnsemble` of two.
        action_spec: of the action of one row, without batch dimensions, with finite bounds.
        target_noise: σ.
        noise_clip: c.
        generator: source of the noise; None uses torch's global one.
        **options: those of :class:`ActorCriticLoss`.

    Raises:
        ConfigError: as :class:`DDPGLoss`, or a negative number.
        SpecError: the action has no finite bounds.
    """

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        action_spec: TensorSpec,
        target_noise: float = 0.2,
        noise_clip: float = 0.5,
        generator: torch.Generator | None = None,
        **options: object,
    ) -> None:
        low, high = action_bounds("TD3Loss", action_spec)
        if not (target_noise >= 0 and noise_clip >= 0):
            got = f"target_noise={target_noise}, noise_clip={noise_clip}"
            raise ConfigError(explain("TD3Loss", expected="numbers of at least 0", got=got))
        super().__init__(actor, critic, **options)
        require_within("TD3Loss", actor, low, high)
        self.target_noise = target_noise
        self.noise_clip = noise_clip
        self.generator = generator
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)

    def next_action(self, rows: TensorDict) -> Tensor:
        """Choose the target actor's action at the successor plus clipped noise, within the bounds, ``[n, A]``."""
        action = super().next_action(rows)
        noise = draw(torch.Tensor.normal_, action, self.generator).mul_(self.target_noise)
        noise = noise.clamp_(-self.noise_clip, self.noise_clip) * ((self.high - self.low) / 2)
        return (action + noise).clamp(self.low, self.high)
