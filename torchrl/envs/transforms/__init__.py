"""Transforms: what the policy sees, and what the simulator receives, changed once per step for the whole batch."""

from torchrl.envs.transforms.action import ActionClip, ActionScaling, ActionTransform
from torchrl.envs.transforms.base import Compose, EnvSpecs, Transform, TransformedEnv
from torchrl.envs.transforms.finite import FiniteCheck
from torchrl.envs.transforms.keys import Exclude, Rename, Select
from torchrl.envs.transforms.observation import ObservationNorm, ObservationTransform
from torchrl.envs.transforms.reward import (
    BinarizeReward,
    RewardClipping,
    RewardNorm,
    RewardScaling,
    RewardTransform,
    SignTransform,
)
from torchrl.envs.transforms.shapes import Flatten, Permute, Squeeze, Unsqueeze
from torchrl.envs.transforms.structure import CatTensors, DoubleToFloat

__all__ = [
    "ActionClip",
    "ActionScaling",
    "ActionTransform",
    "BinarizeReward",
    "CatTensors",
    "Compose",
    "DoubleToFloat",
    "EnvSpecs",
    "Exclude",
    "FiniteCheck",
    "Flatten",
    "ObservationNorm",
    "ObservationTransform",
    "Permute",
    "Rename",
    "RewardClipping",
    "RewardNorm",
    "RewardScaling",
    "RewardTransform",
    "Select",
    "SignTransform",
    "Squeeze",
    "Transform",
    "TransformedEnv",
    "Unsqueeze",
]
