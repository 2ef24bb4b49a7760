"""Replay buffers, what they are filled with, and the gradient steps on their samples, from flags."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.utils import unravel_key

from torchrl.agents import Hook, ReplayUpdates, RewardScale, SaveBuffer
from torchrl.data import MultiStepStream
from torchrl.data.replay import (
    MemmapStorage,
    PrioritizedSampler,
    PrioritizedSliceSampler,
    ReplayBuffer,
    SliceSampler,
    StackedFrames,
    TensorStorage,
    UniformSampler,
)
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.modules.operator import read
from torchrl.objectives import HardUpdate, Loss, SoftUpdate
from torchrl.objectives.keys import MASK, TRAJ_IDS
from torchrl.recipes.agents import make_optimizer
from torchrl.recipes.config import (
    ConfigParser,
    default_of,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    share,
)
from torchrl.recipes.observations import num_stacked, sees_images

ADAM_EPSILON = 1e-8  # as in Adam's paper and the first implementations of these algorithms


def add_replay_arguments(parser: ConfigParser, *, buffer_size: int = 1_000_000, batch_size: int = 256) -> None:
    """Add the flags that :func:`make_replay_buffer` reads.

    Args:
        parser: gets a group of its own.
        buffer_size: the algorithm's usual capacity.
        batch_size: its usual size of a sample.
    """
    group = parser.add_argument_group("replay")
    group.add_argument("--buffer_size", type=positive_int, default=buffer_size, help="frames that are kept")
    group.add_argument("--batch_size", type=positive_int, default=batch_size, help="frames of a gradient step")
    group.add_switch(
        "--save_buffer", default=False, help="save them with the checkpoints; without them --resume collects anew first"
    )
    group.add_argument("--buffer_folder", help="keep them in memory-mapped files in this new folder; --resume opens it")
    group.add_switch("--prb", default=False, help="sample in proportion to the last error (prioritised replay)")
    group.add_argument(
        "--prb_alpha",
        type=non_negative_float,
        default=default_of(PrioritizedSampler, "alpha"),
        help="how much priorities matter; needs --prb",
    )
    group.add_argument(
        "--prb_beta",
        type=fraction,
        default=default_of(PrioritizedSampler, "beta"),
        help="how much of the bias weights undo at the start; 1 at the end of the run; needs --prb",
    )
    group.add_argument(
        "--sub_traj_len", type=positive_int, help="sample pieces of trajectories of this length; none samples frames"
    )
    group.add_switch("--multi_step", default=False, help="store sums of several rewards, and what comes after them")
    group.add_argument(
        "--n_steps_return", type=positive_int, default=3, help="rewards of such a sum; needs --multi_step"
    )
    group.add_argument(
        "--selected_keys",
        nargs="*",
        default=[],
        help="entries that are stored beside those that the loss reads, such as next/episode_return",
    )
    group.add_switch("--pin_memory", default=False, help="put samples where a GPU takes them without waiting")
    group.add_argument(
        "--prefetch", type=non_negative_int, default=default_of(ReplayBuffer, "prefetch"), help="samples made ahead"
    )


def add_update_arguments(
    parser: ConfigParser, *, updates_per_frame: float = 1.0, actor_interval: int | None = None, start_frames: int = 0
) -> None:
    """Add the flags that :func:`make_replay_updates` reads beside those of the optimizer.

    Args:
        parser: gets a group of its own.
        updates_per_frame: the algorithm's usual ratio.
        actor_interval: its usual delay of the actor; None where there is no actor to delay.
        start_frames: its usual start.
    """
    group = parser.add_argument_group("updates")
    group.add_argument(
        "--updates_per_frame", type=positive_float, default=updates_per_frame, help="gradient steps for each frame"
    )
    group.add_argument(
        "--start_frames", type=non_negative_int, default=start_frames, help="frames before the first gradient step"
    )
    if actor_interval is not None:
        group.add_argument(
            "--actor_interval", type=positive_int, default=actor_interval, help="gradient steps for one of the actor"
        )
    group.add_switch("--hard_update", default=False, help="copy the networks into their targets, instead of --tau")
    group.add_argument(
        "--target_update_interval",
        type=positive_int,
        default=default_of(HardUpdate, "interval"),
        help="gradient steps from one copy to the next; needs --hard_update",
    )
    group.add_argument(
        "--tau", type=share, default=default_of(SoftUpdate, "tau"), help="share of the way that targets follow"
    )
    group.add_switch(
        "--normalize_rewards_online",
        default=False,
        help="divide sampled rewards by the running std of the discounted return",
    )
    group.add_switch(
        "--keep_learning",
        default=False,
        help="take more gradient steps while workers collect: learn as fast as possible; needs --num_workers",
    )
    group.add_argument(
        "--log_interval", type=positive_int, default=1000, help="frames from one line of the log to the next"
    )


def make_replay_buffer(args: Namespace, env: Env, *, seed: int) -> ReplayBuffer:
    """Build the buffer of a run.

    Stacked images are stored once each, in memory; not in files, and not with ``--multi_step``, whose next
    observation is that of a later step.

    Args:
        args: the parsed flags.
        env: says what is observed.
        seed: of what is drawn.

    Raises:
        ConfigError: flags that do not go together.
    """
    if args.multi_step and args.sub_traj_len is not None:
        hint = "Sums of rewards are no steps of a trajectory any more."
        raise ConfigError(
            explain("--sub_traj_len", expected="none with --multi_step", got=args.sub_traj_len, hint=hint)
        )
    if args.sub_traj_len is not None and args.batch_size % args.sub_traj_len:
        expected = f"a number that divides the {args.batch_size} of --batch_size"
        raise ConfigError(explain("--sub_traj_len", expected=expected, got=args.sub_traj_len))
    pins = args.pin_memory and not args.evaluate
    if pins and not torch.cuda.is_available():
        raise ConfigError(explain("--pin_memory", expected="a CUDA device to pin for", got="none"))
    if args.buffer_folder is None or args.evaluate:
        num_frames = num_stacked(args, is_image=sees_images(env))
        is_stored_once = sees_images(env) and not args.multi_step
        frames = [StackedFrames("observation", num_frames=num_frames)] if is_stored_once else []
        storage = TensorStorage(args.buffer_size, frames=frames)
    elif args.resume:
        storage = MemmapStorage.open(args.buffer_folder)
    else:
        storage = MemmapStorage(args.buffer_size, args.buffer_folder)
    pin = TensorDict.pin_memory if pins else None
    return ReplayBuffer(storage, sampler=_sampler(args), prefetch=args.prefetch, transform=pin, seed=seed)


def _sampler(args: Namespace) -> UniformSampler | PrioritizedSampler | SliceSampler:
    if not args.prb:
        return UniformSampler() if args.sub_traj_len is None else SliceSampler(args.sub_traj_len)
    steps = max(int(args.total_frames * args.updates_per_frame), 1)
    options = {"alpha": args.prb_alpha, "beta": args.prb_beta, "beta_steps": steps}
    if args.sub_traj_len is None:
        return PrioritizedSampler(**options)
    return PrioritizedSliceSampler(args.sub_traj_len, priorities=PrioritizedSampler(**options))


def make_store(args: Namespace, buffer: ReplayBuffer, loss: Loss) -> Callable[[TensorDictBase], object]:
    """Build what puts a collected batch into the buffer: the entries that the loss reads, and those of a flag.

    Args:
        args: the parsed flags.
        buffer: where they go.
        loss: names them.

    Raises:
        KeyMissing: from a call, the batch has no such entry. ConfigError: it is a container of others.
    """
    facts: list[NestedKey] = [MASK]
    if args.sub_traj_len is not None or buffer.storage.needs_order:
        facts += ["is_init", TRAJ_IDS, ("next", "truncated"), ("next", "done")]
    selected = [unravel_key(tuple(key.split("/"))) for key in args.selected_keys]
    sums = MultiStepStream(args.n_steps_return, args.gamma) if args.multi_step else None
    return _Store(buffer, [*loss.in_keys, *loss.optional_keys, *facts, *selected], selected=selected, sums=sums)


class _Store:
    """Put entries of collected batches into a buffer. An agent saves the rows that wait for their sum."""

    def __init__(
        self,
        buffer: ReplayBuffer,
        keys: list[NestedKey],
        *,
        selected: list[NestedKey],
        sums: MultiStepStream | None,
    ) -> None:
        self.buffer, self.keys, self.selected, self.sums = buffer, keys, selected, sums

    def __call__(self, batch: TensorDictBase) -> None:
        for key, value in zip(self.selected, read(batch, self.selected, "--selected_keys"), strict=True):
            if isinstance(value, TensorDictBase):
                got = f"{key!r}, which holds others"
                raise ConfigError(explain("--selected_keys", expected="single entries", got=got))
        if self.sums is not None:
            batch = self.sums(batch)
        self.buffer.extend(batch.select(*self.keys, strict=False))

    def state_dict(self) -> dict:
        return {} if self.sums is None else self.sums.state_dict()

    def load_state_dict(self, state: dict) -> None:
        if self.sums is not None:
            self.sums.load_state_dict(state)


def make_replay_hooks(args: Namespace, buffer: ReplayBuffer) -> list[Hook]:
    """Build the hook that saves the buffer, if it is asked for."""
    return [SaveBuffer(buffer)] if args.save_buffer else []


def make_replay_updates(args: Namespace, loss: Loss, buffer: ReplayBuffer) -> ReplayUpdates:
    """Build the optimizer and the gradient steps on samples.

    Args:
        args: the parsed flags.
        loss: what is minimised.
        buffer: what is sampled.
    """
    if args.hard_update:
        follow = HardUpdate(loss, interval=args.target_update_interval)
    else:
        follow = SoftUpdate(loss, tau=args.tau)
    return ReplayUpdates(
        loss,
        make_optimizer(args, loss, eps=ADAM_EPSILON),
        buffer,
        batch_size=args.batch_size,
        updates_per_frame=args.updates_per_frame,
        start_frames=args.start_frames,
        actor_interval=getattr(args, "actor_interval", 1),
        target_update=follow,
        reward_scale=RewardScale(args.gamma) if args.normalize_rewards_online else None,
        max_grad_norm=args.max_grad_norm,
        compile=args.compile,
    )
