"""Proximal policy optimisation, from flags and a config file.

    python examples/ppo/ppo.py --config=examples/ppo/configs/cartpole.txt
    python examples/ppo/ppo.py --config=examples/ppo/configs/humanoid.txt --frame_skip=2
    python examples/ppo/ppo.py --evaluate=ppo_logging/CartPole-v1_2026-11-20_12-00-00
    python examples/ppo/ppo.py --resume=ppo_logging/CartPole-v1_2026-11-20_12-00-00 --total_frames=200000

What it shows: one recipe builds each part, in the order in which data flow through them, and an Agent runs them.
"""

from __future__ import annotations

from argparse import Namespace

import torch

from torchrl.agents import Agent
from torchrl.devices import find_device
from torchrl.recipes import (
    add_collector_arguments,
    add_env_arguments,
    add_minibatch_arguments,
    add_network_arguments,
    add_optimise_arguments,
    add_ppo_arguments,
    add_record_arguments,
    make_actor_critic,
    make_advantage,
    make_collector,
    make_env,
    make_evaluator,
    make_optimise,
    make_parser,
    make_ppo_loss,
    make_ppo_schedules,
    make_record_hooks,
    make_schedules,
    run,
)
from torchrl.seeding import named_seeds


def make_ppo_parser():
    """All flags of this example."""
    parser = make_parser("Train a policy by proximal policy optimisation.")
    add_env_arguments(parser)
    add_network_arguments(parser)
    add_collector_arguments(parser)
    add_ppo_arguments(parser)
    add_minibatch_arguments(parser)
    add_optimise_arguments(parser)
    add_record_arguments(parser)
    return parser


def make_ppo_agent(args: Namespace) -> Agent:
    """Build every part of a run."""
    seeds = named_seeds(args.seed, "environment", "policy", "weights", "minibatches")

    env = make_env(args, num_envs=args.num_envs, training=True)
    device = find_device(args.device)
    generator = torch.Generator().manual_seed(seeds["policy"])
    networks = make_actor_critic(args, env, seed=seeds["weights"], generator=generator)
    loss = make_ppo_loss(args, networks).to(device)  # first: it moves the networks, from which the collector copies
    collector = make_collector(args, env, networks.actor, seed=seeds["environment"])
    optimise = make_optimise(args, loss, seed=seeds["minibatches"])

    return Agent(
        collector,
        optimise,
        advantage=make_advantage(args, networks),
        evaluator=make_evaluator(args),
        hooks=[
            *make_ppo_schedules(args, loss),
            *make_schedules(args, optimise, networks.normalizer),
            *make_record_hooks(args),
        ],
    )


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    run("ppo", make_ppo_parser(), make_ppo_agent, flags)


if __name__ == "__main__":
    main()
