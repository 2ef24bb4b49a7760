"""Replay buffers: a storage keeps items, a writer chooses where each goes, a sampler draws the items of a sample."""

from torchrl.data.replay.buffer import ReplayBuffer
from torchrl.data.replay.frames import StackedFrames
from torchrl.data.replay.ledger import Ledger
from torchrl.data.replay.memmap import MemmapStorage
from torchrl.data.replay.mixture import MixedReplay
from torchrl.data.replay.prioritized import PrioritizedSampler
from torchrl.data.replay.samplers import Draw, Sampler, SamplerWithoutReplacement, UniformSampler
from torchrl.data.replay.slices import PrioritizedSliceSampler, SliceSampler
from torchrl.data.replay.storages import ListStorage, Storage, TensorStorage
from torchrl.data.replay.sum_tree import SumTree
from torchrl.data.replay.writers import KeepBest, KeepHighestPriority, RingWriter, Writer

__all__ = [
    "Draw",
    "KeepBest",
    "KeepHighestPriority",
    "Ledger",
    "ListStorage",
    "MemmapStorage",
    "MixedReplay",
    "PrioritizedSampler",
    "PrioritizedSliceSampler",
    "ReplayBuffer",
    "RingWriter",
    "Sampler",
    "SamplerWithoutReplacement",
    "SliceSampler",
    "StackedFrames",
    "Storage",
    "SumTree",
    "TensorStorage",
    "UniformSampler",
    "Writer",
]
