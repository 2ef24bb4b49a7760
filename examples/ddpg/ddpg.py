"""Deep deterministic policy gradients, from flags and a config file.

    python examples/ddpg/ddpg.py --config=examples/ddpg/configs/pendulum.txt
    python examples/ddpg/ddpg.py --config=examples/ddpg/configs/pendulum.txt --ou_exploration --noise_start=1
    python examples/ddpg/ddpg.py --config=examples/ddpg/configs/halfcheetah.txt
    python examples/ddpg/ddpg.py --config=examples/ddpg/configs/humanoid.txt

What it shows: the smallest off-policy actor-critic: an actor without chance inside noise, and one critic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from torchrl import recipes
from torchrl.agents import Agent, StepExploration
from torchrl.devices import find_device
from torchrl.modules import Actor, AdditiveGaussian, OrnsteinUhlenbeck, TanhHead, ValueEnsemble
from torchrl.objectives import DDPGLoss
from torchrl.recipes.settings import Fraction
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "l2"
    "distance between value and target: squared, absolute, or in between"


@dataclass(frozen=True)
class DDPG:
    """Train a policy by deep deterministic policy gradients."""

    environment: recipes.Environment = recipes.Environment(env_name="Pendulum-v1", num_envs=1)
    networks: recipes.Networks = recipes.Networks(num_cells=(400, 300))
    exploration: recipes.ActionNoise = recipes.ActionNoise()
    collecting: recipes.ReplayCollecting = recipes.ReplayCollecting(init_random_frames=10_000)
    replay: recipes.Replay = recipes.Replay(buffer_size=1_000_000, batch_size=256)
    loss: Loss = Loss()
    updates: recipes.Updates = recipes.Updates(start_frames=10_000)
    optimising: recipes.Optimising = recipes.Optimising(lr=1e-3, max_grad_norm=None)
    recording: recipes.Recording = recipes.Recording()

    @property
    def make_env(self):
        """What builds an environment of the run, here or in another process."""
        drifts = self.exploration.ou_exploration
        return partial(recipes.make_env, self.environment, gamma=self.loss.gamma, drifts=drifts)


def make_agent(settings: DDPG) -> Agent:
    """Build every part of a run."""
    networks, options = settings.networks, settings.loss
    names = ("environment", "actor", "critic", "exploration", "random", "replay")
    seeds = named_seeds(settings.recording.seed, *names)
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)
    spec = recipes.bounded_row(env)  # of the action: a vector within bounds

    # An actor without chance, and a critic of observation and action.
    num_actions = spec.shape[-1]
    with recipes.initial_weights(seeds["actor"]):
        network = nn.Sequential(recipes.make_mlp(networks, env, num_actions), TanhHead(spec.low, spec.high))
        actor = Actor(network)
    with recipes.initial_weights(seeds["critic"]):
        make_critic = partial(recipes.make_mlp, networks, env, 1, beside=num_actions)
        critics = ValueEnsemble(make_critic, 1, in_keys=("observation", "action"))
    loss = DDPGLoss(actor, critics, gamma=options.gamma, distance=options.loss_function)
    loss.to(find_device(settings.optimising.device))  # the networks with it, before the collector copies them

    # What explores: noise on the actor's actions, independent from step to step or drifting.
    exploration = settings.exploration
    kind, extra = AdditiveGaussian, {}
    if exploration.ou_exploration:
        kind = OrnsteinUhlenbeck
        extra = {"theta": exploration.ou_theta, "sigma": exploration.ou_sigma, "state_key": recipes.OU_STATE}
    policy = kind(
        actor,
        spec,
        start=exploration.noise_start,
        end=exploration.noise_end,
        num_frames=exploration.annealing_frames,
        generator=torch.Generator().manual_seed(seeds["exploration"]),
        **extra,
    )
    policy = recipes.warm_up(settings.collecting, env, policy, seed=seeds["random"])

    collector = recipes.make_collector(settings, env, policy, seed=seeds["environment"])
    buffer = recipes.make_replay_buffer(settings, env, seed=seeds["replay"])
    updates = recipes.make_replay_updates(settings, loss, buffer, gamma=options.gamma)
    hooks = [StepExploration(), *recipes.make_hooks(settings, updates, buffer)]
    store = recipes.Store(settings.replay, buffer, loss, gamma=options.gamma)
    pace = {"log_interval": settings.updates.log_interval, "keep_learning": settings.updates.keep_learning}
    return Agent(collector, updates, store=store, evaluator=recipes.make_evaluator(settings), hooks=hooks, **pace)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("ddpg", DDPG, make_agent, flags)


if __name__ == "__main__":
    main()
