"""Collectors from flags."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from torchrl.collectors import Collector, MultiAsyncCollector, MultiSyncCollector, WarmUp
from torchrl.devices import find_device
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.modules import ExplorationType
from torchrl.recipes.config import ConfigParser, default_of, non_negative_int, positive_int
from torchrl.recipes.envs import make_env

EXPLORATION_TYPES = (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC, ExplorationType.MEAN)


def add_collector_arguments(parser: ConfigParser, *, frames_per_batch: int = 2048) -> None:
    """Add the flags that :func:`make_collector` reads.

    Args:
        parser: gets a group of its own.
        frames_per_batch: the algorithm's usual size.
    """
    group = parser.add_argument_group("collecting")
    group.add_argument(
        "--frames_per_batch",
        type=positive_int,
        default=frames_per_batch,
        help="frames of one batch, over all environments",
    )
    group.add_argument(
        "--total_frames",
        type=positive_int,
        default=1_000_000,
        help="frames of the whole run, rounded up to whole batches",
    )
    group.add_argument(
        "--num_workers",
        type=non_negative_int,
        default=0,
        help="processes that collect, each with its share of the environments; 0 collects in this process",
    )
    group.add_argument(
        "--on_worker_failure",
        choices=("raise", "restart"),
        default=default_of(MultiSyncCollector, "on_worker_failure"),
        help="what to do where such a process dies; restart drops its part of the batch",
    )
    group.add_argument(
        "--collection_devices",
        nargs="+",
        default=["cpu"],
        help="device on which the policy acts while collecting, or one for each worker",
    )
    group.add_argument(
        "--exploration_type",
        choices=[kind.name.lower() for kind in EXPLORATION_TYPES],
        default=ExplorationType.RANDOM.name.lower(),
        help="how actions are chosen while collecting: drawn, or without chance (but --noisy layers keep theirs)",
    )


def add_off_policy_collector_arguments(
    parser: ConfigParser, *, frames_per_batch: int = 1, init_random_frames: int = 0
) -> None:
    """Add the flags that :func:`make_off_policy_collector` reads.

    Args:
        parser: gets a group of its own.
        frames_per_batch: the algorithm's usual size.
        init_random_frames: the algorithm's usual number.
    """
    add_collector_arguments(parser, frames_per_batch=frames_per_batch)
    group = parser.add_argument_group("collecting for replay")
    group.add_argument(
        "--init_random_frames",
        type=non_negative_int,
        default=init_random_frames,
        help="frames at the start with actions drawn uniformly",
    )
    group.add_switch(
        "--async_collection",
        default=False,
        help="let workers go on while the learner trains; every batch is one worker's",
    )


def make_off_policy_collector(
    args: Namespace, env: Env, policy: nn.Module, *, seed: int, random_seed: int
) -> Collector | MultiSyncCollector | MultiAsyncCollector:
    """Build the collector of a run with a replay buffer.

    Args:
        args: the parsed flags.
        env: the environment, ``[num_envs]``; see :func:`make_collector`.
        policy: what is trained, inside what explores.
        seed: of the environments.
        random_seed: of the random actions at the start.

    Raises:
        ConfigError: flags that do not go together.
    """
    if args.async_collection and not args.num_workers:
        raise ConfigError(explain("--async_collection", expected="--num_workers with it", got="none"))
    if args.init_random_frames:
        workers = max(args.num_workers, 1)
        policy = WarmUp(
            policy,
            env.action_spec[: env.batch_size[0] // workers],
            args.init_random_frames // workers,
            mask_key=env.action_mask_key,
            generator=torch.Generator().manual_seed(random_seed),
        )
    kind = MultiAsyncCollector if args.async_collection else MultiSyncCollector
    return make_collector(args, env, policy, seed=seed, kind=kind)


def make_collector(
    args: Namespace,
    env: Env,
    policy: Callable,
    *,
    seed: int,
    kind: type[MultiSyncCollector | MultiAsyncCollector] = MultiSyncCollector,
) -> Collector | MultiSyncCollector | MultiAsyncCollector:
    """Build the collector of a run, in this process or over several.

    Args:
        args: the parsed flags.
        env: the environment, ``[num_envs]``. Workers make their own ones like it: then this one is closed.
        policy: what is trained.
        seed: of the environments; those of workers have the seeds that those of one process would have.
        kind: of the collector over several processes.

    Raises:
        ConfigError: devices that are not there, or counts that do not go together.
    """
    common = {"frames_per_batch": args.frames_per_batch, "total_frames": args.total_frames, "seed": seed}
    if args.num_workers:
        devices = _devices(args, "one device, or one for each of the workers", (1, args.num_workers))
        make = partial(make_env, args, num_envs=_share(args), training=True)
        env.close()
        return kind(
            make,
            policy,
            num_workers=args.num_workers,
            devices=devices * (args.num_workers // len(devices)),
            on_worker_failure=args.on_worker_failure,
            **common,
        )
    if args.on_worker_failure != default_of(MultiSyncCollector, "on_worker_failure"):
        got = f"{args.on_worker_failure} without workers"
        raise ConfigError(explain("--on_worker_failure", expected="--num_workers with it", got=got))
    (device,) = _devices(args, "one device, for one collector", (1,))
    return Collector(env, policy, device=device, **common)


def _share(args: Namespace) -> int:
    """Return the number of environments of each worker."""
    if args.num_envs % args.num_workers:
        expected = f"a number that divides the {args.num_envs} of --num_envs"
        raise ConfigError(explain("--num_workers", expected=expected, got=args.num_workers))
    if args.env_workers:
        expected = "0 with --num_workers, whose environments are in processes already"
        raise ConfigError(explain("--env_workers", expected=expected, got=args.env_workers))
    return args.num_envs // args.num_workers


def _devices(args: Namespace, expected: str, counts: tuple[int, ...]) -> list[torch.device]:
    if len(args.collection_devices) not in counts:
        got = " ".join(args.collection_devices)
        raise ConfigError(explain("--collection_devices", expected=expected, got=got))
    return [find_device(device) for device in args.collection_devices]
