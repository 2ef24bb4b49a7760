"""Flags that do not go together: what is refused before anything is built, and what is said to have no effect."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torchrl.data.specs import Composite
from torchrl.envs import Env
from torchrl.errors import ConfigError, explain
from torchrl.recipes.config import ConfigParser, typed_names
from torchrl.recipes.observations import sees_images


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
    _Need(["critic_coef", "shared_mapping"], lambda args: getattr(args, "baseline", True), "--baseline"),
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
    _Need(["noise_clip"], lambda args: args.target_noise > 0, "--target_noise above 0"),
    _Need(
        ["eps_start", "eps_end", "noise_start", "noise_end", "annealing_frames", "ou_exploration"],
        lambda args: args.exploration_type == "random",
        "--exploration_type=random",
    ),
    _Need(
        ["target_return"],
        lambda args: args.record_interval < args.total_frames,
        "--record_interval below --total_frames",
    ),
)
_OF_PICTURES = ("image_size", "grayscale")
_OF_NUMBERS = ("distribution", "init_log_std", "init_std", "tanh_loc", "gsde_log_std")

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
    if getattr(args, "distributional", False) and args.atoms < 2:
        raise ConfigError(explain("--atoms", expected="at least 2 with --distributional", got=args.atoms))


def remarks(args: Namespace, parser: ConfigParser, flags: Sequence[str]) -> list[str]:
    """Say which flags have no effect, or another one than one might think.

    Args:
        args: the parsed flags.
        parser: knows their defaults.
        flags: as they were typed.
    """
    if args.evaluate is not None:
        return [f"no effect on an evaluation: --{name}" for name in _unread(parser, flags)]
    changed = _changed(args, parser)
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
    lines += _remarks_on_updates(args)
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


def remarks_on_env(args: Namespace, parser: ConfigParser, env: Env) -> list[str]:
    """Say which flags have no effect on what an environment shows, or on the actions that it takes.

    Args:
        args: the parsed flags.
        parser: knows their defaults.
        env: that of the run, or another that was made by the same flags.
    """
    action = env.action_spec
    leaves = [leaf for _, leaf in action.leaves()] if isinstance(action, Composite) else [action]
    needs = [] if sees_images(env) else [(_OF_PICTURES, "pictures")]
    if not any(leaf.dtype.is_floating_point for leaf in leaves):
        needs.append((_OF_NUMBERS, "continuous actions"))
    changed = _changed(args, parser)
    return [f"no effect: --{name}, which needs {what}" for names, what in needs for name in names if name in changed]


def _remarks_on_updates(args: Namespace) -> list[str]:
    """Say where a run from replay is too short for what its flags ask for."""
    if "updates_per_frame" not in args or args.start_frames >= args.total_frames:
        return []
    num_updates = int((num_trained(args) - args.start_frames) * args.updates_per_frame)
    if num_updates < 1:
        return [f"nothing is learned: --updates_per_frame={args.updates_per_frame:g} gives no update in this run"]
    if getattr(args, "hard_update", False) and args.target_update_interval > num_updates:
        interval = f"--target_update_interval={args.target_update_interval:,}"
        return [f"the target networks never move: {interval} is above the {num_updates:,} updates of this run"]
    return []


def _changed(args: Namespace, parser: ConfigParser) -> list[str]:
    return [name for name, value in vars(args).items() if value != parser.get_default(name)]


def num_trained(args: Namespace) -> int:
    """Return how many frames a run collects: whole batches."""
    return -(-args.total_frames // args.frames_per_batch) * args.frames_per_batch


def _unread(parser: ConfigParser, flags: Sequence[str]) -> list[str]:
    """Return the typed flags that an evaluation does not read."""
    read = _READ | {
        action.dest for group in parser._action_groups if group.title in _GROUPS for action in group._group_actions
    }
    return [name for name in typed_names(flags) if name not in read - _FOR_TRAINING]
