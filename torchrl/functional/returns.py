"""Returns and advantages as pure functions of tensors. Keys, critics and batches live in ``objectives/returns``.

Time is the last batch dimension. Rewards and values are ``[*B, T, R]``, with R = 1 unless there are several rewards;
flags, masks and weights are ``[*B, T, 1]``; γ and λ are numbers or tensors ``[]``, ``[R]`` or ``[*B, T, R]``: the
rule is in ``functional/steps.py``, and nothing else is broadcast. Step t holds what was known at t (``value``) and the
outcome of step t (``reward``, ``terminated``, ``truncated``, ``next_value``: known at t+1).

What the functions have in common:

- **Endings** are those of ``functional/endings.py``. A sum ends at an ending, at the edge of the batch and next to a
  masked step; in these places the value of the true successor still counts, unless the task was over.
- **mask**: step t is valid, bool. Results and gradients are 0 on other steps, even if their inputs are NaN.
- **weight**: ρ_t = π(a_t|s_t) / μ(a_t|s_t), where μ acted and π is asked about, perhaps clipped:
  :func:`importance_weight` computes it. Weights are per decision: the weight of an action multiplies the rewards after
  it, not those before.
- **Average reward**: differential returns, for tasks that never end, are those of ``reward - average`` with γ = 1
  (Sutton and Barto, "Reinforcement Learning", 2018, section 10.3).
- **Gradients**: every function can be differentiated with respect to every float argument. (The estimators of
  ``objectives/returns`` detach what they write.)

The four returns are one recursion, ``G_t = x_t + decay_t · G_{t+1}``, which :func:`reverse_scan` solves; they differ in
x and decay alone.
"""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from torchrl.errors import ConfigError, explain
from torchrl.functional.endings import bootstraps, is_done, next_step_follows
from torchrl.functional.steps import Steps, coefficient, require_steps
from torchrl.shapes import require_same_shape


def reverse_scan(x: Tensor, decay: Tensor) -> Tensor:
    """Compute ``y_t = x_t + decay_t · y_{t+1}`` at all steps of the time dimension, with 0 after the last.

    >>> x, decay = torch.ones(3, 1), torch.full((3, 1), 0.5)
    >>> reverse_scan(x, decay).squeeze(-1).tolist()  # from the right: 1, 1 + ½·1, 1 + ½·1½
    [1.75, 1.5, 1.0]

    After the k-th of log2(T) rounds every step holds the sum over its next 2^k steps, and ``decay`` the product over as
    many (Hillis and Steele, "Data Parallel Algorithms", 1986). There is no Python loop over T, and it can be
    differentiated.

    Args:
        x: ``[*B, T, F]``.
        decay: same shape; ``decay_{T-1}`` is not used.

    Returns:
        y, same shape.

    Raises:
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    require_same_shape("reverse_scan", x=x, decay=decay)
    span, length = 1, x.shape[-2]
    while span < length:
        x, decay = _add_decayed(x, decay, x, span), decay[..., :-span, :] * decay[..., span:, :]
        span *= 2
    return x


def td0_target(reward: Tensor, next_value: Tensor, terminated: Tensor, *, gamma: float | Tensor) -> Tensor:
    """Compute the one-step target ``r_{t+1} + γ · V(s_{t+1})``, without the value where the task was over.

    >>> reward, next_value, terminated = torch.ones(2, 1), torch.full((2, 1), 4.0), torch.tensor([[False], [True]])
    >>> td0_target(reward, next_value, terminated, gamma=0.5).squeeze(-1).tolist()
    [3.0, 1.0]

    Sutton, "Learning to predict by the methods of temporal differences" (1988); Sutton and Barto (2018), equation 6.2.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``; a time dimension is not needed here.
        next_value: value of the true successor of step t, same shape.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.

    Returns:
        ``[*B, T, R]``.

    Raises:
        SpecError: the shapes are others, or a flag is no bool; nothing is broadcast.
    """
    require_steps("td0_target", {"reward": reward, "next_value": next_value}, {"terminated": terminated})
    gamma = coefficient("td0_target", "gamma", gamma, reward)
    return reward + gamma * torch.where(bootstraps(terminated), next_value, 0)


def discounted_return(
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    next_value: Tensor | None = None,
    value: Tensor | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute the return-to-go ``G_t = r_{t+1} + γ G_{t+1}``; where rewards end, ``G_{t+1}`` is ``next_value``, or 0.

    >>> reward, never = torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.bool)
    >>> discounted_return(reward, never, never, gamma=0.5).squeeze(-1).tolist()
    [1.75, 1.5, 1.0]

    Where step t+1 is not the successor, ``G_{t+1}`` is ``next_value``, and 0 without one or where the task was over.
    With weights it is ``G_t = ρ_t (r_{t+1} + γ G_{t+1}) + (1 - ρ_t) V(s_t)``, the last term only where ``value`` is
    given: Sutton and Barto (2018), equations 3.9 and 7.13; without ``value`` section 5.9.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        next_value: V of the true successor of step t, ``[*B, T, R]``; None adds nothing where the rewards end.
        value: V(s_t), ``[*B, T, R]``, a control variate; ignored without weights.
        weight: ρ_t of the action of step t, ``[*B, T, 1]``; None is 1.
        mask: step t is valid, bool ``[*B, T, 1]``.

    Returns:
        ``[*B, T, R]``.

    Raises:
        SpecError: the shapes are others, or a flag is no bool; nothing is broadcast.
    """
    given = {"value": value, "next_value": next_value, "weight": weight, "mask": mask}
    steps = Steps("discounted_return", reward, terminated, truncated, gamma=gamma, **given)
    return reverse_scan(*_backup(steps, 1.0))


