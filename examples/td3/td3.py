"""Twin delayed deterministic policy gradients, from flags and a config file.

    python examples/td3/td3.py --config=examples/td3/configs/pendulum.txt
    python examples/td3/td3.py --config=examples/td3/configs/halfcheetah.txt --num_workers=2 --num_envs=2

What it shows: what TD3 adds to DDPG: a second critic, noise on the target's action, a delayed actor.
"""

from __future__ import annotations

from argparse import Namespace

from torchrl.agents import Agent, StepExploration
from torchrl.devices import find_device
from torchrl.recipes import (
    add_deterministic_network_arguments,
    add_env_arguments,
    add_noise_arguments,
    add_off_policy_collector_arguments,
    add_optimise_arguments,
    add_record_arguments,
    add_replay_arguments,
    add_td3_arguments,
    add_update_arguments,
    make_action_noise,
    make_critics,
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
    make_td3_loss,
    run,
)
from torchrl.seeding import named_seeds


def make_td3_parser():
    """All flags of this example."""
    parser = make_parser("Train a policy by twin delayed deterministic policy gradients.")
    add_env_arguments(parser, env_name="Pendulum-v1", num_envs=1)
    add_deterministic_network_arguments(parser)
    add_noise_arguments(parser)
    add_off_policy_collector_arguments(parser, init_random_frames=10_000)
    add_replay_arguments(parser)
    add_td3_arguments(parser)
    add_update_arguments(parser, actor_interval=2, start_frames=10_000)
    add_optimise_arguments(parser, lr=1e-3, max_grad_norm=None)
    add_record_arguments(parser)
    return parser


def make_td3_agent(args: Namespace) -> Agent:
    """Build every part of a run."""
    names = ("environment", "actor", "critic", "target", "exploration", "random", "replay")
    seeds = named_seeds(args.seed, *names)

    env = make_env(args, num_envs=args.num_envs, training=True)
    actor = make_deterministic_actor(args, env, seed=seeds["actor"])
    critics = make_critics(args, env, 2, seed=seeds["critic"])
    loss = make_td3_loss(args, env, actor, critics, seed=seeds["target"]).to(find_device(args.device))
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
    run("td3", make_td3_parser(), make_td3_agent, flags)


if __name__ == "__main__":
    main()
