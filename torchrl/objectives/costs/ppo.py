"""The loss of proximal policy optimisation; its terms are in ``functional/costs``, GAE in ``objectives/returns``."""

from __future__ import annotations

from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.functional.costs import (
    DISTANCES,
    approx_kl,
    clip_fraction,
    clipped_policy_objective,
    standardize,
    value_loss,
)
from torchrl.objectives.costs.base import Coefficient, Loss
from torchrl.shapes import require_same_shape


class ClipPPOLoss(Loss):
    """PPO with a clipped ratio: ``L = L_clip + c_1 · d(V, target) - c_2 · H[π]``, means over the valid rows.

    Schulman et al., "Proximal Policy Optimization Algorithms" (2017), https://arxiv.org/abs/1707.06347, equations 7 and
    9. Trains the actor and the critic; a trunk that both share is trained by both.

    Reads what actor and critic read, the action, its old log-prob ``[*B]``, ``advantage`` and ``value_target``
    ``[*B, 1]`` (and ``state_value`` ``[*B, 1]`` with ``value_clip``). Returns ``loss_objective``, ``loss_critic``,
    ``loss_entropy``; to be logged: ``approx_kl`` (nats), ``clip_fraction``, ``entropy`` (nats). The agent logs
    ``explained_variance`` beside them, once for the whole batch.

    Args:
        actor: has ``build(tensordict)``, which returns a distribution with ``log_prob`` and ``entropy``, ``[*B]`` each,
            and the keys ``action_key`` and ``log_prob_key``.
        critic: reads a state, writes its value ``[*B, 1]`` under its first out key.
        clip_epsilon: ε, how far the ratio may move; 0.2 by table 3 of the paper. May be scheduled.
        entropy_coef: c_2; 0 as in section 6.1 (continuous control), 0.01 is usual with discrete actions. May be
            scheduled.
        critic_coef: c_1; 0.5 on a squared error without ½ is c_1 = 1 on one with it, as in table 5. May be scheduled.
        normalize_advantage: shift and scale the advantage of each batch to mean 0 and deviation 1 over the valid rows
            (not in the paper, in its first implementation).
        value_clip: how far the value may move from ``state_value`` before it gains nothing; None for no limit.
        critic_distance: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.

    Raises:
        ConfigError: a lazy layer is not initialised, the distance is unknown, or the actor writes no log-prob.
    """

    clip_epsilon = Coefficient()
    entropy_coef = Coefficient()
    critic_coef = Coefficient()

    def __init__(
        self,
        actor: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        *,
        clip_epsilon: float = 0.2,
        entropy_coef: float = 0.0,
        critic_coef: float = 0.5,
        normalize_advantage: bool = True,
        value_clip: float | None = None,
        critic_distance: str = "l2",
    ) -> None:
        _require_usable(actor, critic_distance)
        keys = [actor.action_key, actor.log_prob_key, "advantage", "value_target"]
        if value_clip is not None:
            keys.append("state_value")
        super().__init__(in_keys=[*actor.in_keys, *critic.in_keys, *keys], trained=[actor, critic])
        self.actor = actor
        self.critic = critic
        self.clip_epsilon = clip_epsilon
        self.entropy_coef = entropy_coef
        self.critic_coef = critic_coef
        self.normalize_advantage = normalize_advantage
        self.value_clip = value_clip
        self.critic_distance = critic_distance

    def terms(self, rows: TensorDict) -> dict[str, Tensor]:
        """Compute the three losses and what is logged beside them."""
        # Read before the networks run: they may write keys of the same name into these rows.
        action = rows.get(self.actor.action_key)
        old_log_prob = rows.get(self.actor.log_prob_key)
        advantage, target = rows.get("advantage"), rows.get("value_target")
        old_value = None if self.value_clip is None else rows.get("state_value")
        require_same_shape("ClipPPOLoss", advantage=advantage, value_target=target)
        if self.normalize_advantage:
            advantage = standardize(advantage)

        distribution = self.actor.build(rows)
        log_prob = distribution.log_prob(action)
        advantage = advantage.squeeze(-1)  # [*B, 1] to the shape of log-probs
        objective = clipped_policy_objective(log_prob, old_log_prob, advantage, clip_epsilon=self._clip_epsilon)

        value = self.critic(rows).get(self.critic.out_keys[0])
        error = value_loss(value, target, old_value=old_value, clip=self.value_clip, distance=self.critic_distance)

        entropy = distribution.entropy().mean()
        log_ratio = log_prob.detach() - old_log_prob
        return {
            "loss_objective": objective.mean(),
            "loss_critic": error.mean() * self._critic_coef,
            "loss_entropy": entropy * -self._entropy_coef,
            "entropy": entropy.detach(),
            "approx_kl": approx_kl(log_ratio),
            "clip_fraction": clip_fraction(log_ratio, clip_epsilon=self._clip_epsilon),
        }


def _require_usable(actor: TensorDictModuleBase, critic_distance: str) -> None:
    """Refuse at construction what would fail, or mean something else, at the first batch."""
    if getattr(actor, "build", None) is None:
        hint = "Wrap the network in ProbabilisticActor."
        raise ConfigError(
            explain("ClipPPOLoss", expected="an actor with a distribution", got=type(actor).__name__, hint=hint)
        )
    if actor.log_prob_key is None:
        hint = "Give the actor a log_prob_key before collecting."
        raise ConfigError(explain("ClipPPOLoss", expected="an actor that writes log-probs", got=None, hint=hint))
    if critic_distance not in DISTANCES:
        expected = f"critic_distance out of {list(DISTANCES)}"
        raise ConfigError(explain("ClipPPOLoss", expected=expected, got=repr(critic_distance)))