def n_step_return(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    n: int,
    value: Tensor | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute the return ``r_{t+1} + … + γ^{n-1} r_{t+n} + γ^n V(s_{t+n})``, of fewer rewards at an ending or the edge.

    >>> reward, next_value, never = torch.ones(3, 1), torch.full((3, 1), 8.0), torch.zeros(3, 1, dtype=torch.bool)
    >>> n_step_return(reward, next_value, never, never, gamma=0.5, n=2).squeeze(-1).tolist()  # 1 + ½ + ¼·8; at the edge
    [3.5, 3.5, 5.0]

    Sutton and Barto (2018), equation 7.1. Where fewer than n steps are left, the sum ends with the discounted value of
    the last step's successor. With weights it is ``G_{t:h} = ρ_t (r_{t+1} + γ G_{t+1:h}) + (1 - ρ_t) V(s_t)`` with
    ``G_{h:h} = V(s_h)``, equation 7.13; the last term only where ``value`` is given.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        next_value: V of the true successor of step t (at an ending too), ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        n: number of rewards; 1 gives the one-step target, T or more the discounted return with ``next_value``.
        value: V(s_t), ``[*B, T, R]``, a control variate; ignored without weights.
        weight: ρ_t of the action of step t, ``[*B, T, 1]``; None is 1.
        mask: step t is valid, bool ``[*B, T, 1]``.

    Returns:
        ``[*B, T, R]``.

    Raises:
        ConfigError: ``n`` is not a positive integer.
        SpecError: the shapes are others, or a flag is no bool; nothing is broadcast.
    """
    require_count("n_step_return", n)
    given = {"value": value, "next_value": next_value, "weight": weight, "mask": mask}
    steps = Steps("n_step_return", reward, terminated, truncated, gamma=gamma, **given)
    target, _ = _backup(steps, 0.0)
    x, decay = _backup(steps, 1.0)
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
    weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute the λ-return ``G_t = r_{t+1} + γ ((1 - λ) V(s_{t+1}) + λ G_{t+1})``, the target of TD(λ).

    >>> reward, next_value, never = torch.ones(2, 1), torch.full((2, 1), 8.0), torch.zeros(2, 1, dtype=torch.bool)
    >>> td_lambda(reward, next_value, never, never, gamma=0.5, lambda_=0.5).squeeze(-1).tolist()  # 1 + ½·(½·8 + ½·5)
    [4.25, 5.0]

    Sutton and Barto (2018), section 12.8. Where step t+1 is not the successor, λ counts as 0. With weights it is
    ``ρ_t (right side above) + (1 - ρ_t) V(s_t)``, section 12.9; the last term only where ``value`` is given.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        next_value: V of the true successor of step t (at an ending too), ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        lambda_: decay λ of the trace; 0 gives the one-step target, 1 the discounted return with ``next_value``.
        value: V(s_t), ``[*B, T, R]``, a control variate; ignored without weights.
        weight: ρ_t of the action of step t, ``[*B, T, 1]``; None is 1.
        mask: step t is valid, bool ``[*B, T, 1]``.

    Returns:
        ``[*B, T, R]``.

    Raises:
        SpecError: the shapes are others, or a flag is no bool; nothing is broadcast.
    """
    given = {"value": value, "next_value": next_value, "weight": weight, "mask": mask}
    steps = Steps("td_lambda", reward, terminated, truncated, gamma=gamma, lambda_=lambda_, **given)
    return reverse_scan(*_backup(steps, steps.lambda_))


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float | Tensor,
    lambda_: float | Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute generalised advantages ``A_t = δ_t + γ λ A_{t+1}`` and the value targets ``A_t + V(s_t)``.

    >>> reward, value, never = torch.ones(2, 1), torch.full((2, 1), 8.0), torch.zeros(2, 1, dtype=torch.bool)
    >>> advantage, target = gae(reward, value, value, never, never, gamma=0.5, lambda_=0.5)
    >>> advantage.squeeze(-1).tolist(), target.squeeze(-1).tolist()  # δ = 1 + ½·8 - 8 = -3 in both steps
    ([-3.75, -3.0], [4.25, 5.0])

    Here ``δ_t = r_{t+1} + γ V(s_{t+1}) - V(s_t)``. Schulman et al., "High-Dimensional Continuous Control Using
    Generalized Advantage Estimation" (2016), https://arxiv.org/abs/1506.02438, equation 16. With weights it is
    ``A_t = ρ_t (δ_t + γ λ A_{t+1})``, so that the target is the λ-return of :func:`td_lambda` with ``value``.

    Args:
        reward: received on entering t+1, ``[*B, T, R]``.
        value: V(s_t), ``[*B, T, R]``.
        next_value: V of the true successor of step t (at an ending too), ``[*B, T, R]``.
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool ``[*B, T, 1]``.
        gamma: discount γ.
        lambda_: decay λ of the trace; 0 gives the one-step error, 1 the discounted return minus the value.
        weight: ρ_t of the action of step t, ``[*B, T, 1]``; None is 1.
        mask: step t is valid, bool ``[*B, T, 1]``.

    Returns:
        advantage and value target, ``[*B, T, R]`` each.

    Raises:
        SpecError: the shapes are others, or a flag is no bool; nothing is broadcast.
    """
    given = {"value": value, "next_value": next_value, "weight": weight, "mask": mask}
    steps = Steps("gae", reward, terminated, truncated, gamma=gamma, lambda_=lambda_, **given)
    delta = steps.reward + steps.gamma * steps.next_value - steps.value
    decay = steps.gamma * steps.lambda_
    if weight is not None:
        delta, decay = steps.weight * delta, steps.weight * decay
    advantage = reverse_scan(delta, steps.where_followed(decay))
    return advantage, advantage + steps.value


def reaches_ending(
    terminated: Tensor, truncated: Tensor, *, is_init: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Tell at which steps the rest of the episode, up to its termination or truncation, lies inside the batch.

    >>> terminated = torch.tensor([[False], [True], [False]])
    >>> reaches_ending(terminated, torch.zeros_like(terminated)).squeeze(-1).tolist()
    [True, True, False]

    Args:
        terminated: the task was over on entering t+1, bool ``[*B, T, 1]``.
        truncated: the episode was cut on entering t+1, bool, same shape.
        is_init: step t is the first of an episode, bool, same shape: a reset in mid-episode is no ending.
        mask: step t is valid, bool, same shape.

    Returns:
        bool ``[*B, T, 1]``, false on masked steps.
    """
    follows = next_step_follows(
        terminated,  # mutate: equivalent - what lies behind an ending cannot undo that it was reached
        truncated,
        is_init=is_init,
        mask=mask,
    )
    ends = is_done(terminated, truncated)
    if mask is not None:
        ends = ends & mask
    return reverse_scan(ends.float(), follows.float()) > 0


def require_count(who: str, n: int) -> None:
    """Refuse an ``n``, the number of rewards in an n-step return, that is not a positive integer.

    Raises:
        ConfigError: naming it.
    """
    if not isinstance(n, Integral) or n < 1:
        raise ConfigError(explain(who, expected="n, an integer of at least 1", got=n))


def _backup(steps: Steps, lambda_: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return the ``x`` and ``decay``, ``[*B, T, R]``, with which a λ-return is ``G_t = x_t + decay_t · G_{t+1}``."""
    trace = steps.where_followed(lambda_)
    x, decay = steps.reward, steps.gamma * trace
    if steps.next_value is not None:
        x = x + steps.gamma * (1 - trace) * steps.next_value
    if steps.weight is not None:
        x, decay = steps.weight * x, steps.weight * decay
        if steps.value is not None:
            x = x + (1 - steps.weight) * steps.value
    return x, decay


def _add_decayed(x: Tensor, decay: Tensor, y: Tensor, span: int) -> Tensor:
    """Compute ``x_t + decay_t · y_{t+span}``, and ``x_t`` on the last steps, where nothing follows.

    ``decay`` may lack its last steps, which are not used.
    """
    head = torch.addcmul(x[..., :-span, :], decay[..., : x.shape[-2] - span, :], y[..., span:, :])
    return torch.cat([head, x[..., -span:, :]], dim=-2)
