"""Deep Q-learning (Mnih et al., 2015), from flags and a config file; with all its switches on, Rainbow.

    python examples/dqn/dqn.py --config=examples/dqn/configs/cartpole.txt
    python examples/dqn/dqn.py --config=examples/dqn/configs/cartpole.txt --prb --dueling --multi_step
    python examples/dqn/dqn.py --config=examples/dqn/configs/lunarlander.txt --seed=1

What it shows: a greedy actor inside what explores, a buffer between collecting and learning, and a target network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from torchrl import recipes
from torchrl.agents import Agent, StepExploration
from torchrl.data.specs import OneHot
from torchrl.devices import find_device
from torchrl.errors import ConfigError, explain
from torchrl.modules import (
    MLP,
    DistributionalQValueActor,
    DuelingMLP,
    EGreedy,
    NoisyLinear,
    QuantileQValueActor,
    QValueActor,
)
from torchrl.objectives import DistributionalDQNLoss, DQNLoss, QuantileDQNLoss
from torchrl.recipes.networks import ACTIVATIONS
from torchrl.recipes.settings import Fraction, PositiveInt, Real
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Networks(recipes.Remembering, recipes.Networks):
    """A network that values every action: one number each, or a distribution of returns."""

    dueling: bool = False
    "value of the state and advantages of the actions as two streams"
    noisy: bool = False
    "explore by noise in the last layers, instead of ε"
    distributional: bool = False
    "a distribution of returns on --atoms (C51)"
    quantiles: bool = False
    "--atoms quantiles of returns (QR-DQN)"
    atoms: PositiveInt = 51
    "numbers per action of a distribution; needs --distributional or --quantiles"
    value_low: Real = -10.0
    "return of the first atom; needs --distributional"
    value_high: Real = 10.0
    "return of the last atom; needs --distributional"

    def __post_init__(self):
        """Refuse a distribution of one number, and two kinds of distributions."""
        if self.distributional and self.quantiles:
            raise ConfigError(explain("--distributional", expected="it or --quantiles", got="both"))
        if self.distributional and self.atoms < 2:
            raise ConfigError(explain("--atoms", expected="at least 2 with --distributional", got=self.atoms))


@dataclass(frozen=True)
class Exploration:
    """Random actions with probability ε."""

    eps_start: Fraction = 1.0
    "ε at the beginning; needs --no-noisy and --exploration_type=random"
    eps_end: Fraction = 0.05
    "ε in the end; needs --no-noisy and --exploration_type=random"
    annealing_frames: PositiveInt = 1_000_000
    "frames over which ε goes from the first to the second; needs --no-noisy and --exploration_type=random"


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    double: bool = True
    "the network in training chooses the next action, its target judges it"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "smooth_l1"
    "distance between value and target, where there is no distribution; needs --no-distributional and --no-quantiles"


@dataclass(frozen=True)
class DQN:
    """Train a policy by deep Q-learning."""

    environment: recipes.Environment = recipes.Environment()
    networks: Networks = Networks()
    exploration: Exploration = Exploration()
    collecting: recipes.ReplayCollecting = recipes.ReplayCollecting(frames_per_batch=256)
    replay: recipes.SequenceReplay = recipes.SequenceReplay(buffer_size=100_000, batch_size=64)
    loss: Loss = Loss()
    updates: recipes.Updates = recipes.Updates(updates_per_frame=0.5, start_frames=1000)
    optimising: recipes.Optimising = recipes.Optimising(lr=3e-4, max_grad_norm=10.0)
    recording: recipes.SeedsRecording = recipes.SeedsRecording()

    @property
    def make_env(self):
        """What builds an environment of the run, here or in another process."""
        networks = self.networks
        memory = recipes.Remembering(networks.memory, networks.memory_size, networks.window)
        return partial(recipes.make_env, self.environment, gamma=self.loss.gamma, networks=memory)


def make_network(settings: Networks, env, generator: torch.Generator) -> nn.Module:
    """Build the network: ``[*B, A]``, or ``[*B, A, atoms]`` where it gives distributions."""
    encoder, num_features = recipes.make_front(settings, env)  # convolutions for an image, None for a vector
    num_actions, activation = env.action_spec.n, ACTIVATIONS[settings.activation]
    num_outputs = settings.atoms if settings.distributional or settings.quantiles else None
    linear = partial(NoisyLinear, generator=generator) if settings.noisy else nn.Linear
    if settings.dueling:
        options = {"num_cells": settings.num_cells, "activation": activation, "linear": linear}
        return recipes.behind(encoder, DuelingMLP(num_features, num_actions, num_outputs=num_outputs, **options))
    *cells, last = settings.num_cells
    layers = [MLP(num_features, last, num_cells=cells, activation=activation), activation()]
    layers.append(MLP(last, num_actions * (num_outputs or 1), num_cells=(), linear=linear))
    layers += [nn.Unflatten(-1, (num_actions, num_outputs))] if num_outputs else []
    return recipes.behind(encoder, nn.Sequential(*layers))


def make_agent(settings: DQN) -> Agent:
    """Build every part of a run."""
    settings, in_sequences = recipes.with_sequences(settings, sums_rewards=True)  # the same settings without --memory
    networks, options = settings.networks, settings.loss
    names = ("environment", "weights", "noise", "exploration", "random", "replay", "memory")
    seeds = named_seeds(settings.recording.seed, *names)
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)
    recipes.require_choice(env)

    # The greedy actor and its loss, by what the network gives for each action.
    with recipes.initial_weights(seeds["weights"]):
        network = make_network(networks, env, torch.Generator().manual_seed(seeds["noise"]))
    of_actions = {"one_hot": isinstance(env.action_spec, OneHot), "mask_key": env.action_mask_key}
    of_actions |= {"in_keys": [recipes.seen_key(networks)]}  # what a memory remembers, or the observation
    targets = {"gamma": options.gamma, "double": options.double, **in_sequences}
    if networks.distributional:
        head = DistributionalQValueActor(network, low=networks.value_low, high=networks.value_high, **of_actions)
        kind = DistributionalDQNLoss
    elif networks.quantiles:
        head, kind = QuantileQValueActor(network, **of_actions), QuantileDQNLoss
    else:
        head, kind = QValueActor(network, **of_actions), DQNLoss
        targets["distance"] = options.loss_function
    with recipes.initial_weights(seeds["memory"]):
        actor = recipes.put_memory_before(networks, env, head)  # the head itself without --memory
    loss = kind(actor, **targets).to(find_device(settings.optimising.device))  # before the collector copies it

    # What explores: the noise inside the network, or ε around the actor.
    policy = actor
    if not networks.noisy:
        exploration, generator = settings.exploration, torch.Generator().manual_seed(seeds["exploration"])
        epsilon = {"start": exploration.eps_start, "end": exploration.eps_end}
        epsilon |= {"num_frames": exploration.annealing_frames, "mask_key": env.action_mask_key}
        policy = EGreedy(actor, recipes.row_spec(env), generator=generator, **epsilon)
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
    recipes.run("dqn", DQN, make_agent, flags)


if __name__ == "__main__":
    main()
