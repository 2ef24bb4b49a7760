"""Advantage actor-critic, from flags and a config file.

    python examples/a2c/a2c.py --config=examples/a2c/configs/cartpole.txt
    python examples/a2c/a2c.py --config=examples/a2c/configs/pendulum.txt --seed=1
    python examples/a2c/a2c.py --evaluate=a2c_logging/CartPole-v1_2026-11-20_12-00-00

What it shows: one gradient step on each short batch. All parts but the loss and the step are those of PPO.
"""

from __future__ import annotations

from argparse import Namespace

import torch

from torchrl.agents import Agent
from torchrl.devices import find_device
from torchrl.recipes import (
    add_a2c_arguments,
    add_collector_arguments,
    add_env_arguments,
    add_network_arguments,
    add_optimise_arguments,
    add_record_arguments,
    make_a2c_loss,
    make_actor_critic,
    make_advantage,
    make_collector,
    make_env,
    make_evaluator,
    make_parser,
    make_record_hooks,
    make_schedules,
    make_single_step,
    run,
)
from torchrl.seeding import named_seeds


def make_a2c_parser():
    """All flags of this example."""
    parser = make_parser("Train a policy by advantage actor-critic.")
    add_env_arguments(parser)
    add_network_arguments(parser)
    add_collector_arguments(parser, frames_per_batch=40)
    add_a2c_arguments(parser)
    add_optimise_arguments(parser, optimizer="rmsprop", lr=7e-4)
    add_record_arguments(parser)
    return parser


def make_a2c_agent(args: Namespace) -> Agent:
    """Build every part of a run."""
    seeds = named_seeds(args.seed, "environment", "policy", "weights")

    env = make_env(args, num_envs=args.num_envs, training=True)
    generator = torch.Generator().manual_seed(seeds["policy"])
    networks = make_actor_critic(args, env, seed=seeds["weights"], generator=generator)
    loss = make_a2c_loss(args, networks).to(find_device(args.device))
    collector = make_collector(args, env, networks.actor, seed=seeds["environment"])
    optimise = make_single_step(args, loss)

    return Agent(
        collector,
        optimise,
        advantage=make_advantage(args, networks),
        evaluator=make_evaluator(args),
        hooks=[*make_schedules(args, optimise, networks.normalizer), *make_record_hooks(args)],
    )


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    run("a2c", make_a2c_parser(), make_a2c_agent, flags)


if __name__ == "__main__":
    main()
