"""Transforms, which change observations, rewards or actions between a policy and an env, once per step for all rows."""

from torchrl.envs.transforms.action import ActionClip, ActionDiscretizer, ActionScaling, ActionTransform, OneHotAction
from torchrl.envs.transforms.action_mask import ActionMask, DiscreteActionProjection
from torchrl.envs.transforms.base import EnvSpecs, Transform
from torchrl.envs.transforms.bonus import RewardBonus
from torchrl.envs.transforms.compose import Compose
from torchrl.envs.transforms.device import DeviceCast, PinMemory
from torchrl.envs.transforms.episode import EpisodeObservation, LastAction, LastReward, StepCounter, TargetReturn
from torchrl.envs.transforms.finite import FiniteCheck
from torchrl.envs.transforms.images import GrayScale, Resize
from torchrl.envs.transforms.keys import CatTensors, Exclude, Rename, Select
from torchrl.envs.transforms.memory import FrameStack, TimeMax
from torchrl.envs.transforms.numbers import BitsToFloat, DoubleToFloat, OneHotObservation, ScaleByBounds
from torchrl.envs.transforms.observation import ObservationNorm, ObservationTransform
from torchrl.envs.transforms.priming import TensorDictPrimer
from torchrl.envs.transforms.randomness import GSDENoise, RandomTransform
from torchrl.envs.transforms.reward import (
    BinarizeReward,
    RewardClipping,
    RewardNorm,
    RewardScaling,
    RewardTransform,
    SignTransform,
)
from torchrl.envs.transforms.shapes import Flatten, Permute, Squeeze, Unsqueeze
from torchrl.envs.transforms.statistics import ObservationStatistics, VecNorm
from torchrl.envs.transforms.transformed import TransformedEnv
from torchrl.envs.transforms.velocities import MaskVelocity

__all__ = [
    "ActionClip",
    "ActionDiscretizer",
    "ActionMask",
    "ActionScaling",
    "ActionTransform",
    "BinarizeReward",
    "BitsToFloat",
    "CatTensors",
    "Compose",
    "DeviceCast",
    "DiscreteActionProjection",
    "DoubleToFloat",
    "EnvSpecs",
    "EpisodeObservation",
    "Exclude",
    "FiniteCheck",
    "Flatten",
    "FrameStack",
    "GSDENoise",
    "GrayScale",
    "LastAction",
    "LastReward",
    "MaskVelocity",
    "ObservationNorm",
    "ObservationStatistics",
    "ObservationTransform",
    "OneHotAction",
    "OneHotObservation",
    "Permute",
    "PinMemory",
    "RandomTransform",
    "Rename",
    "Resize",
    "RewardBonus",
    "RewardClipping",
    "RewardNorm",
    "RewardScaling",
    "RewardTransform",
    "ScaleByBounds",
    "Select",
    "SignTransform",
    "Squeeze",
    "StepCounter",
    "TargetReturn",
    "TensorDictPrimer",
    "TimeMax",
    "Transform",
    "TransformedEnv",
    "Unsqueeze",
    "VecNorm",
]
