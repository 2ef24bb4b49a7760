"""Returns and advantages as pure functions of tensors. Keys, critics and batches live in ``objectives/returns``.

Time is the last batch dimension. Rewards and values are ``[*B, T, R]``, with R = 1 unless there are several rewards;
flags, masks and log-weights are ``[*B, T, 1]``; γ, λ and the average reward are numbers or tensors ``[]``, ``[R]`` or
``[*B, T, R]``: the rule is in ``functional/steps.py``, and nothing else is broadcast. Row t holds what was known at t
(``value``) and the outcome of step t (``reward``, ``terminated``, ``truncated``, ``next_value``: known at t+1).

What the functions have in common:

- **Endings** are those of ``functional/endings.py``. A sum ends at an ending, at the edge of the batch and next to a
  masked row; in these places the value of the true successor still counts, unless the task was over.
- **mask**: row t is valid, bool. Results are 0 on other rows, whatever stands there (NaN too), and so are gradients.
- **log_weight**: log π(a_t|s_t) - log μ(a_t|s_t), where μ acted and π is asked about; the weight is
  ``ρ_t = min(weight_clip, π/μ)``, and ``weight_clip=None`` clips nothing. Weights are per decision: the weight of an
  action multiplies the rewards after it, not those before.
- **average_reward**: r̄, taken off every reward. With γ = 1 this gives differential returns, for tasks that go on
  forever: Sutton and Barto, "Reinforcement Learning" (2018), section 10.3. The reward itself is not written to.
- **Gradients**: every function can be differentiated with respect to every float argument; a clipped weight passes
  none. (The estimators of ``objectives/returns`` detach what they write.)
"""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.functional.endings import bootstraps, is_done, next_row_follows
from torchrl.functional.steps import Steps, coefficient, importance_weight, require_steps
from torchrl.shapes import require_same_shape


def reverse_scan(x: Tensor, decay: Tensor) -> Tensor:
    """Solve ``y_t = x_t + decay_t · y_{t+1}`` backwards in time, with nothing after the last row.

    After the k-th of log2(T) rounds every row holds the sum over its next 2^k rows, and ``decay`` the product over as
    many (Hillis and Steele, "Data Parallel Algorithms", 1986). There is no Python loop over T, and it can be
    differentiated.

    Args:
        x: ``[*B, T, F]``.
        decay: same shape; ``decay_{T-1}`` is not used.

    Returns:
        y, same shape.
    """
    require_same_shape("reverse_scan", x=x, decay=decay)
    span, length = 1, x.shape[-2]
    while span < length:
        x, decay = _add_decayed(x, decay, x, span), decay[..., :-span, :] * decay[..., span:, :]
        span *= 2
    return x


def td0_target(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    *,
    gamma: float | Tensor,
    average_reward: float | Tensor | None = None,
) -> Tensor:
    """Compute the one-step target ``r_{t+1} + γ · V(s_{t+1})``, without the value where the task was over.

    Sutton, "Learning to predict by the methods of temporal differences" (1988); Sutton and Barto (2018), equation 6.2.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``; a time dimension is not needed here.
        next_value: value of the true successor of row t, same shape.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        average_reward: r̄, taken off each reward.

    Returns:
        ``[*B, T, R]``.
    """
    require_steps("td0_target", {"reward": reward, "next_value": next_value}, {"terminated": terminated})
    gamma = coefficient("td0_target", "gamma", gamma, reward)
    if average_reward is not None:
        reward = reward - coefficient("td0_target", "average_reward", average_reward, reward)
    return reward + gamma * torch.where(bootstraps(terminated), next_value, 0)


