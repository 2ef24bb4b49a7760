"""Transforms: what the policy sees, and what the simulator receives, changed once per step for the whole batch."""

from torchrl.envs.transforms.action import ActionClip, ActionScaling, ActionTransform
from torchrl.envs.transforms.base import Compose, EnvSpecs, Transform, TransformedEnv
from torchrl.envs.transforms.observation import ObservationNorm, ObservationTransform
from torchrl.envs.transforms.reward import RewardNorm, RewardScaling, RewardTransform
from torchrl.envs.transforms.structure import CatTensors, DoubleToFloat

__all__ = [
    "ActionClip",
    "ActionScaling",
    "ActionTransform",
    "CatTensors",
    "Compose",
    "DoubleToFloat",
    "EnvSpecs",
    "ObservationNorm",
    "ObservationTransform",
    "RewardNorm",
    "RewardScaling",
    "RewardTransform",
    "Transform",
    "TransformedEnv",
]
