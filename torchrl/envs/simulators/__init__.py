"""Simulators: one world each, in numpy. Nothing here imports torch, so a worker process starts in milliseconds.

A batch of simulators that speaks TensorDict is an ``Env``; see ``torchrl.envs``.
"""

from torchrl.envs.simulators.atari import AtariPictures, EpisodicLife, FireReset
from torchrl.envs.simulators.base import Simulator, SimulatorWrapper
from torchrl.envs.simulators.batch import BatchArrays, BatchSimulator
from torchrl.envs.simulators.dm_control import DMControlSimulator
from torchrl.envs.simulators.gym import GymSimulator
from torchrl.envs.simulators.named import (
    atari_simulator,
    dm_control_simulator,
    gym_simulator,
    toy_simulator,
)
from torchrl.envs.simulators.observing import InfoKeys, LeaveOut, Pixels
from torchrl.envs.simulators.python import python_simulator
from torchrl.envs.simulators.toys import Matching
from torchrl.envs.simulators.wrappers import FrameSkip, NoopReset, RandomTruncation, TimeLimit

__all__ = [
    "AtariPictures",
    "BatchArrays",
    "BatchSimulator",
    "DMControlSimulator",
    "EpisodicLife",
    "FireReset",
    "FrameSkip",
    "GymSimulator",
    "InfoKeys",
    "LeaveOut",
    "Matching",
    "NoopReset",
    "Pixels",
    "RandomTruncation",
    "Simulator",
    "SimulatorWrapper",
    "TimeLimit",
    "atari_simulator",
    "dm_control_simulator",
    "gym_simulator",
    "python_simulator",
    "toy_simulator",
]
