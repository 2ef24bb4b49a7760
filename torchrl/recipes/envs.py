"""Environments from flags: which simulator, how many, and the transforms between it and the policy."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial

from torchrl.data.specs import Bounded, Unbounded
from torchrl.data.specs.base import LeafSpec
from torchrl.envs import Compose, Env, ParallelEnv, SerialEnv, TransformedEnv
from torchrl.envs.simulators import (
    Pixels,
    RandomTruncation,
    Simulator,
    dm_control_simulator,
    gym_simulator,
    toy_simulator,
)
from torchrl.envs.transforms import (
    ActionClip,
    GSDENoise,
    RewardNorm,
    RewardScaling,
    TensorDictPrimer,
)
from torchrl.errors import ConfigError, explain
from torchrl.recipes.config import (
    ConfigParser,
    default_of,
    keyword,
    keywords,
    non_negative_int,
    positive_float,
    positive_int,
)
from torchrl.recipes.observations import add_observation_arguments, observation_transforms

FILM = "film"  # the picture of `--record_video`
OU_STATE = "ou_noise"  # where the exploration of `--ou_exploration` has its state


def add_env_arguments(parser: ConfigParser, *, env_name: str = "CartPole-v1", num_envs: int = 8) -> None:
    """Add the flags that :func:`make_env` reads.

    Args:
        parser: they are added to.
        env_name: an environment whose actions the algorithm can choose.
        num_envs: the algorithm's usual number.
    """
    group = parser.add_argument_group("environment")
    group.add_argument(
        "--env_library", choices=("gym", "dm_control", "toy"), default="gym", help="library that simulates"
    )
    group.add_argument("--env_name", default=env_name, help="registered id (gym), domain (dm_control) or name (toy)")
    group.add_argument("--env_task", default="", help="task of the domain (dm_control only)")
    group.add_argument(
        "--env_kwargs",
        type=keyword,
        nargs="*",
        default=[],
        help="arguments of the environment, or of the task (dm_control), as name=value: numbers, true, lists in JSON",
    )
    group.add_argument("--num_envs", type=positive_int, default=num_envs, help="environments, over all processes")
    group.add_argument(
        "--env_workers",
        type=non_negative_int,
        default=0,
        help="processes that step the environments for one policy, for slow ones; 0 steps them in this process",
    )
    group.add_argument(
        "--frame_skip",
        type=positive_int,
        default=default_of(gym_simulator, "frame_skip"),
        help="simulator steps per frame; all counts of frames are counts of agent steps",
    )
    group.add_argument(
        "--max_episode_steps",
        type=positive_int,
        default=default_of(gym_simulator, "max_episode_steps"),
        help="frames after which an episode is truncated; instead of the task's own limit; none leaves that one",
    )
    group.add_argument(
        "--max_noops",
        type=non_negative_int,
        default=default_of(gym_simulator, "max_noops"),
        help="begin episodes with up to this many no-op actions (gym only)",
    )
    group.add_argument(
        "--init_with_lag",
        type=positive_int,
        help="end the first episode of each row at random within this many frames, so that rows do not end together",
    )
    group.add_argument(
        "--leave_out",
        nargs="*",
        default=[],
        help="entries that are not observed, by name: text, which is no number, or what no policy shall see",
    )
    group.add_switch(
        "--from_pixels",
        default=False,
        help="observe pictures of the world, nothing else (gym and dm_control); drawing may take OpenGL",
    )
    add_observation_arguments(group)
    group.add_argument(
        "--reward_scaling", type=positive_float, help="multiply rewards for the learner; reported returns stay raw"
    )
    group.add_switch(
        "--norm_rewards",
        default=False,
        help="divide rewards for the learner by the running std of the discounted return",
    )


def make_env(args: Namespace, *, num_envs: int, training: bool, filmed: bool = False) -> Env:
    """Build the environment of a run.

    Args:
        args: the parsed flags, those of the networks and the loss included. Algorithms without one of the flags
            ``--distribution``, ``--gsde`` and ``--gsde_every`` go on without what it asks for.
        num_envs: how many slots.
        training: whether rewards are transformed for the learner, and worker processes used where flags ask for them;
            reported returns are raw in any case.
        filmed: whether a picture is shown under ``FILM``, which networks do not read.

    Returns:
        An environment ``[num_envs]`` with one vector of floats under ``observation``, made of all that is observed, or
        one image, ``[C, height, width]``, its channels those of all frames that are stacked.
    """
    env = _simulated(args, num_envs, training, filmed)
    seen = [key for key, _ in env.observation_spec.leaves() if not (filmed and key == FILM)]
    transforms = observation_transforms(args, env, seen)
    if isinstance(env.action_spec, Bounded) and getattr(args, "distribution", None) == "normal":
        transforms.append(ActionClip())
    if training and args.reward_scaling is not None:
        transforms.append(RewardScaling(args.reward_scaling))
    if training and args.norm_rewards:
        transforms.append(RewardNorm(gamma=args.gamma))
    if getattr(args, "ou_exploration", False):
        transforms.append(TensorDictPrimer({OU_STATE: Unbounded(env.action_spec.shape[len(env.batch_size) :])}))
    if getattr(args, "gsde", False):
        transforms.append(_noise(args, env))
    elif getattr(args, "gsde_every", None) is not None:
        raise ConfigError(explain("--gsde_every", expected="--gsde with it", got="it alone"))
    return TransformedEnv(env, Compose(*transforms)) if transforms else env


def task_name(args: Namespace) -> str:
    """Name the task of a run, for folders and reports."""
    return "_".join(part for part in (args.env_name, args.env_task) if part).replace("/", "_")


def _noise(args: Namespace, env: Env) -> GSDENoise:
    """Build what redraws the noise of state-dependent exploration, one matrix per slot."""
    if not isinstance(env.action_spec, LeafSpec) or not env.action_spec.dtype.is_floating_point:
        raise ConfigError(explain("--gsde", expected="continuous actions", got=env.action_spec))
    return GSDENoise(args.num_cells[-1], env.action_spec.shape[-1], resample_every=args.gsde_every)


def _simulated(args: Namespace, num_envs: int, training: bool, filmed: bool) -> Env:
    make = _simulator(args, training, filmed)
    if training and args.env_workers:
        if args.env_workers > num_envs:
            expected = f"at most the {num_envs} of --num_envs"
            raise ConfigError(explain("--env_workers", expected=expected, got=args.env_workers))
        return ParallelEnv(make, num_envs, num_workers=args.env_workers)
    return SerialEnv(make, num_envs)


def _simulator(args: Namespace, training: bool, filmed: bool) -> Callable[[], Simulator]:
    common = {"frame_skip": args.frame_skip, "max_episode_steps": args.max_episode_steps, "leave_out": args.leave_out}
    if training and args.init_with_lag is not None:
        common["wrappers"] = [partial(RandomTruncation, max_steps=args.init_with_lag)]
    if filmed:
        common["wrappers"] = [partial(Pixels, key=FILM, pixels_only=False)]
    if args.env_library != "dm_control" and args.env_task:
        hint = "Did you mean --env_library=dm_control?"
        expected = f"none for {args.env_library}"
        raise ConfigError(explain("--env_task", expected=expected, got=repr(args.env_task), hint=hint))
    if args.from_pixels:
        if args.env_library == "toy":
            raise ConfigError(explain("--from_pixels", expected="gym or dm_control", got="--env_library=toy"))
        common |= {"from_pixels": True, "pixels_only": True, "pixels_key": "observation"}
    arguments = keywords(args.env_kwargs)
    if args.env_library == "gym":
        common["env_kwargs"] = arguments | ({"render_mode": "rgb_array"} if filmed else {})
        return partial(gym_simulator, args.env_name, max_noops=args.max_noops, **common)
    if args.max_noops:
        raise ConfigError(explain("--max_noops", expected=f"0 for {args.env_library}", got=args.max_noops))
    if args.env_library == "toy":
        if arguments:
            got = " ".join(args.env_kwargs)
            raise ConfigError(explain("--env_kwargs", expected="none for toy, whose worlds take no arguments", got=got))
        return partial(toy_simulator, args.env_name, **common)
    if not args.env_task:
        raise ConfigError(explain("--env_task", expected=f"a task of the domain {args.env_name!r}", got="none"))
    if args.from_pixels:
        common["render_kwargs"] = {"height": args.image_size, "width": args.image_size}
    if arguments:
        common["task_kwargs"] = arguments
    return partial(dm_control_simulator, args.env_name, args.env_task, **common)
