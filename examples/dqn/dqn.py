"""Deep Q-learning, from flags and a config file; with all its switches on, Rainbow.

    python examples/dqn/dqn.py --config=examples/dqn/configs/cartpole.txt
    python examples/dqn/dqn.py --config=examples/dqn/configs/cartpole.txt --prb --dueling --multi_step
    python examples/dqn/dqn.py --config=examples/dqn/configs/lunarlander.txt --seed=1

What it shows: a greedy actor inside what explores, a buffer between collecting and learning, and a target network.
"""

from __future__ import annotations

from argparse import Namespace

import torch

from torchrl.agents import Agent, StepExploration
from torchrl.devices import find_device
from torchrl.recipes import (
    add_dqn_arguments,
    add_egreedy_arguments,
    add_env_arguments,
    add_off_policy_collector_arguments,
    add_optimise_arguments,
    add_q_network_arguments,
    add_record_arguments,
    add_replay_arguments,
    add_update_arguments,
    make_dqn_loss,
    make_egreedy,
    make_env,
    make_evaluator,
    make_off_policy_collector,
    make_parser,
    make_q_actor,
    make_record_hooks,
    make_replay_buffer,
    make_replay_hooks,
    make_replay_updates,
    make_schedules,
    make_store,
    run,
)
from torchrl.seeding import named_seeds


def make_dqn_parser():
    """All flags of this example."""
    parser = make_parser("Train a policy by deep Q-learning.")
    add_env_arguments(parser)
    add_q_network_arguments(parser)
    add_egreedy_arguments(parser)
    add_off_policy_collector_arguments(parser, frames_per_batch=256)
    add_replay_arguments(parser, buffer_size=100_000, batch_size=64)
    add_dqn_arguments(parser)
    add_update_arguments(parser, updates_per_frame=0.5, start_frames=1000)
    add_optimise_arguments(parser, max_grad_norm=10.0)
    add_record_arguments(parser)
    return parser


def make_dqn_agent(args: Namespace) -> Agent:
    """Build every part of a run."""
    seeds = named_seeds(args.seed, "environment", "weights", "noise", "exploration", "random", "replay")

    env = make_env(args, num_envs=args.num_envs, training=True)
    generator = torch.Generator().manual_seed(seeds["noise"])
    actor = make_q_actor(args, env, seed=seeds["weights"], generator=generator)
    loss = make_dqn_loss(args, actor).to(find_device(args.device))
    policy = make_egreedy(args, env, actor, seed=seeds["exploration"])
    collector = make_off_policy_collector(args, env, policy, seed=seeds["environment"], random_seed=seeds["random"])
    buffer = make_replay_buffer(args, env, seed=seeds["replay"])
    updates = make_replay_updates(args, loss, buffer)

    return Agent(
        collector,
        updates,
        store=make_store(args, buffer, loss),
        evaluator=make_evaluator(args),
        hooks=[
            StepExploration(),
            *make_schedules(args, updates),
            *make_replay_hooks(args, buffer),
            *make_record_hooks(args),
        ],
        log_interval=args.log_interval,
        keep_learning=args.keep_learning,
    )


def main(flags: list[str] | None = None) -> None:
    """Train, or evaluate a saved run, and report."""
    run("dqn", make_dqn_parser(), make_dqn_agent, flags)


if __name__ == "__main__":
    main()
