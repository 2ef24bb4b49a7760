"""Mean and variance of data that comes in parts: how two parts are merged. It keeps no statistics itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Number = TypeVar("Number")  # floats, or tensors of one shape


def merge_moments_(
    mean: Number, var: Number, other_mean: Number, other_var: Number, share: float
) -> tuple[Number, Number]:
    """Merge mean and variance (divisor n) of a second set into those of a first.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979),
    equations 2.1, divided by the counts. Nothing cancels where the mean is large, as it would in E[x²] - E[x]².

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


def pool_moments(parts: Sequence[tuple[Number, Number, Number]]) -> tuple[Number, Number, Number]:
    """Merge counts, means and variances of several sets; return the mean of their counts, and nothing is written to.

    With the mean of the counts each of several learners can go on from the pooled moments as if they were its own:
    later data weigh as they would in one learner that saw all. Where nothing was counted, the first part is returned.

    >>> pool_moments([(2.0, 1.0, 1.0), (2.0, 3.0, 1.0)])
    (2.0, 2.0, 2.0)
    """
    count, mean, var = (1 * value for value in parts[0])
    for other_count, other_mean, other_var in parts[1:]:
        count = count + other_count
        if count:
            mean, var = merge_moments_(mean, var, other_mean, other_var, other_count / count)
    return count / len(parts), mean, var
