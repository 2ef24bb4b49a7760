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
