"""The base of every estimator of returns: it calls the critic and handles keys, padding and weights. No formulas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from numbers import Real

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import unravel_key
from torch import Tensor, nn

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.costs import standardize as standardized
from torchrl.functional.endings import next_step_follows
from torchrl.functional.steps import coefficient, importance_weight, require_clip
from torchrl.keys import Key
from torchrl.modules.memory import has_memory
from torchrl.modules.operator import require_keys, write
from torchrl.modules.training_layers import require_repeatable
from torchrl.objectives.keys import MASK, decision_keys, read, require_writable
from torchrl.objectives.options import PassesOptions, refuse_unknown
from torchrl.objectives.unrolling import SEEN, Networks, require_order
from torchrl.shapes import require_same_shape
from torchrl.unchecked import new_tensordict

Index = tuple[Tensor, ...]  # of n rows in [*B, T], one tensor per dimension


class ReturnEstimator(PassesOptions, nn.Module, ABC):
    """Write ``state_value``, ``advantage`` and ``value_target``, ``[*B, T, R]`` each, into a batch ``[*B, T]``.

    >>> class Rewards(ReturnEstimator):
    ...     def estimate(self, reward, value, next_value, terminated, truncated):
    ...         return reward - value, reward
    >>> Rewards(critic)(batch)["value_target"].squeeze(-1)[0, :3].tolist()  # CartPole pays 1 for each step
    [1.0, 1.0, 1.0]

    R is the number of rewards, nearly always 1. The results carry no gradient; no other entry changes. Rows that
    ``("collector", "mask")`` excludes are shown to no network, change no other row's result, and get 0. A subclass
    writes :meth:`estimate`.

    Args:
        critic: reads a state, writes its value ``[..., R]`` under its first out key; None counts every value as 0 and
            writes no ``state_value``.
        gamma: discount γ between 0 and 1: a number, or a tensor ``[]`` or ``[R]``; 0.99 as in section 6.1 of Schulman
            et al. (2017), https://arxiv.org/abs/1707.06347.
        actor: the policy to estimate returns of, if another policy acted: it has ``build(tensordict)``, and the
            logarithm of the importance weight is its log-prob of the action minus the stored log-prob. None means the
            policy that acted.
        weight_clip: the largest importance weight, if there is an actor; None clips nothing.
        average_reward: r̄, taken off each reward (in a copy), for the differential returns of tasks that go on forever
            (Sutton and Barto, 2018, section 10.3; γ must be 1): a number, a tensor ``[R]``, or ``"batch"`` for the mean
            reward of the valid rows.
        standardize: shift and scale the advantages to mean 0 and deviation 1 over the valid rows of the batch.

    Raises:
        ConfigError: γ is not between 0 and 1, or not 1 with an average reward, or the actor writes no log-prob, or has
            dropout or a batch norm.
    """

    def __init__(
        self,
        critic: TensorDictModuleBase | None,
        *,
        gamma: float | Tensor = 0.99,
        actor: TensorDictModuleBase | None = None,
        weight_clip: float | None = 1.0,
        average_reward: float | Tensor | str | None = None,
        standardize: bool = False,
        **unknown: object,
    ) -> None:
        refuse_unknown(type(self), unknown)
        super().__init__()
        who = type(self).__name__
        self.keep_fraction("gamma", gamma)
        if average_reward is not None:
            _require_average(who, average_reward, gamma)
        if actor is not None and getattr(actor, "log_prob_key", None) is None:
            hint = "Use a ProbabilisticActor with a log_prob_key, and collect with it."
            got = type(actor).__name__
            raise ConfigError(explain(who, expected="an actor that writes log-probs", got=got, hint=hint))
        if actor is not None:
            require_repeatable(who, actor)
        if critic is not None:
            require_keys(who, critic=critic)
        require_clip(who, weight_clip)
        self.critic = critic
        self.actor = actor
        # Asked once: a walk over the modules takes as long as an operation on the batch.
        self._critic_remembers = critic is not None and has_memory(critic)
        self._actor_remembers = actor is not None and has_memory(actor)
        self.weight_clip = weight_clip
        self.standardize = standardize
        self._keep("average_reward", average_reward)

    def keep_fraction(self, name: str, x: float | Tensor) -> None:
        """Store a discount or decay as the attribute ``name``; refuse one outside 0 to 1.

        A tensor becomes a buffer that is not persistent: ``.to()`` moves it, ``state_dict()`` does not hold it, so the
        constructor sets it anew in a resumed run.

        Raises:
            ConfigError: it is not between 0 and 1.
        """
        require_fraction(type(self).__name__, name, x)
        self._keep(name, x)

    def _keep(self, name: str, x: object) -> None:
        """Store an attribute; a tensor as a buffer, which ``.to()`` moves and ``state_dict()`` leaves out."""
        if isinstance(x, Tensor):
            self.register_buffer(name, x, persistent=False)
        else:
            setattr(self, name, x)

    @abstractmethod
    def estimate(
        self, *, reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute advantage and value target, ``[*B, T, R]`` each, from rewards, values and flags.

        Args:
            reward: received on entering t+1, ``[*B, T, R]``; finite on every row.
            value: V(s_t), ``[*B, T, R]``.
            next_value: V of the true successor of row t, ``[*B, T, R]``.
            terminated: the task was over on entering t+1, ``[*B, T, 1]``.
            truncated: row t+1 of the batch is not the successor of row t (an ending, the edge, a reset, a masked row),
                ``[*B, T, 1]``.

        With an actor, the keywords that :meth:`weights` returns are passed too.
        """

    def weights(self, log_weight: Tensor) -> dict[str, Tensor]:
        """Turn ``log π - log μ``, ``[*B, T, 1]``, into keywords of :meth:`estimate`: here ``weight``, clipped."""
        return {"weight": importance_weight(log_weight, clip=self.weight_clip)}

    @torch.no_grad()
    def forward(self, batch: TensorDictBase) -> TensorDictBase:
        """Write ``advantage``, ``value_target`` and, with a critic, ``state_value`` into the batch, and return it.

        Raises:
            KeyMissing: the batch lacks a key of a network, the reward or a flag.
            SpecError: the batch is locked, has no time dimension, or an entry does not have the shape it should.
        """
        who = type(self).__name__
        require_writable(who, batch)
        reward = read(batch, ("next", "reward"), who=who)
        if reward.shape[:-1] != batch.batch_size:
            expected = f"reward [*B, T, R] in a batch [*B, T] = {list(batch.batch_size)}"
            raise SpecError(explain(who, expected=expected, got=f"reward {list(reward.shape)}"))
        mask, valid = _valid(batch)
        terminated, follows = _endings(batch, mask, who)
        if self.critic is None:
            value = next_value = torch.zeros_like(reward)
        else:
            values = _remembered_values if self._critic_remembers else _values
            value, next_value = values(self.critic, batch, follows, mask, valid, reward.shape[-1])
            batch.set("state_value", value)
        series = {"value": value, "next_value": next_value, "terminated": terminated, "truncated": ~follows}
        if self.actor is not None:
            series |= self.weights(self._log_weight(batch, valid))
        reward = _zero_masked(self._subtract_average(reward, valid), mask)
        advantage, target = self.estimate(reward=reward, **series)
        if self.standardize:
            advantage = _standardized(advantage, valid)
        batch.set("advantage", _zero_masked(advantage, mask))
        batch.set("value_target", _zero_masked(target, mask))
        return batch

    def _subtract_average(self, reward: Tensor, valid: Index | None) -> Tensor:
        average = self.average_reward
        if average is None:
            return reward
        if isinstance(average, str):
            average = (reward.flatten(0, -2) if valid is None else reward[valid]).mean(0)
        return reward - coefficient(type(self).__name__, "average_reward", average, reward)

    def _log_weight(self, batch: TensorDictBase, valid: Index | None) -> Tensor:
        """Compute log π - log μ of the actions in the batch, ``[*B, T, 1]``; 0 on masked rows."""
        who, actor = type(self).__name__, self.actor
        if self._actor_remembers:
            networks, rows = _remember("actor", actor, batch, who=who, valid=valid)
            distribution = networks.head("actor").build(networks.here(rows, "actor"))
        else:
            keys = [*actor.in_keys, *decision_keys(actor)]
            distribution = actor.build(_gather(batch, keys, who=who, rows=valid))
        action, log_prob = (read(batch, key, who=who) for key in (actor.action_key, actor.log_prob_key))
        if valid is not None:
            action, log_prob = action[valid], log_prob[valid]
        present = distribution.log_prob(action)
        require_same_shape(who, log_prob=present, stored_log_prob=log_prob)
        return _scatter(present - log_prob, batch.batch_size, valid).unsqueeze(-1)


