"""Terms of the losses of distributional Q-learning and of SAC's temperature, as pure functions of tensors.

One-step targets of plain values are :func:`torchrl.functional.td0_target`, n-step ones too, with a discount per row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl.errors import ConfigError, SpecError, explain
from torchrl.functional.endings import bootstraps
from torchrl.functional.steps import coefficient
from torchrl.shapes import require_same_shape


def categorical_target(
    next_probabilities: Tensor,
    reward: Tensor,
    terminated: Tensor,
    *,
    gamma: float | Tensor,
    low: float,
    high: float,
) -> Tensor:
    """Compute C51's target: project ``r + γ Z(s', a')`` onto K atoms that lie evenly from ``low`` to ``high``.

    >>> at_one = torch.tensor([[0.0, 1.0, 0.0]])  # of the atoms 0, 1, 2
    >>> reward, over = torch.tensor([[0.75]]), torch.tensor([[False]])
    >>> categorical_target(at_one, reward, over, gamma=0.5, low=0.0, high=2.0).tolist()  # 0.75 + ½ · 1 = 1.25
    [[0.0, 0.75, 0.25]]

    Bellemare, Dabney and Munos, "A Distributional Perspective on Reinforcement Learning" (2017),
    https://arxiv.org/abs/1707.06887, algorithm 1. The mass of an atom that falls between two is shared by both in
    proportion to their nearness; what falls outside goes to the first or the last. Where the task was over, all of it
    lies at the reward.

    Args:
        next_probabilities: of Z at the true successor, ``[N, K]``, K at least 2; ignored where the task was over.
        reward: received on entering t+1 (or the n-step sum), ``[N, 1]``.
        terminated: the task was over on entering t+1, bool ``[N, 1]``.
        gamma: discount γ, a number or one per row, ``[N, 1]`` (γ^m with n-step sums).
        low: value of the first atom.
        high: value of the last.

    Returns:
        probabilities ``[N, K]``, each row summing to 1, without gradient.

    Raises:
        SpecError: shapes that would be broadcast.
        ConfigError: no room between ``low`` and ``high``.
    """
    who = "categorical_target"
    _require_columns(who, next_probabilities=next_probabilities, reward=reward, terminated=terminated)
    num_atoms = next_probabilities.shape[-1]
    if num_atoms < 2 or not low < high:
        got = f"{num_atoms} from {low} to {high}"
        raise ConfigError(explain(who, expected="at least 2 atoms, low below high", got=got))
    gamma = coefficient(who, "gamma", gamma, reward)
    counts = bootstraps(terminated)
    with torch.no_grad():
        atoms = torch.linspace(low, high, num_atoms, dtype=reward.dtype, device=reward.device)
        mass = torch.where(counts, next_probabilities, 1 / num_atoms)
        position = (reward + gamma * counts.to(reward.dtype) * atoms - low) * ((num_atoms - 1) / (high - low))
        position = position.clamp(0, num_atoms - 1)
        left = position.floor().clamp(max=num_atoms - 2)
        to_right = mass * (position - left)
        left = left.long()
        target = torch.zeros_like(mass).scatter_add_(-1, left, mass - to_right)
        return target.scatter_add_(-1, left + 1, to_right)


def cross_entropy(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """Compute ``-Σ_k target_k log p_k``, the loss of a categorical distribution of returns.

    >>> round(cross_entropy(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]])).item(), 4)  # log 2
    0.6931

    Bellemare, Dabney and Munos (2017), algorithm 1, last line.

    Args:
        log_probabilities: log p, ``[N, K]``.
        target: probabilities, same shape.

    Returns:
        the loss of each row in nats, ``[N, 1]``.

    Raises:
        SpecError: arguments of different shapes; nothing is broadcast.
    """
    require_same_shape("cross_entropy", log_probabilities=log_probabilities, target=target)
    return -(target * log_probabilities).sum(-1, keepdim=True)


def quantile_huber_loss(quantiles: Tensor, targets: Tensor, *, kappa: float = 1.0) -> Tensor:
    """Compute QR-DQN's ``Σ_i E_j[|τ_i - 1{u_ij < 0}| L_κ(u_ij)]``, ``u_ij = target_j - θ_i``, ``τ_i = (2i - 1) / 2K``.

    >>> quantile_huber_loss(torch.tensor([[0.0, 4.0]]), torch.tensor([[2.0]])).tolist()  # (¼ + |¾ - 1|) · (2 - ½)
    [[0.75]]

    Dabney et al., "Distributional Reinforcement Learning with Quantile Regression" (2018),
    https://arxiv.org/abs/1710.10044, equations 9 and 10 and algorithm 1; L_κ is Huber's loss with threshold κ, and
    ``|u|`` for κ = 0.

    Args:
        quantiles: θ, estimates of the values of K quantiles, ``[N, K]``.
        targets: samples of the return, ``[N, M]``.
        kappa: κ.

    Returns:
        the loss of each row, ``[N, 1]``.

    Raises:
        SpecError: they differ in N.
        ConfigError: κ is negative.
    """
    who = "quantile_huber_loss"
    if quantiles.ndim != targets.ndim or quantiles.shape[:-1] != targets.shape[:-1]:
        got = f"quantiles {list(quantiles.shape)}, targets {list(targets.shape)}"
        raise SpecError(explain(who, expected="quantiles [N, K] and targets [N, M]", got=got))
    if kappa < 0:
        raise ConfigError(explain(who, expected="kappa of at least 0", got=kappa))
    num = quantiles.shape[-1]
    shares = (torch.arange(num, dtype=quantiles.dtype, device=quantiles.device) + 0.5) / num
    error = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)
    size = error.abs()
    huber = size if kappa == 0 else torch.where(size <= kappa, error.square() / 2, kappa * (size - kappa / 2))
    weight = (shares.unsqueeze(-1) - (error.detach() < 0).to(error.dtype)).abs()
    return (weight * huber).mean(-1).sum(-1, keepdim=True)


def temperature_loss(log_prob: Tensor, *, log_temperature: float | Tensor, target_entropy: float) -> Tensor:
    """Compute SAC's loss ``-log α · (log π(a|s) + H̄)``, whose descent raises α where the entropy is below H̄.

    >>> temperature_loss(torch.tensor([1.0, 3.0]), log_temperature=0.5, target_entropy=-1.0).tolist()
    [-0.0, -1.0]

    Haarnoja et al., "Soft Actor-Critic Algorithms and Applications" (2018), https://arxiv.org/abs/1812.05905, equation
    18, with log α in the place of α as in the authors' implementation: both have the same root, and α stays positive.

    Args:
        log_prob: log π(a|s) of actions of the present policy, without gradient, ``[N]``.
        log_temperature: log α, a number or a 0-d tensor.
        target_entropy: H̄ in nats.

    Returns:
        the loss of each row, ``[N]``.

    Raises:
        SpecError: log α is not one number.
    """
    if isinstance(log_temperature, Tensor) and log_temperature.ndim:
        got = list(log_temperature.shape)
        raise SpecError(explain("temperature_loss", expected="one log_temperature, of shape []", got=got))
    return -log_temperature * (log_prob + target_entropy)


def _require_columns(who: str, **tensors: Tensor) -> None:
    """Refuse tensors that are not ``[N, 1]`` beside the first, which is ``[N, K]``."""
    (_, wide), *columns = tensors.items()
    due = (*wide.shape[:-1], 1)
    for name, column in columns:
        if column.shape != due:
            got = f"{name} {list(column.shape)} beside {list(wide.shape)}"
            raise SpecError(explain(who, expected=f"{name} of shape {list(due)}", got=got))
