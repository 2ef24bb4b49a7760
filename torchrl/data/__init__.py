"""Hold and rework experience: specs, replay buffers, datasets in folders, and functions of batches and trajectories.

Specs and replay are imported from their subpackages.
"""

from torchrl.data.augmentation import ColorJitter, RandomCrop, RandomShift
from torchrl.data.episode_stream import EpisodeStream
from torchrl.data.hindsight import HindsightRelabel
from torchrl.data.intrinsic_reward import IntrinsicReward
from torchrl.data.multistep import MultiStep, MultiStepStream
from torchrl.data.offline import MinariEpisodes, OfflineDataset, read_dataset, read_minari, write_dataset
from torchrl.data.reward_to_go import Reward2Go
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
    "ColorJitter",
    "EpisodeStream",
    "HindsightRelabel",
    "IntrinsicReward",
    "MultiStep",
    "MultiStepStream",
    "MinariEpisodes",
    "OfflineDataset",
    "RandomCrop",
    "RandomShift",
    "Reward2Go",
    "alive_at",
    "at_step",
    "concatenate",
    "last_step",
    "length_mask",
    "lengths_of",
    "pack",
    "pad",
    "read_dataset",
    "read_minari",
    "shorten",
    "split_trajectories",
    "stitch",
    "time_slice",
    "unpack",
    "unpad",
    "write_dataset",
]
