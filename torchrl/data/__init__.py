"""What flows between the parts: specs that describe it, replay, and batches of trajectories of different lengths.

Specs and replay are imported from their subpackages.
"""

from torchrl.data.trajectories import (
    alive_at,
    at_step,
    concatenate,
    last_step,
    length_mask,
    lengths_of,
    pack,
    pad,
    shorten,
    split_trajectories,
    stitch,
    time_slice,
    unpack,
    unpad,
)

__all__ = [
    "alive_at",
    "at_step",
    "concatenate",
    "last_step",
    "length_mask",
    "lengths_of",
    "pack",
    "pad",
    "shorten",
    "split_trajectories",
    "stitch",
    "time_slice",
    "unpack",
    "unpad",
]
