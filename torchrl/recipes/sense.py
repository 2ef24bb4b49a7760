"""Flags that do not go together: what is refused before anything is built, and what is said to have no effect."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torchrl.errors import ConfigError, explain
from torchrl.recipes.config import ConfigParser, typed_names


class _Need(NamedTuple):
    """Flags that do nothing unless something holds.

    Attributes:
        flags: those; an algorithm may lack them.
        holds: answers whether they do something.
        needs: what holds then, as a user would write it.
    """

    flags: Sequence[str]
    holds: Callable[[Namespace], bool]
    needs: str


def _is_on(name: str) -> Callable[[Namespace], bool]:
    return lambda args: bool(getattr(args, name, False))


def _is_off(name: str) -> Callable[[Namespace], bool]:
    return lambda args: not getattr(args, name, False)


_NEEDS = (
    _Need(["clip_epsilon", "clip_schedule"], lambda args: args.objective == "clip", "--objective=clip"),
    _Need(["kl_target"], lambda args: args.objective == "kl_penalty", "--objective=kl_penalty"),
    _Need(["target_kl"], lambda args: args.num_epochs > 1, "--num_epochs above 1"),
    _Need(["critic_coef"], lambda args: getattr(args, "baseline", True), "--baseline"),
    _Need(["prb_alpha", "prb_beta"], _is_on("prb"), "--prb"),
    _Need(["n_steps_return"], _is_on("multi_step"), "--multi_step"),
    _Need(["target_update_interval"], _is_on("hard_update"), "--hard_update"),
    _Need(["tau"], _is_off("hard_update"), "--no-hard_update"),
    _Need(["ou_theta", "ou_sigma"], _is_on("ou_exploration"), "--ou_exploration"),
    _Need(["gsde_log_std"], _is_on("gsde"), "--gsde"),
    _Need(["init_std", "tanh_loc"], _is_off("gsde"), "--no-gsde"),
    _Need(["target_entropy"], _is_on("learn_temperature"), "--learn_temperature"),
    _Need(["value_low", "value_high"], _is_on("distributional"), "--distributional"),
    _Need(["atoms"], lambda args: args.distributional or args.quantiles, "--distributional or --quantiles"),
    _Need(["eps_start", "eps_end", "annealing_frames"], _is_off("noisy"), "--no-noisy"),
    _Need(["loss_function"], _is_off("distributional"), "--no-distributional"),
    _Need(["loss_function"], _is_off("quantiles"), "--no-quantiles"),
    _Need(["loss_function"], lambda args: getattr(args, "baseline", True), "--baseline"),
)

# What an evaluation reads: these groups and flags, without what is in them for training alone.
_GROUPS = ("environment", "networks")
_READ = {"config", "evaluate", "seed", "eval_episodes", "device", "num_threads", "progress_bar"}
_FOR_TRAINING = {"num_envs", "env_workers", "init_with_lag", "reward_scaling", "norm_rewards"}


def require_sense(args: Namespace, flags: Sequence[str]) -> None:
    """Refuse flags that each are right and together are not.

    Args:
        args: the parsed flags.
        flags: as they were typed.

    Raises:
        ConfigError: naming both.
    """
    if args.evaluate is not None and args.record_video and "record_video" in typed_names(flags):
        hint = "Films are made while a run trains, by the same flag; or by the hook RecordVideo in Python."
        raise ConfigError(explain("--record_video", expected="a run that trains", got="--evaluate", hint=hint))


def remarks(args: Namespace, parser: ConfigParser, flags: Sequence[str]) -> list[str]:
    """Say which flags have no effect, or another one than one might think.

    Args:
        args: the parsed flags.
        parser: knows their defaults.
        flags: as they were typed.
    """
    if args.evaluate is not None:
        return [f"no effect on an evaluation: --{name}" for name in _unread(parser, flags)]
    changed = [name for name, value in vars(args).items() if value != parser.get_default(name)]
    lines = [
        f"no effect: --{name}, which needs {need.needs}"
        for need in _NEEDS
        for name in need.flags
        if name in changed and not need.holds(args)
    ]
    if "buffer_size" in args and args.batch_size > args.buffer_size:
        above = f"above the {args.buffer_size:,} of --buffer_size"
        lines.append(f"--batch_size={args.batch_size:,} is {above}: items repeat")
    for name, never in (("start_frames", "nothing is learned"), ("init_random_frames", "the policy never acts")):
        if getattr(args, name, 0) >= args.total_frames:
            lines.append(
                f"{never}: --{name}={getattr(args, name):,} is not below the {args.total_frames:,} of --total_frames"
            )
    if "minibatch_size" in args and args.minibatch_size > args.frames_per_batch:
        lines.append(
            f"no effect: --minibatch_size={args.minibatch_size:,} above the {args.frames_per_batch:,} of "
            "--frames_per_batch; every gradient step takes the whole batch"
        )
    if num_trained(args) != args.total_frames:
        lines.append(
            f"--total_frames={args.total_frames:,} is rounded up to whole batches of {args.frames_per_batch:,}: "
            f"{num_trained(args):,} frames"
        )
    return lines


def num_trained(args: Namespace) -> int:
    """Return how many frames a run collects: whole batches."""
    return -(-args.total_frames // args.frames_per_batch) * args.frames_per_batch


def _unread(parser: ConfigParser, flags: Sequence[str]) -> list[str]:
    """Return the typed flags that an evaluation does not read."""
    read = _READ | {
        action.dest for group in parser._action_groups if group.title in _GROUPS for action in group._group_actions
    }
    return [name for name in typed_names(flags) if name not in read - _FOR_TRAINING]
