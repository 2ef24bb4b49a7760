"""A small PPO agent on CartPole, every random stream of its own."""

from functools import partial

import pytest
import torch
from torch import nn

from torchrl.agents import Agent, EvaluationProcess, Evaluator, MinibatchEpochs, UpdateNormalizer
from torchrl.collectors import Collector, MultiSyncCollector
from torchrl.envs import GymEnv
from torchrl.modules import MLP, Categorical, ObservationNormalizer, ProbabilisticActor, ValueOperator
from torchrl.objectives import GAE, ClipPPOLoss
from torchrl.seeding import named_seeds


@pytest.fixture
def make_agent(keep):
    """Build an agent; it collects in ``num_workers`` processes, or here if 0; ``options`` go to the Agent."""

    def make(
        *,
        seed=0,
        total_frames=512,
        evaluate_every=None,
        beside=False,
        hooks=(),
        minibatch_size=32,
        width=16,
        num_envs=4,
        num_workers=0,
        **options,
    ):
        seeds = named_seeds(seed, "weights", "policy", "minibatches", "env", "eval")
        torch.manual_seed(seeds["weights"])
        normalizer = ObservationNormalizer(4)
        actor = ProbabilisticActor(
            nn.Sequential(normalizer, MLP(4, 2, num_cells=(width,))),
            Categorical,
            generator=torch.Generator().manual_seed(seeds["policy"]),
        )
        critic = ValueOperator(nn.Sequential(normalizer, MLP(4, 1, num_cells=(width,))))
        loss = ClipPPOLoss(actor, critic, entropy_coef=0.01)
        collect = {"frames_per_batch": 128, "total_frames": total_frames, "seed": seeds["env"]}
        if num_workers:
            make_env = partial(GymEnv, "CartPole-v1", num_envs=num_envs // num_workers)
            collector = MultiSyncCollector(make_env, actor, num_workers=num_workers, **collect)
        else:
            collector = Collector(GymEnv("CartPole-v1", num_envs=num_envs), actor, **collect)
        optimise = MinibatchEpochs(
            loss,
            torch.optim.Adam(loss.trainable_parameters(), lr=1e-3),
            num_epochs=2,
            minibatch_size=minibatch_size,
            max_grad_norm=0.5,
            generator=torch.Generator().manual_seed(seeds["minibatches"]),
        )
        if evaluate_every is not None:
            make_env = partial(GymEnv, "CartPole-v1", num_envs=2)
            make, env = (EvaluationProcess, make_env) if beside else (Evaluator, make_env())
            options["evaluator"] = make(env, num_episodes=3, seed=seeds["eval"], every_frames=evaluate_every)
        hooks = [UpdateNormalizer(normalizer), *hooks]
        return keep(Agent(collector, optimise, advantage=GAE(critic), hooks=hooks, **options))

    return make
