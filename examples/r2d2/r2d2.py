"""Recurrent deep Q-learning in the manner of R2D2 (Kapturowski et al., 2019), from flags and a config file.

    python examples/r2d2/r2d2.py --config=examples/r2d2/configs/repeat.txt
    python examples/r2d2/r2d2.py --config=examples/r2d2/configs/repeat.txt --memory=gru --no-zero_state --seed=1
    python examples/r2d2/r2d2.py --config=examples/r2d2/configs/repeat.txt --prb

What it shows: a network with memory on pieces of replay, whose first steps only warm its state up. Of the paper it
leaves out the many actors, each with an ε of its own, the rescaling of values, and last action and reward as inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from torchrl import recipes
from torchrl.agents import Agent, StepExploration
from torchrl.data.specs import OneHot
from torchrl.devices import find_device
from torchrl.envs import TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.errors import ConfigError, explain
from torchrl.modules import MLP, DuelingMLP, EGreedy, QValueActor, Sequence
from torchrl.objectives import DQNLoss
from torchrl.recipes.networks import ACTIVATIONS
from torchrl.recipes.settings import Fraction, NonNegativeInt, PositiveInt
from torchrl.seeding import named_seeds


@dataclass(frozen=True)
class Networks(recipes.Networks):
    """A memory of the episode, and behind it layers that value every action."""

    memory: Literal["gru", "lstm"] = "lstm"
    "what the network remembers its episode with, before the hidden layers"
    memory_size: PositiveInt = 64
    "units of the memory"
    dueling: bool = True
    "value of the state and advantages of the actions as two streams"


@dataclass(frozen=True)
class Exploration:
    """Random actions with probability ε."""

    eps_start: Fraction = 1.0
    "ε at the beginning; needs --exploration_type=random"
    eps_end: Fraction = 0.05
    "ε in the end; needs --exploration_type=random"
    annealing_frames: PositiveInt = 50_000
    "frames over which ε goes from the first to the second; needs --exploration_type=random"


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    gamma: Fraction = 0.99
    "discount of rewards"
    double: bool = True
    "the network in training chooses the next action, its target judges it"
    loss_function: Literal["l2", "l1", "smooth_l1"] = "smooth_l1"
    "distance between value and target"
    burn_in: NonNegativeInt = 8
    "first steps of each piece that only warm the state up; less than --sub_traj_len"
    zero_state: bool = True
    "begin every piece from the initial state; otherwise from the one at its first step, which is stored with each step"
    n_steps: PositiveInt = 3
    "rewards in a target, summed inside the piece"


@dataclass(frozen=True)
class R2D2:
    """Train a policy with memory by deep Q-learning on pieces of trajectories."""

    environment: recipes.Environment = recipes.Environment()
    networks: Networks = Networks(num_cells=(64,))
    exploration: Exploration = Exploration()
    collecting: recipes.ReplayCollecting = recipes.ReplayCollecting(frames_per_batch=256)
    replay: recipes.Replay = recipes.Replay(buffer_size=100_000, batch_size=512, sub_traj_len=32, across_episodes=True)
    loss: Loss = Loss()
    updates: recipes.Updates = recipes.Updates(updates_per_frame=0.03125, start_frames=2000)
    optimising: recipes.Optimising = recipes.Optimising(lr=1e-3, max_grad_norm=10.0)
    recording: recipes.Recording = recipes.Recording()

    def make_env(self, *, num_envs: int, **options):
        """Build an environment that carries the state of the memory from step to step, and resets it."""
        env = recipes.make_env(self.environment, num_envs=num_envs, gamma=self.loss.gamma, **options)
        return TransformedEnv(env, TensorDictPrimer(recipes.initial_memory(self.networks, ["memory"])))


def make_agent(settings: R2D2) -> Agent:
    """Build every part of a run."""
    networks, options, length = settings.networks, settings.loss, settings.replay.sub_traj_len
    if length is None or length <= options.burn_in:
        expected = f"more steps than the {options.burn_in} of --burn_in"
        raise ConfigError(explain("--sub_traj_len", expected=expected, got=length))
    seeds = named_seeds(settings.recording.seed, "environment", "weights", "exploration", "random", "replay")
    env = settings.make_env(num_envs=settings.environment.num_envs, training=True)
    recipes.require_choice(env)

    # The actor: what is seen (an image by convolutions), what is remembered of it, and the values of the actions.
    with recipes.initial_weights(seeds["weights"]):
        encode, remember = recipes.make_remembering(networks, env)
        layers = {"num_cells": networks.num_cells, "activation": ACTIVATIONS[networks.activation]}
        network = (DuelingMLP if networks.dueling else MLP)(networks.memory_size, env.action_spec.n, **layers)
    of_actions = {"one_hot": isinstance(env.action_spec, OneHot), "mask_key": env.action_mask_key}
    head = QValueActor(network, in_keys=["hidden"], **of_actions)
    actor = Sequence(encode, remember, head, out_keys=head.out_keys)
    loss = DQNLoss(
        actor,
        gamma=options.gamma,
        double=options.double,
        distance=options.loss_function,
        burn_in=options.burn_in,
        zero_state=options.zero_state,
        n_steps=options.n_steps,
    ).to(find_device(settings.optimising.device))  # the network with it, before the collector copies it

    exploration, generator = settings.exploration, torch.Generator().manual_seed(seeds["exploration"])
    epsilon = {"start": exploration.eps_start, "end": exploration.eps_end}
    epsilon |= {"num_frames": exploration.annealing_frames, "mask_key": env.action_mask_key}
    policy = EGreedy(actor, recipes.row_spec(env), generator=generator, **epsilon)
    policy = recipes.warm_up(settings.collecting, env, policy, seed=seeds["random"])

    collector = recipes.make_collector(settings, env, policy, seed=seeds["environment"])
    buffer = recipes.make_replay_buffer(settings, env, seed=seeds["replay"])
    updates = recipes.make_replay_updates(settings, loss, buffer, gamma=options.gamma)
    hooks = [StepExploration(), *recipes.make_hooks(settings, updates, buffer)]
    store = recipes.Store(settings.replay, buffer, loss, gamma=options.gamma)  # without states that the loss ignores
    pace = {"log_interval": settings.updates.log_interval, "keep_learning": settings.updates.keep_learning}
    return Agent(collector, updates, store=store, evaluator=recipes.make_evaluator(settings), hooks=hooks, **pace)


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    recipes.run("r2d2", R2D2, make_agent, flags)


if __name__ == "__main__":
    main()
