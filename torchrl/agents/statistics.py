"""Figures of a batch for the log, and their means over batches. They change nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tensordict import TensorDictBase

from torchrl.functional import explained_variance
from torchrl.objectives.keys import MASK

LATEST = math.inf  # the weight of a number that says where things stand: of several the last one is logged, no mean


class Figures(dict):
    """Numbers for the log by name, each with its weight in means over several batches.

    >>> Figures({"train/jumps": 2.0}, weights={"train/jumps": 5})  # a mean over five
    {'train/jumps': 2.0}

    Attributes:
        weights: how much a number is a mean over (episodes, rows, steps, seconds), by name; 1 where a name is not among
            them; ``LATEST`` for no mean.
    """

    def __init__(self, numbers: Mapping[str, float] | None = None, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(numbers or {})
        self.weights = dict(weights or {})

    def __or__(self, other: Mapping[str, float]) -> Figures:
        result = Figures(self, self.weights)
        result |= other
        return result

    def __ior__(self, other: Mapping[str, float]) -> Figures:
        self.update(other)
        self.weights |= other.weights if isinstance(other, Figures) else {}
        return self

    def renamed(self, rename: Callable[[str], str]) -> Figures:
        """Return the same numbers and weights under other names."""
        return Figures(*({rename(name): x for name, x in part.items()} for part in (self, self.weights)))


def episode_statistics(batch: TensorDictBase) -> Figures:
    """Return the mean return and length of the episodes that ended in a batch ``[*B, T]``; empty if none did.

    The weight of each figure is the number of its episodes.

    >>> start = batch[:, :4]  # CartPole pays 1 for every step
    >>> start["next", "done"][:] = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool).unsqueeze(-1)
    >>> episode_statistics(start)
    {'train/episode_return': 4.0, 'train/episode_length': 4.0}
    """
    done = batch.get(("next", "done"))
    mask = batch.get(MASK, None)
    if mask is not None:
        done = done & mask.unsqueeze(-1)
    if not bool(done.any()):
        return Figures()
    means = {
        "train/episode_return": batch.get(("next", "episode_return"))[done].double().mean().item(),
        "train/episode_length": batch.get(("next", "episode_length"))[done].double().mean().item(),
    }
    return Figures(means, dict.fromkeys(means, int(done.sum())))


def value_statistics(batch: TensorDictBase) -> Figures:
    """Return the explained variance of ``state_value`` in a batch ``[*B, T]``; empty without it or ``value_target``.

    Of several batches the mean is logged, each counting by its valid rows.
    """
    value, target = batch.get("state_value", None), batch.get("value_target", None)
    if value is None or target is None:
        return Figures()
    mask = batch.get(MASK, None)
    if mask is not None:
        value, target = value[mask], target[mask]
    explained = explained_variance(value, target).item()
    return Figures({"explained_variance": explained}, {"explained_variance": value.numel()})


def num_valid_frames(batch: TensorDictBase) -> int:
    """Count the rows of a batch ``[*B, T]`` that are no padding."""
    mask = batch.get(MASK, None)
    return batch.numel() if mask is None else int(mask.sum())


def policy_lag(batch: TensorDictBase, version: int) -> Figures:
    """Return how many versions behind ``version`` the policy was that collected a batch ``[*B, T]``, on average.

    Empty where no step of it is valid.
    """
    versions, mask = batch.get(("collector", "policy_version")), batch.get(MASK, None)
    if mask is not None:
        versions = versions[mask]
    if not versions.numel():
        return Figures()
    lag = version - versions.double().mean().item()
    return Figures({"collect/policy_lag": lag}, {"collect/policy_lag": versions.numel()})


class MeanMetrics:
    """Gather the figures of several batches into weighted means, for one line of the log.

    A figure of the weight ``LATEST`` is not averaged: the last one added counts. One of weight 0 is left out.

    Attributes:
        num_frames: of the batches since the last means were taken.
    """

    def __init__(self) -> None:
        self._means = Figures()
        self.num_frames = 0

    def add(self, metrics: Mapping[str, float], num_frames: int) -> None:
        """Add the figures of one batch to the means; each number of a plain dict has the weight 1.

        A number of the weight ``LATEST`` replaces the one before it, and is not averaged.
        """
        means, totals = self._means, self._means.weights
        weights = metrics.weights if isinstance(metrics, Figures) else {}
        for name, value in metrics.items():
            weight = weights.get(name, 1)
            if weight == LATEST:
                means[name], totals[name] = value, LATEST
            elif weight > 0:
                totals[name] = totals.get(name, 0) + weight
                mean = means.get(name, 0.0)
                means[name] = mean + (value - mean) * (weight / totals[name])
        self.num_frames += num_frames

    def take(self) -> tuple[Figures, int]:
        """Return the means, of ``LATEST`` figures the last, and the number of frames they are over; begin anew."""
        means, num_frames = self._means, self.num_frames
        self.__init__()
        return means, num_frames
