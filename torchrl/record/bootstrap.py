"""The interval of a mean over a few runs or episodes, by resampling. It draws nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from torchrl.errors import ConfigError, SpecError, explain


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    num_resamples: int = 5000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the bootstrap interval of a mean: where the means of resampled values lie.

    Efron (1979): as many values as there are get drawn from them with replacement, many times, and the interval leaves
    out equal shares of the smallest and the largest means. It holds the true mean less often than ``level`` says where
    values are few: of normal values 95 % becomes about 84 % for 5, 91 % for 10 and 93 % for 20. One value alone says
    nothing of how far others would lie from it: its interval is NaN.

    >>> low, high = bootstrap_interval([480.0, 500.0, 495.0, 500.0, 430.0])
    >>> print(f"{low:.0f} to {high:.0f}")
    454 to 499

    Args:
        values: one for each run or episode, ``[N]``, or more of them, ``[N, ...]``, each column with a mean of its own.
        level: share of the resampled means that the interval holds, between 0 and 1.
        num_resamples: how often values are drawn anew.
        seed: of the draws; the same values give the same interval.

    Returns:
        low and high, each of the shape ``[...]``.

    Raises:
        ConfigError: ``level`` is not between 0 and 1, or ``num_resamples`` not positive.
        SpecError: there is no value, or no number among them.
    """
    values = np.asarray(values, dtype=float)
    if not 0 < level < 1 or num_resamples < 1:
        expected, got = "level between 0 and 1, and num_resamples of at least 1", f"{level} and {num_resamples}"
        raise ConfigError(explain("bootstrap_interval", expected=expected, got=got))
    if values.ndim == 0 or len(values) == 0 or not np.isfinite(values).all():
        got = f"{values.tolist()}" if values.size <= 8 else f"shape {[*values.shape]}, not all of them finite"
        raise SpecError(explain("bootstrap_interval", expected="finite values, [N, ...], N of at least 1", got=got))
    number = len(values)
    if number == 1:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing.copy()
    # How often each value is drawn is all that its mean depends on: one matrix product makes the means of all columns.
    counts = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=num_resamples)
    means = np.tensordot(counts / number, values, axes=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high
