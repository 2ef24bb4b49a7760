"""Build the collector that a command's settings describe, in this process or in worker processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from torchrl.collectors import Collector, EpisodeCollector, MultiAsyncCollector, MultiSyncCollector, WarmUp
from torchrl.devices import find_device
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.recipes.parts import AsyncCollecting, Collecting, Command, Environment, EpisodeCollecting, ReplayCollecting
from torchrl.recipes.value_types import default_of


def make_collector(
    settings: Command, env: Env, policy: Callable, *, seed: int
) -> Collector | EpisodeCollector | MultiSyncCollector | MultiAsyncCollector:
    """Build the collector that a command's settings describe, in this process or in worker processes.

    >>> make_collector(settings, env, actor, seed=0).collect().shape
    torch.Size([2, 8])

    Args:
        settings: of the command.
        env: the environment, ``[num_envs]``. Workers make their own environments like it; then this one is closed.
        policy: the policy that acts, with its exploration.
        seed: of the environments; each has the same seed in workers as it would have in one process.

    Raises:
        ConfigError: devices that this machine lacks, or settings that do not fit each other.
    """
    collecting = settings.collecting
    num_episodes = collecting.episodes_per_batch if isinstance(collecting, EpisodeCollecting) else None
    is_async = isinstance(collecting, AsyncCollecting) and collecting.async_collection
    common = {"frames_per_batch": collecting.frames_per_batch, "total_frames": collecting.total_frames, "seed": seed}
    if collecting.num_workers and num_episodes is not None:
        hint = "Processes that step slow environments for this one: --env_workers."
        got = collecting.num_workers
        raise ConfigError(explain("--episodes_per_batch", expected="--num_workers=0 with it", got=got, hint=hint))
    if collecting.num_workers:
        devices = _devices(collecting, "one device, or one for each of the workers", (1, collecting.num_workers))
        share = _envs_per_worker(collecting, settings.environment)
        env.close()
        return (MultiAsyncCollector if is_async else MultiSyncCollector)(
            partial(settings.make_env, num_envs=share, training=True),
            policy,
            num_workers=collecting.num_workers,
            devices=devices * (collecting.num_workers // len(devices)),
            on_worker_failure=collecting.on_worker_failure,
            **common,
        )
    if is_async:
        hint = "Write --num_workers=2, or --no-async_collection for one process."
        raise ConfigError(explain("--async_collection", expected="--num_workers with it", got="none", hint=hint))
    if collecting.on_worker_failure != default_of(MultiSyncCollector, "on_worker_failure"):
        got = f"{collecting.on_worker_failure} without workers"
        raise ConfigError(explain("--on_worker_failure", expected="--num_workers with it", got=got))
    (device,) = _devices(collecting, "one device, for one collector", (1,))
    common["compile"] = settings.optimising.compile
    if num_episodes is not None:
        del common["frames_per_batch"]
        return EpisodeCollector(env, policy, num_episodes=num_episodes, device=device, **common)
    return Collector(env, policy, device=device, **common)


def warm_up(settings: ReplayCollecting, env: Env, policy: nn.Module, *, seed: int) -> nn.Module:
    """Wrap a policy to act at random for the first ``init_random_frames`` frames of a run, summed over all workers.

    >>> warm_up(ReplayCollecting(init_random_frames=100), env, actor, seed=0).frames
    100

    Args:
        settings: how many frames and workers.
        env: the environment, ``[num_envs]``.
        policy: acts afterwards.
        seed: of the random actions.
    """
    if not settings.init_random_frames:
        return policy
    num_workers = max(settings.num_workers, 1)
    return WarmUp(
        policy,
        env.action_spec[: env.batch_size[0] // num_workers],
        settings.init_random_frames // num_workers,
        mask_key=env.action_mask_key,
        generator=torch.Generator().manual_seed(seed),
    )


def num_trained(settings: Collecting) -> int:
    """Return how many frames a run collects and trains on: ``total_frames``, rounded up to whole batches.

    Batches of whole episodes have any number of frames: there it is ``total_frames``, which the last batch may exceed.
    """
    if isinstance(settings, EpisodeCollecting) and settings.episodes_per_batch is not None:
        return settings.total_frames
    return -(-settings.total_frames // settings.frames_per_batch) * settings.frames_per_batch


def _envs_per_worker(settings: Collecting, environment: Environment) -> int:
    if environment.num_envs % settings.num_workers:
        expected = f"a number that divides the {environment.num_envs} of --num_envs"
        raise ConfigError(explain("--num_workers", expected=expected, got=settings.num_workers))
    if environment.env_workers:
        expected = "0 with --num_workers, whose environments are in processes already"
        raise ConfigError(explain("--env_workers", expected=expected, got=environment.env_workers))
    return environment.num_envs // settings.num_workers


def _devices(settings: Collecting, expected: str, counts: tuple[int, ...]) -> list[torch.device]:
    if len(settings.collection_devices) not in counts:
        got = " ".join(settings.collection_devices)
        raise ConfigError(explain("--collection_devices", expected=expected, got=got))
    return [find_device(device) for device in settings.collection_devices]