@torch.no_grad()
def next_values(critic: TensorDictModuleBase, batch: TensorDictBase, *, num_rewards: int = 1) -> tuple[Tensor, Tensor]:
    """Return V(s_t) and V of the true successor of every step in a batch, evaluating few states twice.

    >>> value, next_value = next_values(critic, batch)
    >>> bool((next_value[:, 0] == value[:, 1]).all())  # no episode ended in the first step
    True

    Where step t+1 of the batch is the successor, its value is used; elsewhere the critic evaluates the entries of
    ``"next"``: at endings, at the edge, before a reset in mid-episode and before a masked row. The critic never sees
    masked rows.

    Args:
        critic: reads a state, writes its value ``[..., R]`` under its first out key. The batch is not written to.
        batch: ``[*B, T]``, with the critic's in keys at the root and under ``"next"``, and both flags under ``"next"``.
        num_rewards: R.

    Returns:
        value and next value, ``[*B, T, R]`` each, without gradient; 0 on masked rows.

    Raises:
        KeyMissing: the batch lacks a key of the critic or a flag.
        SpecError: the batch has no time dimension, or the critic's value is not ``[..., R]``.
    """
    mask, valid = _valid(batch)
    _, follows = _endings(batch, mask, "next_values")
    values = _remembered_values if has_memory(critic) else _values
    return values(critic, batch, follows, mask, valid, num_rewards)


