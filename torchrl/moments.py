"""Mean and variance of data that comes in parts: how two parts are merged. It keeps no statistics itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch

from torchrl.errors import NonFiniteError, explain

Number = TypeVar("Number")  # floats, or tensors of one shape


def merge_moments_(
    mean: Number, var: Number, other_mean: Number, other_var: Number, share: float
) -> tuple[Number, Number]:
    """Return the mean and variance (divisor n) of two data sets together; tensors ``mean`` and ``var`` are overwritten.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979),
    equations 2.1, divided by the counts. No digits cancel where the mean is large, as they would in E[x²] - E[x]².

    >>> merge_moments_(1.0, 1.0, 3.0, 1.0, share=0.5)  # of {0, 2} and {2, 4}
    (2.0, 2.0)

    Args:
        mean: of the first set; a tensor is written to in place.
        var: the same.
        other_mean: of the second set.
        other_var: the same.
        share: of the second set among all, ``count_2 / (count_1 + count_2)``.

    Returns:
        Mean and variance of both sets together; tensors are ``mean`` and ``var`` themselves.
    """
    delta = other_mean - mean
    step = share * delta
    mean += step
    step *= delta
    var += step
    var *= 1 - share
    var += share * other_var
    return mean, var


@torch.no_grad()
def count_rows_(
    who: str,
    moments: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    rows: torch.Tensor,
    *,
    decay: float = 1.0,
    hint: str = "",
) -> None:
    """Merge rows into running count, mean and variance, in place; without any rows, nothing changes.

    >>> count, mean, var = torch.zeros(()), torch.zeros(1), torch.zeros(1)
    >>> count_rows_("example", (count, mean, var), torch.tensor([[1.0], [3.0]]))
    >>> count, mean, var
    (tensor(2.), tensor([2.]), tensor([1.]))

    Args:
        who: the caller's name, for the error.
        moments: count ``[]``, mean and variance ``[*shape]``.
        rows: ``[*N, *shape]``, each counted once.
        decay: factor on the weights of all rows so far.
        hint: what to do about rows that are not finite.

    Raises:
        NonFiniteError: a row holds NaN or infinity; the moments do not change.
    """
    if not rows.numel():
        return
    count, mean, var = moments
    rows = rows.to(torch.float64).reshape(-1, *mean.shape)
    rows_var, rows_mean = torch.var_mean(rows, 0, correction=0)
    if not math.isfinite(float(rows_var.sum())):
        raise NonFiniteError(explain(who, expected="finite observations", got="NaN or infinity", hint=hint))
    num_rows = rows.shape[0]
    total = float(count) * decay + num_rows
    count.fill_(total)
    merge_moments_(mean, var, rows_mean, rows_var, num_rows / total)


def pool_moments(parts: Sequence[tuple[Number, Number, Number]]) -> tuple[Number, Number, Number]:
    """Pool ``(count, mean, variance)`` of several data sets: the counts' mean, and mean and variance of all their data.

    Each of several learners can continue from the result as from its own moments: with the mean of the counts, later
    data weigh as in one learner that saw everything. No argument changes. If no set has data, the first is returned.

    >>> pool_moments([(2.0, 1.0, 1.0), (2.0, 3.0, 1.0)])
    (2.0, 2.0, 2.0)
    """
    count, mean, var = (1 * value for value in parts[0])
    for other_count, other_mean, other_var in parts[1:]:
        count = count + other_count
        if count:
            mean, var = merge_moments_(mean, var, other_mean, other_var, other_count / count)
    return count / len(parts), mean, var
