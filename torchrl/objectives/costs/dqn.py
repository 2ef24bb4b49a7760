"""Losses of deep Q-learning: of a value, or of a distribution of returns.

Rainbow is the latter with parts of other folders: dueling and noisy networks, n-step sums and prioritised replay.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from torchrl.errors import ConfigError, explain
from torchrl.functional.costs import distance_loss
from torchrl.functional.endings import bootstraps
from torchrl.functional.q_values import categorical_target, cross_entropy, quantile_huber_loss
from torchrl.modules import DistributionalQValueActor, QuantileQValueActor, QValueActor
from torchrl.modules.exploration import without_exploration
from torchrl.objectives.burn_in import require_memory
from torchrl.objectives.costs.actor import require_distance
from torchrl.objectives.costs.targets import target_copy
from torchrl.objectives.costs.temporal_difference import REWARD, TDLoss
from torchrl.objectives.n_steps import at_last, sum_rewards_
from torchrl.objectives.options import refuse_unknown
from torchrl.objectives.unrolling import TERMINATED, Networks, step_follows


class ActionValueLoss(TDLoss):
    """Base of the DQN losses, which train the value of the action taken; a subclass says how far it is from its target.

    Reads the actor's in keys, for the state and for its successor, the action taken, and the keys of :class:`TDLoss`.
    Returns ``loss_value`` and ``td_error``, and for the log ``q_value``, the mean value of the actions taken, and
    ``target_value``, the mean of their targets. The target network is a copy that stays as it is until a
    :class:`~torchrl.objectives.SoftUpdate` or ``HardUpdate`` moves it.

    >>> class Absolute(ActionValueLoss):
    ...     def compare(self, chosen, following, rows):
    ...         target = self.target_of(rows, following)
    ...         error = (chosen - target).abs()
    ...         return error, error.detach(), chosen.detach(), target
    >>> Absolute(QValueActor(nn.Linear(4, 2)))(batch)["loss_value"].shape
    torch.Size([])

    Args:
        actor: the network to train; exploring wrappers around it are removed.
        gamma: discount γ.
        double: let the network in training choose the successor's action, and the target network value it (van
            Hasselt, Guez and Silver, "Deep Reinforcement Learning with Double Q-learning", 2016,
            https://arxiv.org/abs/1509.06461, equation 4); otherwise the target network does both.
        burn_in: for networks with memory, as ``zero_state``: see :class:`TDLoss`.
        zero_state: see ``burn_in``.
        n_steps: how many rewards the target sums, inside the sequences of networks with memory; for others
            :class:`~torchrl.data.MultiStepStream` sums on the way into the buffer.

    Raises:
        ConfigError: as :class:`TDLoss`, another kind of actor, or a lazy layer is not initialised.
    """

    kind: type[QValueActor] = QValueActor

    def __init__(
        self,
        actor: TensorDictModuleBase,
        *,
        gamma: float = 0.99,
        double: bool = True,
        burn_in: int = 0,
        zero_state: bool = False,
        n_steps: int = 1,
        **unknown: object,
    ) -> None:
        refuse_unknown(type(self), unknown)
        who, inner = type(self).__name__, without_exploration(actor)
        networks = Networks(who, actor=inner)
        head = networks.head("actor")
        if type(head) is not self.kind:
            got = type(head).__name__
            raise ConfigError(explain(who, expected=f"a {self.kind.__name__}", got=got))
        require_memory(networks, n_steps=n_steps)
        super().__init__(
            in_keys=[*inner.in_keys, inner.action_key],
            next_keys=networks.next_keys("actor"),
            trained=[inner],
            gamma=gamma,
            networks=networks,
            burn_in=burn_in,
            zero_state=zero_state,
        )
        self.actor = inner
        self.target_actor = target_copy(inner)
        networks.add("target_actor", self.target_actor)
        self.is_double = double
        self.n_steps = n_steps

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the actor paired with its target network."""
        return [(self.actor, self.target_actor)]

    def seen_successors(self) -> list[str]:
        """Return the names of the networks that look at successors: the target, and for double DQN both."""
        return ["actor", "target_actor"] if self.is_double else ["target_actor"]

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute ``loss_value``, ``td_error`` and, for the log, ``q_value`` and ``target_value``."""
        actor = self.networks.head("actor")
        chosen = actor.select(actor.outputs(self.networks.here(rows, "actor")), rows.get(actor.action_key))
        with torch.no_grad():
            following = self.next_outputs(rows)
            if self.n_steps > 1:
                following = at_last(rows, following)
                rows.set(TERMINATED, at_last(rows, rows.get(TERMINATED)))
        loss, td_error, value, target = self.compare(chosen, following, rows)
        return {
            "loss_value": self.weighted_mean(rows, loss),
            "td_error": td_error.flatten(),
            "q_value": value.mean(),
            "target_value": target.mean(),
        }

    def _valid_rows(self, batch: TensorDictBase) -> TensorDict:
        rows = super()._valid_rows(batch)
        if self.n_steps > 1:
            follows = step_follows(self.networks.who, batch)[..., self.burn_in :, :]
            sum_rewards_(rows, batch[..., self.burn_in :], follows, n_steps=self.n_steps, gamma=self.gamma)
        return rows

    def next_outputs(self, rows: TensorDict) -> Tensor:
        """Return the target network's output for the successor's best action: ``[n, 1]``, or ``[n, K]``."""
        networks, target = self.networks, self.networks.head("target_actor")
        after = networks.after(rows, "target_actor")
        outputs = target.outputs(after)
        judged = networks.head("actor").outputs(networks.after(rows, "actor")) if self.is_double else outputs
        mask = target.mask_of(after)
        if mask is not None:  # where the task is over nothing may be legal, and nothing is chosen
            mask = mask | ~bootstraps(rows.get(TERMINATED))
        return target.select(outputs, target.greedy(target.values_of(judged), mask))

    @abstractmethod
    def compare(self, chosen: Tensor, following: Tensor, rows: TensorDict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute each row's loss, TD error, value and target from the outputs for the action taken and the successor.

        Args:
            chosen: ``[n, 1]``, or ``[n, K]``, with gradient.
            following: of the successor's best action, alike.
            rows: the valid rows.

        Returns:
            the loss of each row with gradient, and without: its TD error, the action's value, and its target;
            ``[n, 1]`` each.
        """


