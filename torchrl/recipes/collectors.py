"""Collectors from flags."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial

import torch

from torchrl.collectors import Collector, MultiSyncCollector
from torchrl.devices import checked_device
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.recipes.config import ConfigParser, default_of, non_negative_int, positive_int
from torchrl.recipes.envs import make_env


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


def make_collector(args: Namespace, env: Env, policy: Callable, *, seed: int) -> Collector | MultiSyncCollector:
    """Build the collector of a run, in this process or over several.

    Args:
        args: the parsed flags.
        env: the environment, ``[num_envs]``. Workers make their own ones like it: then this one is closed.
        policy: what is trained.
        seed: of the environments; those of workers have the seeds that those of one process would have.

    Raises:
        ConfigError: devices that are not there, or counts that do not go together.
    """
    common = {"frames_per_batch": args.frames_per_batch, "total_frames": args.total_frames, "seed": seed}
    if args.num_workers:
        devices = _devices(args, "one device, or one for each of the workers", (1, args.num_workers))
        make = partial(make_env, args, num_envs=_share(args), training=True)
        env.close()
        return MultiSyncCollector(
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
    return [checked_device(device) for device in args.collection_devices]
