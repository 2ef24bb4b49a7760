"""What a user writes, with every part that the README names: `make lint` lets mypy read it as strictly as it can.

It is no test and is never run. `assert_type` says what a type checker must know of our names; a wrong call in it, such
as a misspelt argument, is marked `type: ignore` and must be noticed, since mypy also complains of an unused mark.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import assert_type

import gymnasium
import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

import torchrl
from torchrl.agents import Agent, Evaluation, Evaluator, Hook, MinibatchEpochs, ReplayUpdates
from torchrl.collectors import Collector, EpisodeCollector, MultiAsyncCollector, MultiSyncCollector, rollout
from torchrl.data.replay import PrioritizedSampler, ReplayBuffer, TensorStorage
from torchrl.deploy import SavedPolicy, export_onnx
from torchrl.envs import DMControlEnv, Env, GymEnv, ParallelEnv, SerialEnv, TorchEnv, TransformedEnv, check_env
from torchrl.envs.transforms import ActionClip, CatTensors
from torchrl.functional import gae
from torchrl.modules import MLP, Categorical, Normal, NormalHead, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import GAE, ClipPPOLoss, DQNLoss, total_loss
from torchrl.record import CSVLogger, Logger


class Tell(Hook):
    def on_optimised(self, agent: Agent, batch: TensorDictBase, metrics: object) -> None:
        print(agent.frames, agent.policy)


def make_env() -> Env:
    return TransformedEnv(GymEnv("Pendulum-v1", num_envs=4), ActionClip())


def make_agent(env: Env, folder: Path) -> Agent:
    actor = ProbabilisticActor(nn.Sequential(MLP(3, 1), NormalHead(1)), Normal)
    critic = ValueOperator(MLP(3, 1))
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.1)
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=1e-3)
    optimise = MinibatchEpochs(loss, optimizer, num_epochs=10, minibatch_size=64, max_grad_norm=0.5)
    collector = Collector(env, actor, frames_per_batch=1024, total_frames=2048, seed=0)
    evaluator = Evaluator(make_env(), num_episodes=10)
    logger: Logger = CSVLogger(folder)
    advantage = GAE(critic, gamma=0.9, lambda_=0.9)
    return Agent(collector, optimise, advantage=advantage, evaluator=evaluator, hooks=[Tell()], logger=logger)


def train(agent: Agent, folder: Path) -> float:
    agent.train(progress=True)
    agent.save(folder / "last.pt")
    agent.load(folder / "last.pt")
    agent.load_networks(folder / "last.pt")
    agent.save_policy(folder / "policy.pt2")
    export_onnx(agent, folder / "policy.onnx")
    result = agent.evaluate()
    assert_type(result, Evaluation)
    return result.mean


def act(folder: Path) -> np.ndarray:
    policy = torchrl.load_policy(folder / "policy.pt2")
    assert_type(policy, SavedPolicy)
    return np.asarray(policy(np.zeros(3, dtype=np.float32)))


def loop_of_ones_own(env: Env) -> None:
    actor, critic = ProbabilisticActor(MLP(4, 2), Categorical), ValueOperator(MLP(4, 1))
    advantage, loss = GAE(critic), ClipPPOLoss(actor, critic)
    for batch in Collector(env, actor, frames_per_batch=1024, total_frames=4096, seed=0):
        assert_type(batch, TensorDict)
        losses = loss(advantage(batch).reshape(-1))
        assert_type(total_loss(losses), Tensor)
        total_loss(losses).backward()  # type: ignore[no-untyped-call]
    MultiSyncCollector(make_env, actor, num_workers=4, frames_per_batch=1024, update_every_batch=True).shutdown()
    MultiAsyncCollector(make_env, actor, num_workers=4, frames_per_batch=1024).shutdown()
    EpisodeCollector(env, actor, num_episodes=8).shutdown()
    Collector(env, actor, frames_per_batsch=8)  # type: ignore[call-arg]


def rolled(policy: Callable[[TensorDict], TensorDict]) -> Iterator[Tensor]:
    envs = [gymnasium.make("CartPole-v1") for _ in range(8)]
    for batch, last in rollout(envs, policy, n_steps=16, seed=0):
        after = batch["next"]
        value, ends = torch.zeros(8, 16, 1), (after["terminated"], after["truncated"])
        advantage, _ = gae(after["reward"], value, value, *ends, gamma=0.99, lambda_=0.95)
        assert_type(advantage, Tensor)
        yield advantage + last["observation"].sum()


def replayed(loss: DQNLoss, env: Env) -> None:
    buffer = ReplayBuffer(TensorStorage(10_000), sampler=PrioritizedSampler(), batch_size=64, seed=0)
    for batch in Collector(env, None, frames_per_batch=64, total_frames=640):
        buffer.extend(batch)
    assert_type(buffer.sample(), TensorDictBase)
    optimizer = torch.optim.Adam(loss.trainable_parameters())
    ReplayUpdates(loss, optimizer, buffer, batch_size=64, updates_per_frame=1.0)


def worlds() -> list[Env]:
    joined = TransformedEnv(DMControlEnv("cheetah", "run"), CatTensors())
    check_env(joined)
    assert_type(joined.rollout(100), TensorDict)
    assert_type(joined.reset().batch_size, torch.Size)
    several = SerialEnv(lambda: gymnasium.make("CartPole-v1"), 8)
    return [joined, several, ParallelEnv(lambda: gymnasium.make("CartPole-v1"), 2)]


HEAD: object = TanhNormal.within(-2.0, 2.0)
WORLD: Callable[..., Env] = TorchEnv