class DQNLoss(ActionValueLoss):
    """Train a Q-network, by double DQN unless told otherwise: ``L = d(Q(s, a), r + γ Q'(s', argmax_a' Q(s', a')))``.

    >>> from torchrl.modules import MLP
    >>> loss = DQNLoss(QValueActor(MLP(4, 2)), gamma=0.99, double=True)
    >>> terms = loss(batch)  # [2, 8], or a sample [n] of a buffer
    >>> terms["loss_value"].shape, terms["td_error"].shape
    (torch.Size([]), torch.Size([16]))

    Mnih et al., "Human-level control through deep reinforcement learning" (2015), algorithm 1, whose clipped error is
    the distance ``"smooth_l1"``. See :class:`ActionValueLoss`.

    Args:
        actor: a :class:`~torchrl.modules.QValueActor`, perhaps inside a wrapper that explores.
        distance: d: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        **options: those of :class:`ActionValueLoss`.

    Raises:
        ConfigError: as :class:`ActionValueLoss`, or an unknown distance.
    """

    def __init__(self, actor: TensorDictModuleBase, *, distance: str = "smooth_l1", **options: object) -> None:
        require_distance("DQNLoss", "distance", distance)
        super().__init__(actor, **options)
        self.distance = distance

    def compare(self, chosen: Tensor, following: Tensor, rows: TensorDict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the distance of each row's value from its target, and with it TD error, value and target."""
        target = self.target_of(rows, following)
        value = chosen.detach()
        return distance_loss(chosen, target, distance=self.distance), (value - target).abs(), value, target


class DistributionalDQNLoss(ActionValueLoss):
    """Train a categorical distribution of returns (C51) by its cross-entropy with the projected ``r + γ Z'(s', a')``.

    >>> from torchrl.modules.models import DuelingMLP
    >>> network = DuelingMLP(4, 2, num_outputs=51)  # 2 actions, 51 atoms from 0 to 100
    >>> loss = DistributionalDQNLoss(DistributionalQValueActor(network, low=0.0, high=100.0))
    >>> loss(batch)["td_error"].shape
    torch.Size([16])

    Bellemare, Dabney and Munos, "A Distributional Perspective on Reinforcement Learning" (2017),
    https://arxiv.org/abs/1707.06887, algorithm 1. ``td_error`` is KL(target ‖ prediction) in nats, the priority of
    Hessel et al., "Rainbow" (2018), https://arxiv.org/abs/1710.02298. See :class:`ActionValueLoss`.

    Args:
        actor: a :class:`~torchrl.modules.DistributionalQValueActor`, perhaps inside a wrapper that explores.
        gamma: discount γ.
        **options: the others of :class:`ActionValueLoss`.
    """

    kind = DistributionalQValueActor

    def compare(self, chosen: Tensor, following: Tensor, rows: TensorDict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute each row's cross-entropy with the projected target; the TD error is their KL divergence in nats."""
        actor = self.networks.head("actor")
        target = categorical_target(
            following.softmax(-1),
            rows.get(REWARD),
            rows.get(TERMINATED),
            gamma=self.discount_of(rows),
            low=actor.low,
            high=actor.high,
        )
        loss = cross_entropy(chosen.log_softmax(-1), target)
        entropy = -torch.special.xlogy(target, target).sum(-1, keepdim=True)
        divergence = (loss.detach() - entropy).clamp(min=0)
        atoms = torch.linspace(actor.low, actor.high, target.shape[-1], dtype=target.dtype, device=target.device)
        means = [(mass @ atoms).unsqueeze(-1) for mass in (chosen.detach().softmax(-1), target)]
        return loss, divergence, *means


class QuantileDQNLoss(ActionValueLoss):
    """Train quantiles of the return (QR-DQN) by quantile regression towards ``r + γ θ'_j(s', a')``.

    >>> from torchrl.modules.models import DuelingMLP
    >>> loss = QuantileDQNLoss(QuantileQValueActor(DuelingMLP(4, 2, num_outputs=8)))  # 2 actions, 8 quantiles
    >>> loss(batch)["td_error"].shape
    torch.Size([16])

    Dabney et al., "Distributional Reinforcement Learning with Quantile Regression" (2018),
    https://arxiv.org/abs/1710.10044, algorithm 1. ``td_error`` is the distance between the means of prediction and
    target. See :class:`ActionValueLoss`.

    Args:
        actor: a :class:`~torchrl.modules.QuantileQValueActor`, perhaps inside a wrapper that explores.
        kappa: κ, the threshold of Huber's loss: smaller errors count by their square.
        **options: those of :class:`ActionValueLoss`.

    Raises:
        ConfigError: as :class:`ActionValueLoss`, or κ is negative.
    """

    kind = QuantileQValueActor

    def __init__(self, actor: TensorDictModuleBase, *, kappa: float = 1.0, **options: object) -> None:
        if kappa < 0:
            raise ConfigError(explain("QuantileDQNLoss", expected="kappa of at least 0", got=kappa))
        super().__init__(actor, **options)
        self.kappa = kappa

    def compare(self, chosen: Tensor, following: Tensor, rows: TensorDict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute each row's quantile Huber loss; the TD error is the distance between the means."""
        discount = self.discount_of(rows)
        counts = bootstraps(rows.get(TERMINATED))
        targets = rows.get(REWARD) + discount * torch.where(counts, following, 0)
        loss = quantile_huber_loss(chosen, targets, kappa=self.kappa)
        value, target = (x.mean(-1, keepdim=True) for x in (chosen.detach(), targets))
        return loss, (value - target).abs(), value, target
