"""Advantages and losses from flags."""

from __future__ import annotations

from argparse import Namespace

from torchrl.objectives import GAE, ClipPPOLoss
from torchrl.recipes.config import ConfigParser, default_of, fraction, non_negative_float, positive_float
from torchrl.recipes.networks import ActorCritic


def add_ppo_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_advantage` and :func:`make_ppo_loss` read."""
    group = parser.add_argument_group("loss")
    group.add_argument("--gamma", type=fraction, default=default_of(GAE, "gamma"), help="discount of rewards")
    group.add_argument(
        "--gae_lambda", type=fraction, default=default_of(GAE, "lambda_"), help="decay of the advantages' trace"
    )
    group.add_argument(
        "--clip_epsilon",
        type=positive_float,
        default=default_of(ClipPPOLoss, "clip_epsilon"),
        help="how far the probability ratio may move from 1 before it gains nothing",
    )
    group.add_argument(
        "--clip_schedule", choices=("constant", "linear"), default="constant", help="linear goes to 0 over the run"
    )
    group.add_argument(
        "--entropy_coef",
        type=non_negative_float,
        default=default_of(ClipPPOLoss, "entropy_coef"),
        help="weight of the entropy bonus",
    )
    group.add_argument(
        "--critic_coef",
        type=non_negative_float,
        default=default_of(ClipPPOLoss, "critic_coef"),
        help="weight of the value loss",
    )
    group.add_argument(
        "--value_clip",
        type=positive_float,
        default=default_of(ClipPPOLoss, "value_clip"),
        help="how far a value may move from the collected one before it gains nothing; none clips nothing",
    )
    group.add_argument(
        "--loss_function",
        choices=("l2", "l1", "smooth_l1"),
        default=default_of(ClipPPOLoss, "critic_distance"),
        help="distance of the value loss",
    )
    group.add_switch(
        "--normalize_advantage",
        default=default_of(ClipPPOLoss, "normalize_advantage"),
        help="shift and scale the advantages of each minibatch",
    )


def make_advantage(args: Namespace, networks: ActorCritic) -> GAE:
    """Build the estimator of advantages."""
    return GAE(networks.critic, gamma=args.gamma, lambda_=args.gae_lambda)


def make_ppo_loss(args: Namespace, networks: ActorCritic) -> ClipPPOLoss:
    """Build the loss of PPO."""
    return ClipPPOLoss(
        networks.actor,
        networks.critic,
        clip_epsilon=args.clip_epsilon,
        entropy_coef=args.entropy_coef,
        critic_coef=args.critic_coef,
        normalize_advantage=args.normalize_advantage,
        value_clip=args.value_clip,
        critic_distance=args.loss_function,
    )
