"""Optimizers, the optimise step and their schedules from flags."""

from __future__ import annotations

from argparse import Namespace

import torch

from torchrl.agents import Anneal, FusedAdam, Hook, LinearSchedule, MinibatchEpochs, ReplayUpdates, UpdateNormalizer
from torchrl.modules import ObservationNormalizer
from torchrl.objectives import Loss
from torchrl.recipes.config import ConfigParser, default_of, non_negative_float, positive_float, positive_int

OPTIMIZERS = {
    "adam": FusedAdam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
EPSILON = (
    1e-5  # of those that divide by a running scale, as in the first implementations of PPO and A2C; torch's is 1e-8
)


def add_optimise_arguments(
    parser: ConfigParser, *, optimizer: str = "adam", lr: float = 3e-4, max_grad_norm: float | None = 0.5
) -> None:
    """Add the flags of optimizers and their schedules, which every algorithm has.

    Args:
        parser: gets a group of its own.
        optimizer: the algorithm's usual one.
        lr: its usual learning rate.
        max_grad_norm: its usual limit.
    """
    group = parser.add_argument_group("optimising")
    group.add_argument("--optimizer", choices=sorted(OPTIMIZERS), default=optimizer, help="kind of optimizer")
    group.add_argument("--lr", type=positive_float, default=lr, help="learning rate")
    group.add_argument(
        "--lr_schedule", choices=("constant", "linear"), default="constant", help="linear goes to 0 over the run"
    )
    group.add_argument("--weight_decay", type=non_negative_float, default=0.0, help="weight decay of the optimizer")
    group.add_argument(
        "--max_grad_norm",
        type=positive_float,
        default=max_grad_norm,
        or_none=True,
        help="scale gradients down to this joint norm; none leaves them",
    )
    group.add_argument(
        "--max_grad_value",
        type=positive_float,
        default=default_of(MinibatchEpochs, "max_grad_value"),
        help="clip each entry of the gradients; needs --max_grad_norm=none",
    )
    group.add_argument("--device", default="cpu", help="device of the learner")
    group.add_argument(
        "--num_threads", type=positive_int, default=1, help="threads of torch; one is fastest for small networks"
    )
    group.add_switch(
        "--compile",
        default=default_of(MinibatchEpochs, "compile"),
        help="compile the update, some seconds at the start",
    )


def add_minibatch_arguments(parser: ConfigParser) -> None:
    """Add the flags about minibatches, which :func:`make_optimise` reads beside those of the optimizer."""
    group = parser.add_argument_group("minibatches")
    group.add_argument("--num_epochs", type=positive_int, default=10, help="passes over each batch")
    group.add_argument("--minibatch_size", type=positive_int, default=256, help="frames per gradient step")
    group.add_argument(
        "--target_kl",
        type=positive_float,
        default=default_of(MinibatchEpochs, "target_kl"),
        help="leave a batch after an epoch whose mean approx_kl exceeds this (others: before a step, at 1.5 of it)",
    )


def make_optimise(args: Namespace, loss: Loss, *, seed: int) -> MinibatchEpochs:
    """Build the optimizer and the step that takes minibatches of a batch, several times over.

    Args:
        args: the parsed flags.
        loss: what is minimised.
        seed: of the minibatches' permutations.
    """
    return MinibatchEpochs(
        loss,
        make_optimizer(args, loss),
        num_epochs=args.num_epochs,
        minibatch_size=min(args.minibatch_size, args.frames_per_batch),
        max_grad_norm=args.max_grad_norm,
        max_grad_value=args.max_grad_value,
        generator=torch.Generator().manual_seed(seed),
        compile=args.compile,
        target_kl=args.target_kl,
    )


def make_single_step(args: Namespace, loss: Loss) -> MinibatchEpochs:
    """Build the optimizer and the one gradient step that an algorithm takes on each batch as a whole."""
    return MinibatchEpochs(
        loss,
        make_optimizer(args, loss),
        num_epochs=1,
        minibatch_size=args.frames_per_batch,
        max_grad_norm=args.max_grad_norm,
        max_grad_value=args.max_grad_value,
        generator=torch.Generator(),
        compile=args.compile,
    )


def make_optimizer(args: Namespace, loss: Loss, *, eps: float = EPSILON) -> torch.optim.Optimizer:
    """Build the optimizer of a loss's trainable parameters.

    Args:
        args: the parsed flags.
        loss: what is minimised.
        eps: of optimizers that divide by a running scale.
    """
    options: dict = {"lr": args.lr, "weight_decay": args.weight_decay}
    if args.optimizer != "sgd":
        options["eps"] = eps
    return OPTIMIZERS[args.optimizer](loss.trainable_parameters(), **options)


def make_schedules(
    args: Namespace, optimise: MinibatchEpochs | ReplayUpdates, normalizer: ObservationNormalizer | None = None
) -> list[Hook]:
    """Build the hooks that change the learning rate and the normaliser in the course of a run."""
    hooks: list[Hook] = []
    if args.lr_schedule == "linear":
        hooks.append(Anneal(optimise.optimizer, "lr", LinearSchedule(args.lr, 0.0, args.total_frames)))
    if normalizer is not None:
        hooks.append(UpdateNormalizer(normalizer))
    return hooks
