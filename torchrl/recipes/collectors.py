"""Collectors from flags."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from torchrl.collectors import Collector
from torchrl.devices import checked_device
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.recipes.config import ConfigParser, positive_int


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
        "--collection_devices", nargs="+", default=["cpu"], help="device on which the policy acts while collecting"
    )


def make_collector(args: Namespace, env: Env, policy: Callable, *, seed: int) -> Collector:
    """Build the collector of a run in one process.

    Args:
        args: the parsed flags.
        env: the environment, ``[num_envs]``.
        policy: what is trained.
        seed: of the environments.

    Raises:
        ConfigError: more than one device, or one that is not there.
    """
    if len(args.collection_devices) != 1:
        got = " ".join(args.collection_devices)
        raise ConfigError(explain("--collection_devices", expected="one device, for one collector", got=got))
    return Collector(
        env,
        policy,
        frames_per_batch=args.frames_per_batch,
        total_frames=args.total_frames,
        device=checked_device(args.collection_devices[0]),
        seed=seed,
    )
