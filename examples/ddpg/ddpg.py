"""Deep deterministic policy gradients, from flags and a config file.

    python examples/ddpg/ddpg.py --config=examples/ddpg/configs/pendulum.txt
    python examples/ddpg/ddpg.py --config=examples/ddpg/configs/pendulum.txt --ou_exploration --noise_start=1
    python examples/ddpg/ddpg.py --config=examples/ddpg/configs/halfcheetah.txt

What it shows: the smallest off-policy actor-critic: an actor without chance inside noise, and one critic.
"""

from __future__ import annotations

from argparse import Namespace

from torchrl.agents import Agent, StepExploration
from torchrl.devices import find_device
from torchrl.recipes import (
    add_ddpg_arguments,
    add_deterministic_network_arguments,
    add_env_arguments,
    add_noise_arguments,
    add_off_policy_collector_arguments,
    add_optimise_arguments,
    add_record_arguments,
    add_replay_arguments,
    add_update_arguments,
    make_action_noise,
    make_critics,
    make_ddpg_loss,
    make_deterministic_actor,
    make_env,
    make_evaluator,
    make_off_policy_collector,
    make_parser,
    make_record_hooks,
    make_replay_buffer,
    make_replay_hooks,
    make_replay_updates,
    make_schedules,
    make_store,
    run,
)
from torchrl.seeding import named_seeds


def make_ddpg_parser():
    """All flags of this example."""
    parser = make_parser("Train a policy by deep deterministic policy gradients.")
    add_env_arguments(parser, env_name="Pendulum-v1", num_envs=1)
    add_deterministic_network_arguments(parser)
    add_noise_arguments(parser)
    add_off_policy_collector_arguments(parser, init_random_frames=10_000)
    add_replay_arguments(parser)
    add_ddpg_arguments(parser)
    add_update_arguments(parser, start_frames=10_000)
    add_optimise_arguments(parser, lr=1e-3, max_grad_norm=None)
    add_record_arguments(parser)
    return parser


def make_ddpg_agent(args: Namespace) -> Agent:
    """Build every part of a run."""
    seeds = named_seeds(args.seed, "environment", "actor", "critic", "exploration", "random", "replay")

    env = make_env(args, num_envs=args.num_envs, training=True)
    actor = make_deterministic_actor(args, env, seed=seeds["actor"])
    critic = make_critics(args, env, 1, seed=seeds["critic"])
    loss = make_ddpg_loss(args, actor, critic).to(find_device(args.device))
    policy = make_action_noise(args, env, actor, seed=seeds["exploration"])
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
    run("ddpg", make_ddpg_parser(), make_ddpg_agent, flags)


if __name__ == "__main__":
    main()
