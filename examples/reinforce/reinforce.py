"""REINFORCE with or without a baseline, from flags and a config file.

    python examples/reinforce/reinforce.py --config=examples/reinforce/configs/cartpole.txt
    python examples/reinforce/reinforce.py --config=examples/reinforce/configs/cartpole.txt --no-baseline

What it shows: the oldest policy gradient, from whole returns. All other parts are those of the other algorithms.
"""

from __future__ import annotations

from argparse import Namespace

import torch

from torchrl.agents import Agent
from torchrl.devices import find_device
from torchrl.recipes import (
    add_collector_arguments,
    add_env_arguments,
    add_network_arguments,
    add_optimise_arguments,
    add_record_arguments,
    add_reinforce_arguments,
    make_actor_critic,
    make_collector,
    make_env,
    make_evaluator,
    make_parser,
    make_record_hooks,
    make_reinforce_loss,
    make_returns,
    make_schedules,
    make_single_step,
    run,
)
from torchrl.seeding import named_seeds


def make_reinforce_parser():
    """All flags of this example."""
    parser = make_parser("Train a policy by REINFORCE.")
    add_env_arguments(parser)
    add_network_arguments(parser)
    add_collector_arguments(parser, frames_per_batch=4096)
    add_reinforce_arguments(parser)
    add_optimise_arguments(parser, lr=3e-3)
    add_record_arguments(parser)
    return parser


def make_reinforce_agent(args: Namespace) -> Agent:
    """Build every part of a run."""
    seeds = named_seeds(args.seed, "environment", "policy", "weights")

    env = make_env(args, num_envs=args.num_envs, training=True)
    generator = torch.Generator().manual_seed(seeds["policy"])
    networks = make_actor_critic(args, env, seed=seeds["weights"], generator=generator)
    loss = make_reinforce_loss(args, networks).to(find_device(args.device))
    collector = make_collector(args, env, networks.actor, seed=seeds["environment"])
    optimise = make_single_step(args, loss)

    return Agent(
        collector,
        optimise,
        advantage=make_returns(args, networks),
        evaluator=make_evaluator(args),
        hooks=[*make_schedules(args, optimise, networks.normalizer), *make_record_hooks(args)],
    )


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    run("reinforce", make_reinforce_parser(), make_reinforce_agent, flags)


if __name__ == "__main__":
    main()
