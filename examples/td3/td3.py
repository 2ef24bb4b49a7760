"""Twin delayed deterministic policy gradients (Fujimoto et al., 2018), from flags and a config file.

    python examples/td3/td3.py --config=examples/td3/configs/pendulum.txt
    python examples/td3/td3.py --config=examples/td3/configs/halfcheetah.txt --num_workers=2 --num_envs=2

What it shows: what TD3 adds to DDPG: a second critic, noise on the target's action, a delayed actor.
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
from torchrl.objectives import TD3Loss
from torchrl.recipes.settings import Fraction, NonNegativeFloat
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "l2"
    "distance between value and target: squared, absolute, or in between"
    target_noise: NonNegativeFloat = 0.2
    "noise on the target's action, in units of half the range"
    noise_clip: NonNegativeFloat = 0.5
    "its limit, in units of half the range; needs --target_noise above 0"


@dataclass(frozen=True)
class TD3:
    """Train a policy by twin delayed deterministic policy gradients."""

    environment: recipes.Environment = recipes.Environment(env_name="Pendulum-v1", num_envs=1)
    networks: recipes.Networks = recipes.Networks(num_cells=(400, 300))
    exploration: recipes.ActionNoise = recipes.ActionNoise()
    collecting: recipes.ReplayCollecting = recipes.ReplayCollecting(init_random_frames=10_000)
    replay: recipes.Replay = recipes.Replay(buffer_size=1_000_000, batch_size=256)
    loss: Loss = Loss()
    updates: recipes.ActorUpdates = recipes.ActorUpdates(actor_interval=2, start_frames=10_000)
    optimising: recipes.Optimising = recipes.Optimising(lr=1e-3, max_grad_norm=None)
    recording: recipes.Recording = recipes.Recording()

    @property
    def make_env(self):
        """What builds an environment of the run, here or in another process."""
        drifts = self.exploration.ou_exploration
        return partial(recipes.make_env, self.environment, gamma=self.loss.gamma, drifts=drifts)


def make_agent(settings: TD3) -> Agent:
    """Build every part of a run."""
    networks, options = settings.networks, settings.loss
    names = ("environment", "actor", "critic", "target", "exploration", "random", "replay")
    seeds = named_seeds(settings.recording.seed, *names)
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)
    spec = recipes.bounded_row(env)  # of the action: a vector within bounds

    # An actor without chance, and two critics of observation and action.
    num_actions = spec.shape[-1]
    with recipes.initial_weights(seeds["actor"]):
        network = nn.Sequential(recipes.make_mlp(networks, env, num_actions), TanhHead(spec.low, spec.high))
        actor = Actor(network)
    with recipes.initial_weights(seeds["critic"]):
        make_critic = partial(recipes.make_mlp, networks, env, 1, beside=num_actions)
        critics = ValueEnsemble(make_critic, 2, in_keys=("observation", "action"))
    loss = TD3Loss(
        actor,
        critics,
        action_spec=spec,
        gamma=options.gamma,
        distance=options.loss_function,
        target_noise=options.target_noise,
        noise_clip=options.noise_clip,
        generator=torch.Generator().manual_seed(seeds["target"]),
    ).to(find_device(settings.optimising.device))

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
    recipes.run("td3", TD3, make_agent, flags)


if __name__ == "__main__":
    main()
