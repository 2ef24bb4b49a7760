"""What a batch tells about the training: figures for the log. They change nothing."""

from __future__ import annotations

from tensordict import TensorDictBase

from torchrl.functional import explained_variance
from torchrl.objectives.keys import MASK


def episode_statistics(batch: TensorDictBase) -> dict[str, float]:
    """Average return and length of the episodes that ended in a batch ``[*B, T]``; empty if none did."""
    done = batch.get(("next", "done"))
    mask = batch.get(MASK, None)
    if mask is not None:
        done = done & mask.unsqueeze(-1)
    if not bool(done.any()):
        return {}
    return {
        "train/episode_return": batch.get(("next", "episode_return"))[done].double().mean().item(),
        "train/episode_length": batch.get(("next", "episode_length"))[done].double().mean().item(),
    }


def value_statistics(batch: TensorDictBase) -> dict[str, float]:
    """Explained variance of the collected values in a batch ``[*B, T]``; empty without ``value_target``."""
    value, target = batch.get("state_value", None), batch.get("value_target", None)
    if value is None or target is None:
        return {}
    mask = batch.get(MASK, None)
    if mask is not None:
        value, target = value[mask], target[mask]
    return {"explained_variance": explained_variance(value, target).item()}


def num_valid_frames(batch: TensorDictBase) -> int:
    """Count the rows of a batch ``[*B, T]`` that are no padding."""
    mask = batch.get(MASK, None)
    return batch.numel() if mask is None else int(mask.sum())


def policy_lag(batch: TensorDictBase, version: int) -> dict[str, float]:
    """How many updates of the weights the policy that collected a batch ``[*B, T]`` was behind, on average."""
    versions, mask = batch.get(("collector", "policy_version")), batch.get(MASK, None)
    if mask is not None:
        versions = versions[mask]
    return {"collect/policy_lag": version - versions.double().mean().item()} if versions.numel() else {}


class MeanMetrics:
    """Means of figures over several batches, each figure over the batches that have it.

    Attributes:
        num_frames: of the batches since the last means were taken.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self.num_frames = 0

    def add(self, metrics: dict[str, float], num_frames: int) -> None:
        """Take the figures of one batch."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self.num_frames += num_frames

    def take(self) -> tuple[dict[str, float], int]:
        """Return the means and the frames they are over, and begin anew."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        num_frames = self.num_frames
        self.__init__()
        return means, num_frames
