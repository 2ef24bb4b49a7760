"""Randomised ensembled double Q-learning, from flags and a config file.

    python examples/redq/redq.py --config=examples/redq/configs/pendulum.txt
    python examples/redq/redq.py --config=examples/redq/configs/halfcheetah.txt
    python examples/redq/redq.py --config=examples/redq/configs/humanoid.txt

What it shows: SAC with ten critics and twenty gradient steps for each frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from torchrl import recipes
from torchrl.agents import Agent
from torchrl.devices import find_device
from torchrl.objectives import REDQLoss
from torchrl.recipes.settings import Fraction, PositiveFloat, PositiveInt, Real
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "l2"
    "distance between value and target: squared, absolute, or in between"
    temperature: PositiveFloat = 1.0
    "weight of the entropy; with --learn_temperature its first value"
    learn_temperature: bool = True
    "adapt it to --target_entropy"
    target_entropy: Real | None = None
    """entropy in nats to aim at; none takes minus the number of action entries, in units of half their range; needs
    --learn_temperature"""
    num_q_values: PositiveInt = 10
    "critics"
    num_sampled: PositiveInt = 2
    "critics in each target"


@dataclass(frozen=True)
class REDQ:
    """Train a policy by randomised ensembled double Q-learning."""

    environment: recipes.Environment = recipes.Environment(env_name="Pendulum-v1", num_envs=1)
    networks: recipes.SquashedNetworks = recipes.SquashedNetworks(num_cells=(256, 256))
    collecting: recipes.ReplayCollecting = recipes.ReplayCollecting(init_random_frames=100)
    replay: recipes.Replay = recipes.Replay(buffer_size=1_000_000, batch_size=256)
    loss: Loss = Loss()
    updates: recipes.ActorUpdates = recipes.ActorUpdates(updates_per_frame=20.0, actor_interval=20, start_frames=100)
    optimising: recipes.Optimising = recipes.Optimising(lr=3e-4, max_grad_norm=None)
    recording: recipes.Recording = recipes.Recording()

    @property
    def make_env(self):
        """What builds an environment of the run, here or in another process."""
        return partial(recipes.make_env, self.environment, gamma=self.loss.gamma, networks=self.networks)


def make_agent(settings: REDQ) -> Agent:
    """Build every part of a run."""
    networks, options = settings.networks, settings.loss
    names = ("environment", "policy", "encoder", "actor", "critic", "loss", "random", "replay")
    seeds = named_seeds(settings.recording.seed, *names)
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)
    spec = recipes.bounded_row(env)  # of the action: a vector within bounds

    with recipes.initial_weights(seeds["encoder"]):
        shared = recipes.make_shared_encoder(networks, env)  # the convolutions with --share_encoder, or None

    # The actor, squashed into the bounds of the action. `policy` acts and `actor` is trained: the same object, except
    # with --gsde, where `policy` adds a noise that the loss does not use.
    generator = torch.Generator().manual_seed(seeds["policy"])
    with recipes.initial_weights(seeds["actor"]):
        policy, actor = recipes.make_squashed_actors(networks, env, generator, shared=shared)
    with recipes.initial_weights(seeds["critic"]):
        critics = recipes.make_critics(networks, env, options.num_q_values, shared=shared)

    loss = REDQLoss(
        actor,
        critics,
        num_sampled=options.num_sampled,
        gamma=options.gamma,
        distance=options.loss_function,
        temperature=options.temperature,
        learn_temperature=options.learn_temperature,
        target_entropy="auto" if options.target_entropy is None else options.target_entropy,
        action_spec=spec,
        generator=torch.Generator().manual_seed(seeds["loss"]),
    ).to(find_device(settings.optimising.device))

    policy = recipes.warm_up(settings.collecting, env, policy, seed=seeds["random"])
    collector = recipes.make_collector(settings, env, policy, seed=seeds["environment"])
    buffer = recipes.make_replay_buffer(settings, env, seed=seeds["replay"])
    updates = recipes.make_replay_updates(settings, loss, buffer, gamma=options.gamma)
    hooks = recipes.make_hooks(settings, updates, buffer)
    store = recipes.Store(settings.replay, buffer, loss, gamma=options.gamma)
    pace = {"log_interval": settings.updates.log_interval, "keep_learning": settings.updates.keep_learning}
    return Agent(collector, updates, store=store, evaluator=recipes.make_evaluator(settings), hooks=hooks, **pace)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("redq", REDQ, make_agent, flags)


if __name__ == "__main__":
    main()