def read_flags(batch: TensorDictBase, *, who: str) -> tuple[Tensor, Tensor]:
    """Return ``terminated`` and ``truncated`` of a batch ``[*B, T]``, ``[*B, T, 1]`` each.

    Raises:
        KeyMissing: one is not there.
        SpecError: the batch has no time dimension, or one has another shape.
    """
    if not batch.batch_dims:
        raise SpecError(explain(who, expected="a batch [*B, T], time last", got="batch size []"))
    terminated, truncated = flags = [read(batch, ("next", name), who=who) for name in ("terminated", "truncated")]
    due = (*batch.batch_size, 1)
    if any(flag.shape != due for flag in flags):
        got = f"terminated {list(terminated.shape)}, truncated {list(truncated.shape)}"
        raise SpecError(explain(who, expected=f"flags of shape {list(due)}", got=got))
    return terminated, truncated


def require_fraction(who: str, name: str, x: float | Tensor) -> None:
    """Refuse a number, or a tensor with an entry, that is not between 0 and 1.

    Raises:
        ConfigError: naming it.
    """
    if isinstance(x, Tensor):
        is_fraction = bool(((x >= 0) & (x <= 1)).all())
    else:
        is_fraction = isinstance(x, Real) and 0 <= x <= 1
    if not is_fraction:
        raise ConfigError(explain(who, expected=f"{name} between 0 and 1", got=repr(x)))


def _require_average(who: str, average: float | Tensor | str, gamma: float | Tensor) -> None:
    if isinstance(average, str) and average != "batch":
        expected = "average_reward as a number, a tensor or 'batch'"
        raise ConfigError(explain(who, expected=expected, got=repr(average)))
    if not bool(torch.as_tensor(gamma == 1).all()):
        hint = "Differential returns are not discounted: pass gamma=1."
        raise ConfigError(explain(who, expected="gamma 1 with an average reward", got=gamma, hint=hint))


def _values(
    critic: TensorDictModuleBase,
    batch: TensorDictBase,
    follows: Tensor,
    mask: Tensor | None,
    valid: Index | None,
    num_rewards: int,
) -> tuple[Tensor, Tensor]:
    """Compute the result of :func:`next_values`, given where step t+1 is the successor (``follows``) and valid rows."""
    value = _scatter(_evaluate(critic, batch, num_rewards, rows=valid), batch.batch_size, valid)
    alone = ~follows if mask is None else ~follows & mask
    alone = alone.squeeze(-1).nonzero(as_tuple=True)
    next_value = torch.cat([value[..., 1:, :], value[..., -1:, :]], dim=-2)
    next_value[alone] = _evaluate(critic, batch, num_rewards, under=("next",), rows=alone)
    return value, _zero_masked(next_value, mask)


