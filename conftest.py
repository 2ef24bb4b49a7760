"""The names that examples in docstrings may use without making them: the parts of a small straight line."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it: threads of two test processes on two cores spin

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from tensordict import TensorDict

from torchrl import recipes
from torchrl.agents import Agent, MinibatchEpochs
from torchrl.collectors import Collector
from torchrl.data.replay import ReplayBuffer, TensorStorage
from torchrl.envs import GymEnv, transforms
from torchrl.modules import MLP, Actor, Categorical, Operator, ProbabilisticActor, QValueActor, ValueOperator
from torchrl.objectives import GAE, ClipPPOLoss


@dataclass(frozen=True)
class Settings:
    """Train a policy on two rows of CartPole."""

    environment: recipes.Environment = recipes.Environment(num_envs=2)
    networks: recipes.MemoryNetworks = recipes.MemoryNetworks()
    collecting: recipes.ReplayCollecting = recipes.ReplayCollecting(frames_per_batch=16)
    replay: recipes.SequenceReplay = recipes.SequenceReplay(buffer_size=100, batch_size=4)
    updates: recipes.Updates = recipes.Updates()
    optimising: recipes.Optimising = recipes.Optimising()
    recording: recipes.Recording = recipes.Recording()

    @property
    def make_env(self):
        """What builds an environment."""
        return partial(recipes.make_env, self.environment, gamma=0.99)


@pytest.fixture(autouse=True)
def example_names(request, doctest_namespace):
    """Give a docstring's example two rows of CartPole, networks, a batch ``[2, 8]``, a buffer, an agent, a folder."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    torch.manual_seed(0)
    env = GymEnv("CartPole-v1", num_envs=2)
    actor = ProbabilisticActor(MLP(4, 2), Categorical)
    critic = ValueOperator(MLP(4, 1))
    doctest_namespace |= {name: getattr(transforms, name) for name in transforms.__all__} | {"GymEnv": GymEnv}
    doctest_namespace |= {module.__name__: module for module in (MLP, Actor, Operator, QValueActor, ValueOperator)}
    doctest_namespace |= {"torch": torch, "nn": torch.nn, "TensorDict": TensorDict, "env": env, "actor": actor}
    loss = ClipPPOLoss(actor, critic)
    optimise = MinibatchEpochs(loss, torch.optim.Adam(loss.parameters()), num_epochs=1, minibatch_size=16)
    collector = Collector(GymEnv("CartPole-v1", num_envs=2), actor, frames_per_batch=16, total_frames=32, seed=0)
    doctest_namespace |= {
        "loss": loss,
        "agent": Agent(collector, optimise, advantage=GAE(critic)),
        "folder": request.getfixturevalue("tmp_path"),
        "critic": critic,
        "settings": Settings(),
        "batch": Collector(env, actor, frames_per_batch=16, seed=0).collect(),
        "buffer": ReplayBuffer(TensorStorage(100), batch_size=4),
    }