def discounted_return(
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    next_value: Tensor | None = None,
    value: Tensor | None = None,
    log_weight: Tensor | None = None,
    weight_clip: float | None = None,
    average_reward: float | Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute the return-to-go ``G_t = r_{t+1} + γ G_{t+1}``, or what of it the batch shows.

    Where row t+1 is not the successor, ``G_{t+1}`` is ``next_value``, and 0 without one or where the task was over.
    With weights it is ``G_t = ρ_t (r_{t+1} + γ G_{t+1}) + (1 - ρ_t) V(s_t)``, the last term only where ``value`` is
    given: Sutton and Barto (2018), equations 3.9 and 7.13; without ``value`` section 5.9.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        next_value: V of the true successor of row t, ``[*B, T, R]``; None adds nothing where the rewards end.
        value: V(s_t), ``[*B, T, R]``, a control variate; not looked at without weights.
        log_weight: log π - log μ of the action of row t, ``[*B, T, 1]``.
        weight_clip: the largest weight.
        average_reward: r̄, taken off each reward.
        mask: row t is valid, bool ``[*B, T, 1]``.

    Returns:
        ``[*B, T, R]``.
    """
    steps = Steps(
        "discounted_return",
        reward,
        terminated,
        truncated,
        gamma=gamma,
        value=value,
        next_value=next_value,
        log_weight=log_weight,
        average_reward=average_reward,
        mask=mask,
    )
    return reverse_scan(*_backup(steps, 1.0, weight_clip))


def n_step_return(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    n: int,
    value: Tensor | None = None,
    log_weight: Tensor | None = None,
    weight_clip: float | None = None,
    average_reward: float | Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute ``G_{t:t+n} = r_{t+1} + … + γ^{n-1} r_{t+n} + γ^n V(s_{t+n})``, in log2(n) rounds.

    Sutton and Barto (2018), equation 7.1. Where the rows end before n steps, the value of the last one's successor
    stands at their end. With weights it is ``G_{t:h} = ρ_t (r_{t+1} + γ G_{t+1:h}) + (1 - ρ_t) V(s_t)`` with
    ``G_{h:h} = V(s_h)``, equation 7.13; the last term only where ``value`` is given.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        next_value: V of the true successor of row t (at an ending too), ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        n: number of rewards; 1 gives the one-step target, T or more the discounted return with ``next_value``.
        value: V(s_t), ``[*B, T, R]``, a control variate; not looked at without weights.
        log_weight: log π - log μ of the action of row t, ``[*B, T, 1]``.
        weight_clip: the largest weight.
        average_reward: r̄, taken off each reward.
        mask: row t is valid, bool ``[*B, T, 1]``.

    Returns:
        ``[*B, T, R]``.

    Raises:
        ConfigError: ``n`` is not a positive integer.
    """
    if not isinstance(n, Integral) or n < 1:
        raise ConfigError(explain("n_step_return", expected="n, an integer of at least 1", got=n))
    steps = Steps(
        "n_step_return",
        reward,
        terminated,
        truncated,
        gamma=gamma,
        value=value,
        next_value=next_value,
        log_weight=log_weight,
        average_reward=average_reward,
        mask=mask,
    )
    target, _ = _backup(steps, 0.0, weight_clip)
    x, decay = _backup(steps, 1.0, weight_clip)
    rounds, span, length = n - 1, 1, x.shape[-2]  # `rounds` times y_t = x_t + decay_t y_{t+1}, from the one-step target
    while rounds and span < length:
        if rounds % 2:
            target = _add_decayed(x, decay, target, span)
        rounds //= 2
        x, decay = _add_decayed(x, decay, x, span), decay[..., :-span, :] * decay[..., span:, :]
        span *= 2
    return x if rounds else target


def td_lambda(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    lambda_: float | Tensor,
    value: Tensor | None = None,
    log_weight: Tensor | None = None,
    weight_clip: float | None = None,
    average_reward: float | Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute the λ-return ``G_t = r_{t+1} + γ ((1 - λ) V(s_{t+1}) + λ G_{t+1})``, the target of TD(λ).

    Sutton and Barto (2018), section 12.8. Where row t+1 is not the successor, λ counts as 0. With weights it is
    ``ρ_t (…) + (1 - ρ_t) V(s_t)`` around the same, section 12.9; the last term only where ``value`` is given.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        next_value: V of the true successor of row t (at an ending too), ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        lambda_: decay λ of the trace; 0 gives the one-step target, 1 the discounted return with ``next_value``.
        value: V(s_t), ``[*B, T, R]``, a control variate; not looked at without weights.
        log_weight: log π - log μ of the action of row t, ``[*B, T, 1]``.
        weight_clip: the largest weight.
        average_reward: r̄, taken off each reward.
        mask: row t is valid, bool ``[*B, T, 1]``.

    Returns:
        ``[*B, T, R]``.
    """
    steps = Steps(
        "td_lambda",
        reward,
        terminated,
        truncated,
        gamma=gamma,
        lambda_=lambda_,
        value=value,
        next_value=next_value,
        log_weight=log_weight,
        average_reward=average_reward,
        mask=mask,
    )
    return reverse_scan(*_backup(steps, steps.lambda_, weight_clip))


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    lambda_: float | Tensor,
    log_weight: Tensor | None = None,
    weight_clip: float | None = None,
    average_reward: float | Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute generalised advantages ``A_t = δ_t + γ λ A_{t+1}`` and the value targets ``A_t + V(s_t)``.

    Here ``δ_t = r_{t+1} + γ V(s_{t+1}) - V(s_t)``. Schulman et al., "High-Dimensional Continuous Control Using
    Generalized Advantage Estimation" (2016), https://arxiv.org/abs/1506.02438, equation 16. With weights it is
    ``A_t = ρ_t (δ_t + γ λ A_{t+1})``, so that the target is the λ-return of :func:`td_lambda` with ``value``.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        value: V(s_t), ``[*B, T, R]``.
        next_value: V of the true successor of row t (at an ending too), ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        lambda_: decay λ of the trace; 0 gives the one-step error, 1 the discounted return minus the value.
        log_weight: log π - log μ of the action of row t, ``[*B, T, 1]``.
        weight_clip: the largest weight.
        average_reward: r̄, taken off each reward.
        mask: row t is valid, bool ``[*B, T, 1]``.

    Returns:
        advantage and value target, ``[*B, T, R]`` each.
    """
    steps = Steps(
        "gae",
        reward,
        terminated,
        truncated,
        gamma=gamma,
        lambda_=lambda_,
        value=value,
        next_value=next_value,
        log_weight=log_weight,
        average_reward=average_reward,
        mask=mask,
    )
    delta = steps.reward + steps.gamma * steps.next_value - steps.value
    decay = steps.gamma * steps.lambda_
    if log_weight is not None:
        weight = importance_weight(steps.log_weight, clip=weight_clip)
        delta, decay = weight * delta, weight * decay
    advantage = reverse_scan(delta, steps.where_followed(decay))
    return advantage, advantage + steps.value


def reaches_ending(
    terminated: Tensor, truncated: Tensor, *, is_init: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Tell at which rows the rest of the episode, up to its ending for whichever reason, lies inside the batch.

    Args:
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool, same shape.
        is_init: row t is the first of an episode, bool, same shape: a reset in mid-episode is no ending.
        mask: row t is valid, bool, same shape.

    Returns:
        bool ``[*B, T, 1]``, false on masked rows.
    """
    follows = next_row_follows(
        terminated,  # mutate: equivalent - what lies behind an ending cannot undo that it was reached
        truncated,
        is_init=is_init,
        mask=mask,
    )
    ends = is_done(terminated, truncated)
    if mask is not None:
        ends = ends & mask
    return reverse_scan(ends.float(), follows.float()) > 0


def _backup(steps: Steps, lambda_: float | Tensor, weight_clip: float | None) -> tuple[Tensor, Tensor]:
    """Write one step of a return as ``G_t = x_t + decay_t · G_{t+1}``; return ``x`` and ``decay``, ``[*B, T, R]``."""
    goes_on = steps.where_followed(lambda_)
    x, decay = steps.reward, steps.gamma * goes_on
    if steps.next_value is not None:
        x = x + steps.gamma * (1 - goes_on) * steps.next_value
    if steps.log_weight is not None:
        weight = importance_weight(steps.log_weight, clip=weight_clip)
        x, decay = weight * x, weight * decay
        if steps.value is not None:
            x = x + (1 - weight) * steps.value
    return x, decay


def _add_decayed(x: Tensor, decay: Tensor, y: Tensor, span: int) -> Tensor:
    """Compute ``x_t + decay_t · y_{t+span}``, and ``x_t`` on the last rows, where nothing follows.

    ``decay`` may lack its last rows, which are not used.
    """
    head = torch.addcmul(x[..., :-span, :], decay[..., : x.shape[-2] - span, :], y[..., span:, :])
    return torch.cat([head, x[..., -span:, :]], dim=-2)
