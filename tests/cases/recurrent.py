"""Policies with memory, and the environments they act in; worker processes build them from here."""

from functools import partial

from torch import nn

from torchrl.data.specs import Unbounded
from torchrl.envs import ParallelEnv, SerialEnv, TransformedEnv
from torchrl.envs.simulators import gym_simulator
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.modules import Categorical, Operator, ProbabilisticActor, Sequence, Transformer

STATE = ("agent", "memory")


def make_env(num_envs, *, num_workers=0, max_episode_steps=12, primer=None):
    """CartPole whose roots carry the state; episodes of 8 to 12 steps."""
    make = partial(gym_simulator, "CartPole-v1", max_episode_steps=max_episode_steps)
    env = ParallelEnv(make, num_envs, num_workers=num_workers) if num_workers else SerialEnv(make, num_envs)
    return TransformedEnv(env, primer or TensorDictPrimer({STATE: Unbounded((6,))}, defaults={STATE: 0.5}))


def make_env_of(kind, num_envs, **options):
    """The same, for the state of an LSTM or a Transformer."""
    return make_env(num_envs, primer=TensorDictPrimer(make_remembering(kind).initial_state()), **options)


def make_policy():
    """A GRU cell and an actor that reads its state."""
    cell = Operator(nn.GRUCell(4, 6), in_keys=["observation", STATE], out_keys=[("next", *STATE)])
    return Sequence(cell, ProbabilisticActor(nn.Linear(6, 2), Categorical, in_keys=[("next", *STATE)]))


def make_remembering(kind):
    """An LSTM or a Transformer of two layers, and an actor that reads its features."""
    more = {"window": 5, "num_heads": 2} if kind is Transformer else {}
    actor = ProbabilisticActor(nn.Linear(6, 2), Categorical, in_keys=["hidden"])
    return Sequence(kind(4, 6, num_layers=2, state_key=STATE, **more), actor, out_keys=actor.out_keys)