def _remembered_values(
    critic: TensorDictModuleBase,
    batch: TensorDictBase,
    follows: Tensor,
    mask: Tensor | None,
    valid: Index | None,
    num_rewards: int,
) -> tuple[Tensor, Tensor]:
    """Compute what :func:`_values` does for a critic with memory, whose parts find the successors themselves."""
    networks, rows = _remember("critic", critic, batch, who="next_values", valid=valid, successors=True)
    seen = networks.here(rows, "critic"), networks.after(rows, "critic")
    values = [_value_of(networks.head("critic"), inputs, num_rewards) for inputs in seen]
    return tuple(_scatter(x, batch.batch_size, valid) for x in values)


def _evaluate(
    critic: TensorDictModuleBase,
    batch: TensorDictBase,
    num_rewards: int,
    *,
    under: tuple[str, ...] = (),
    rows: Index | None,
) -> Tensor:
    """Return the critic's values of the whole batch, ``[*B, T, R]``, or of n chosen rows, ``[n, R]``; write nothing."""
    inputs = _gather(batch, critic.in_keys, who="next_values", under=under, rows=rows)
    return _value_of(critic, inputs, num_rewards)


def _remember(
    name: str,
    network: TensorDictModuleBase,
    batch: TensorDictBase,
    *,
    who: str,
    valid: Index | None,
    successors: bool = False,
) -> tuple[Networks, TensorDict]:
    """Run the part of a network that remembers over a batch; return its parts, and the rows that its head reads."""
    networks = Networks(who, **{name: network})
    others = networks.batch_keys(name)
    rows = _gather(batch, others, who=who, rows=valid)
    rows.set(SEEN, networks.unroll(batch, successors=[name] if successors else []))
    if successors:
        rows.set("next", _gather(batch, others, who=who, under=("next",), rows=valid))
    return networks, rows


def _value_of(critic: TensorDictModuleBase, inputs: TensorDict, num_rewards: int) -> Tensor:
    value = critic(inputs).get(critic.out_keys[0])
    if value.shape != (*inputs.batch_size, num_rewards):
        expected = f"{critic.out_keys[0]!r} of shape {[*inputs.batch_size, num_rewards]} from the critic"
        raise SpecError(explain("next_values", expected=expected, got=list(value.shape)))
    return value


def _gather(
    batch: TensorDictBase, keys: Iterable[Key], *, who: str, under: tuple[str, ...] = (), rows: Index | None
) -> TensorDict:
    """Return a new TensorDict with the entries that a network reads, of all rows or of n chosen ones, ``[n]``."""
    gathered = new_tensordict({}, batch.batch_size if rows is None else rows[0].shape)
    for key in keys:
        value = read(batch, unravel_key((*under, key)), who=who)
        if rows is not None:
            value = value[rows]
        write(gathered, key, value)
    return gathered


def _scatter(x: Tensor, size: torch.Size, rows: Index | None) -> Tensor:
    """Return zeros ``[*size, ...]`` with the n rows of ``x`` at the indices ``rows``; ``x`` itself if they are None."""
    if rows is None:
        return x
    result = x.new_zeros((*size, *x.shape[1:]))
    result[rows] = x
    return result


def _standardized(advantage: Tensor, valid: Index | None) -> Tensor:
    """Return the advantage with mean 0 and deviation 1 over the valid rows, in each reward dimension alone."""
    rows = advantage.flatten(0, -2) if valid is None else advantage[valid]
    if not len(rows):
        return advantage
    rows = torch.stack([standardized(column) for column in rows.unbind(-1)], dim=-1)
    return rows.view_as(advantage) if valid is None else _scatter(rows, advantage.shape[:-1], valid)


def _endings(batch: TensorDictBase, mask: Tensor | None, who: str) -> tuple[Tensor, Tensor]:
    """Return where the task was over, and at which rows row t+1 is the successor, bool ``[*B, T, 1]`` each."""
    terminated, truncated = read_flags(batch, who=who)
    follows = next_step_follows(terminated, truncated, is_init=batch.get("is_init", None), mask=mask)
    require_order(who, batch, follows)
    return terminated, follows


def _valid(batch: TensorDictBase) -> tuple[Tensor | None, Index | None]:
    """Return the mask as bool ``[*B, T, 1]`` and the indices of the valid rows; None twice if there is no mask."""
    mask = batch.get(MASK, None)
    return (None, None) if mask is None else (mask.unsqueeze(-1), mask.nonzero(as_tuple=True))


def _zero_masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``x`` with 0 where the mask is false, also in the place of a NaN."""
    return x if mask is None else torch.where(mask, x, 0)
