"""Policies and environments for tests with processes: workers import this module, so it imports no test tools."""

import os
from functools import partial

import torch
from tensordict.nn import TensorDictModuleBase
from torch import nn

from fakes import CountingSimulator, FaultySimulator, Gated, SlowSimulator
from torchrl.envs import GymEnv, SerialEnv, TransformedEnv
from torchrl.envs.transforms import RewardBonus
from torchrl.modules import AnnealedExploration


class Stepwise(nn.Module):
    """Acts by the length of the episode: no chance, and no arithmetic on batches of another size."""

    def forward(self, root):
        return root.set("action", root["episode_length"].squeeze(-1) % 2)


class Marked(TensorDictModuleBase):
    """Writes its weight, its buffer and the number of its process beside an action that is always 0."""

    def __init__(self):
        super().__init__()
        self.in_keys, self.out_keys = [], ["weight", "count", "process", "action"]
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, root):
        root.set("weight", self.weight.expand(root.batch_size).clone())
        root.set("count", self.count.expand(root.batch_size).clone())
        root.set("process", torch.full(root.batch_size, os.getpid()))
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))


def counting_paid_by(module):
    """Two rows that count, whose reward holds what a module pays."""
    env = SerialEnv(lambda: CountingSimulator(length=9), 2)
    return TransformedEnv(env, RewardBonus(module, coef=1.0))


def cartpole(num_envs):
    return GymEnv("CartPole-v1", num_envs=num_envs)


def counting(num_envs, length=5):
    return SerialEnv(partial(CountingSimulator, length), num_envs)


def slow(seconds, num_envs=1):
    return SerialEnv(partial(SlowSimulator, seconds), num_envs)


def gated(gate):
    return GymEnv("CartPole-v1", num_envs=1, wrappers=[partial(Gated, gate=gate)])


def faulty(fault, from_step=1):
    return SerialEnv(partial(FaultySimulator, fault, from_step=from_step), 2)


class Nudge(AnnealedExploration):
    """Writes its strength."""

    def explore(self, root):
        return root.set("strength", self.strength.expand(root.batch_size).clone())


class Wide(nn.Module):
    """Writes the least and the greatest of its many weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(300_000))
        self.tail = nn.Parameter(torch.zeros(()))

    def forward(self, root):
        spread = self.weight.aminmax()
        root.set("least", spread.min.expand(root.batch_size).clone())
        root.set("most", torch.maximum(spread.max, self.tail).expand(root.batch_size).clone())
        return root.set("action", torch.zeros(root.batch_size, dtype=torch.int64))
