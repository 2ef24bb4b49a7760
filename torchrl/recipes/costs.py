"""Advantages and losses from flags, one set of flags per algorithm."""

from __future__ import annotations

from argparse import Namespace

from torchrl.agents import AdaptPenalty, Anneal, Hook, LinearSchedule
from torchrl.objectives import (
    GAE,
    A2CLoss,
    ClipPPOLoss,
    DiscountedReturn,
    KLPenaltyPPOLoss,
    Loss,
    PPOLoss,
    ReinforceLoss,
    ReturnEstimator,
)
from torchrl.recipes.config import (
    ConfigParser,
    FlagGroup,
    default_of,
    fraction,
    margin,
    non_negative_float,
    positive_float,
)
from torchrl.recipes.networks import ActorCritic

PPO_LOSSES = {"clip": ClipPPOLoss, "kl_penalty": KLPenaltyPPOLoss, "plain": PPOLoss}


def add_ppo_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_advantage`, :func:`make_ppo_loss` and :func:`make_ppo_schedules` read."""
    group = _add_loss_arguments(parser, ClipPPOLoss)
    _add_lambda(group)
    group.add_argument(
        "--objective",
        choices=sorted(PPO_LOSSES),
        default="clip",
        help="keep near the acting policy by a clipped ratio, an adaptive penalty on the divergence, or not at all",
    )
    group.add_argument(
        "--clip_epsilon",
        type=margin,
        default=default_of(ClipPPOLoss, "clip_epsilon"),
        help="how far the probability ratio may move from 1 before it gains nothing (objective clip)",
    )
    group.add_argument(
        "--clip_schedule", choices=("constant", "linear"), default="constant", help="linear takes clip_epsilon to 0"
    )
    group.add_argument(
        "--kl_target",
        type=positive_float,
        default=default_of(KLPenaltyPPOLoss, "kl_target"),
        help="divergence in nats that the penalty adapts to (objective kl_penalty)",
    )
    group.add_argument(
        "--value_clip",
        type=positive_float,
        default=default_of(ClipPPOLoss, "value_clip"),
        help="how far a value may move from the collected one before it gains nothing; none clips nothing",
    )


def add_a2c_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_advantage` and :func:`make_a2c_loss` read."""
    _add_lambda(_add_loss_arguments(parser, A2CLoss), default=1.0)


def add_reinforce_arguments(parser: ConfigParser) -> None:
    """Add the flags that :func:`make_returns` and :func:`make_reinforce_loss` read."""
    group = _add_loss_arguments(parser, ReinforceLoss)
    group.add_switch(
        "--baseline",
        default=True,
        help="subtract a learned value from the returns; without it, episodes that a batch cuts are left out",
    )


def make_advantage(args: Namespace, networks: ActorCritic) -> GAE:
    """Build the estimator of advantages."""
    return GAE(networks.critic, gamma=args.gamma, lambda_=args.gae_lambda)


def make_returns(args: Namespace, networks: ActorCritic) -> ReturnEstimator:
    """Build the estimator of whole returns, less the baseline if there is one."""
    return DiscountedReturn(networks.critic if args.baseline else None, gamma=args.gamma)


def make_ppo_loss(args: Namespace, networks: ActorCritic) -> Loss:
    """Build the loss of PPO, in one of its forms."""
    options = _common(args) | {"value_clip": args.value_clip}
    if args.objective == "clip":
        options["clip_epsilon"] = args.clip_epsilon
    elif args.objective == "kl_penalty":
        options["kl_target"] = args.kl_target
    return PPO_LOSSES[args.objective](networks.actor, networks.critic, **options)


def make_a2c_loss(args: Namespace, networks: ActorCritic) -> A2CLoss:
    """Build the loss of A2C."""
    return A2CLoss(networks.actor, networks.critic, **_common(args))


def make_reinforce_loss(args: Namespace, networks: ActorCritic) -> ReinforceLoss:
    """Build the loss of REINFORCE, with the critic as its baseline or without one."""
    return ReinforceLoss(networks.actor, networks.critic if args.baseline else None, **_common(args))


def make_ppo_schedules(args: Namespace, loss: Loss) -> list[Hook]:
    """Build the hooks that change the loss in the course of a run."""
    if args.objective == "kl_penalty":
        return [AdaptPenalty(loss)]
    if args.objective == "clip" and args.clip_schedule == "linear":
        return [Anneal(loss, "clip_epsilon", LinearSchedule(args.clip_epsilon, 0.0, args.total_frames))]
    return []


def _add_loss_arguments(parser: ConfigParser, loss: type[Loss]) -> FlagGroup:
    group = parser.add_argument_group("loss")
    group.add_argument("--gamma", type=fraction, default=default_of(GAE, "gamma"), help="discount of rewards")
    group.add_argument(
        "--entropy_coef",
        type=non_negative_float,
        default=default_of(loss, "entropy_coef"),
        help="weight of the entropy bonus",
    )
    group.add_argument(
        "--critic_coef",
        type=non_negative_float,
        default=default_of(loss, "critic_coef"),
        help="weight of the value loss",
    )
    group.add_argument(
        "--loss_function",
        choices=("l2", "l1", "smooth_l1"),
        default=default_of(loss, "critic_distance"),
        help="distance of the value loss",
    )
    group.add_switch(
        "--normalize_advantage",
        default=default_of(loss, "normalize_advantage"),
        help="shift and scale the advantages of each gradient step",
    )
    return group


def _add_lambda(group: FlagGroup, default: float | None = None) -> None:
    group.add_argument(
        "--gae_lambda",
        type=fraction,
        default=default_of(GAE, "lambda_") if default is None else default,
        help="decay of the advantages' trace",
    )


def _common(args: Namespace) -> dict:
    return {
        "entropy_coef": args.entropy_coef,
        "critic_coef": args.critic_coef,
        "normalize_advantage": args.normalize_advantage,
        "critic_distance": args.loss_function,
    }
