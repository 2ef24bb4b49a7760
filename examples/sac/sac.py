"""Soft actor-critic, from flags and a config file.

    python examples/sac/sac.py --config=examples/sac/configs/pendulum.txt
    python examples/sac/sac.py --config=examples/sac/configs/halfcheetah.txt
    python examples/sac/sac.py --config=examples/sac/configs/cartpole.txt

What it shows: an actor that explores by its own entropy, for vectors and choices, and a temperature that is learned.
"""

from __future__ import annotations

from argparse import Namespace

import torch

from torchrl.agents import Agent
from torchrl.devices import find_device
from torchrl.recipes import (
    add_env_arguments,
    add_off_policy_collector_arguments,
    add_optimise_arguments,
    add_record_arguments,
    add_replay_arguments,
    add_sac_arguments,
    add_stochastic_network_arguments,
    add_update_arguments,
    make_critics,
    make_env,
    make_evaluator,
    make_off_policy_collector,
    make_parser,
    make_record_hooks,
    make_replay_buffer,
    make_replay_hooks,
    make_replay_updates,
    make_sac_loss,
    make_schedules,
    make_state_value,
    make_stochastic_actor,
    make_store,
    run,
)
from torchrl.seeding import named_seeds


def make_sac_parser():
    """All flags of this example."""
    parser = make_parser("Train a policy by soft actor-critic.")
    add_env_arguments(parser, num_envs=1)
    add_stochastic_network_arguments(parser)
    add_off_policy_collector_arguments(parser, init_random_frames=100)
    add_replay_arguments(parser)
    add_sac_arguments(parser)
    add_update_arguments(parser, actor_interval=1, start_frames=100)
    add_optimise_arguments(parser, max_grad_norm=None)
    add_record_arguments(parser)
    return parser


def make_sac_agent(args: Namespace) -> Agent:
    """Build every part of a run."""
    seeds = named_seeds(args.seed, "environment", "policy", "actor", "critic", "value", "loss", "random", "replay")

    env = make_env(args, num_envs=args.num_envs, training=True)
    generator = torch.Generator().manual_seed(seeds["policy"])
    policy, actor = make_stochastic_actor(args, env, seed=seeds["actor"], generator=generator)
    critics = make_critics(args, env, args.num_q_values, seed=seeds["critic"])
    value = make_state_value(args, env, seed=seeds["value"]) if args.state_value else None
    loss = make_sac_loss(args, env, actor, critics, value, seed=seeds["loss"]).to(find_device(args.device))
    collector = make_off_policy_collector(args, env, policy, seed=seeds["environment"], random_seed=seeds["random"])
    buffer = make_replay_buffer(args, env, seed=seeds["replay"])
    updates = make_replay_updates(args, loss, buffer)

    return Agent(
        collector,
        updates,
        store=make_store(args, buffer, loss),
        evaluator=make_evaluator(args),
        hooks=[*make_schedules(args, updates), *make_replay_hooks(args, buffer), *make_record_hooks(args)],
        log_interval=args.log_interval,
        keep_learning=args.keep_learning,
    )


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    run("sac", make_sac_parser(), make_sac_agent, flags)


if __name__ == "__main__":
    main()
