"""Environments from settings: which simulator, how many, and the transforms between it and the policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torchrl.data.specs import Bounded, Unbounded
from torchrl.data.specs.base import LeafSpec
from torchrl.envs import Compose, Env, JaxEnv, ParallelEnv, SerialEnv, TransformedEnv, jax_world, native_env
from torchrl.envs.simulators import (
    Pixels,
    RandomTruncation,
    Simulator,
    dm_control_simulator,
    gym_simulator,
    python_simulator,
    toy_simulator,
)
from torchrl.envs.simulators.observing import FLAG
from torchrl.envs.transforms import (
    ActionClip,
    GSDENoise,
    RewardNorm,
    RewardScaling,
    SignTransform,
    TensorDictPrimer,
)
from torchrl.errors import ConfigError, explain
from torchrl.recipes.atari import atari_game, atari_threads, frame_skip_of, max_noops_of, require_games
from torchrl.recipes.memories import MEMORY_KEYS, initial_memory
from torchrl.recipes.memory_parts import Remembering, remembers
from torchrl.recipes.network_parts import ActorCriticNetworks, Networks, SquashedNetworks, StateDependentNoise
from torchrl.recipes.observations import observation_transforms
from torchrl.recipes.parts import Environment
from torchrl.recipes.value_types import keywords

FILM = "film"  # the picture of --record_video
OF_SIMULATORS = (
    *("atari", "env_task", "env_workers", "frame_skip", "max_noops", "init_with_lag", "leave_out", "from_pixels"),
    "success_key",
)
JAX = ("brax", "craftax", "gymnax", "jumanji", "pgx", "playground")  # libraries of jax_world
NO_FOLDER = str.maketrans("/:", "__")  # what a name of a folder does not hold
OU_STATE = "ou_noise"  # the state of the noise of --ou_exploration


def make_env(
    settings: Environment,
    *,
    num_envs: int,
    training: bool,
    filmed: bool = False,
    gamma: float,
    clips_actions: bool = False,
    networks: Networks | Remembering | None = None,
    drifts: bool = False,
) -> Env:
    """Build the env that settings describe: simulators in one batch, and transforms between them and the policy.

    >>> pendulum = make_env(Environment(env_name="Pendulum-v1", frame_stack=2), num_envs=3, training=True, gamma=0.99)
    >>> pendulum.observation_spec["observation"].shape
    torch.Size([3, 6])

    Args:
        settings: which simulators, and what is seen of them.
        num_envs: how many rows.
        training: whether rewards are scaled or normalised for the learner, and worker processes used where settings
            ask for them; reported returns are of the raw rewards in any case.
        filmed: whether observations have a rendered picture under the key ``FILM``, which networks do not read.
        gamma: discount of the returns by whose spread ``norm_rewards`` divides rewards.
        clips_actions: whether bounded actions are clipped for the simulator.
        networks: settings of the policy's networks; with state-dependent noise, the env redraws the noise matrices, and
            with memory it keeps the state of the actor, and that of a critic which looks on while the actor acts.
        drifts: whether the env keeps the state of Ornstein-Uhlenbeck noise, under the key ``OU_STATE``.

    Returns:
        An environment ``[num_envs]`` with one vector of floats under ``observation``, joined from all observations, or
        one image, ``[C, height, width]``, whose channels are those of all stacked frames.

    Raises:
        ConfigError: settings that do not fit each other.
    """
    env = _simulated(settings, num_envs, training, filmed)
    unseen = (FILM if filmed else None, env.action_mask_key, settings.success_key)
    seen = [key for key, _ in env.observation_spec.leaves() if key not in unseen]
    transforms = observation_transforms(settings, env, seen)
    if clips_actions and isinstance(env.action_spec, Bounded) and env.action_spec.dtype.is_floating_point:
        transforms.append(ActionClip())
    if training and settings.atari and settings.sign_rewards:
        transforms.append(SignTransform())
    if training and settings.reward_scaling is not None:
        transforms.append(RewardScaling(settings.reward_scaling))
    if training and settings.norm_rewards:
        transforms.append(RewardNorm(gamma=gamma))
    if drifts:
        transforms.append(TensorDictPrimer({OU_STATE: Unbounded(env.action_spec.shape[len(env.batch_size) :])}))
    if remembers(networks):
        acting = MEMORY_KEYS if isinstance(networks, ActorCriticNetworks) else MEMORY_KEYS[:1]
        transforms.append(TensorDictPrimer(initial_memory(networks, acting)))
    noise = networks if isinstance(networks, StateDependentNoise) else StateDependentNoise()
    if noise.gsde:
        transforms.append(_noise(noise, env))
    elif noise.gsde_every is not None:
        raise ConfigError(explain("--gsde_every", expected="--gsde with it", got="it alone"))
    return TransformedEnv(env, Compose(*transforms)) if transforms else env


def task_name(settings: Environment) -> str:
    """Return a text that names the simulated task of a run, for folders and reports."""
    return "_".join(part for part in (settings.env_name, settings.env_task) if part).translate(NO_FOLDER)


def _noise(networks: ActorCriticNetworks | SquashedNetworks, env: Env) -> GSDENoise:
    """Build the transform that redraws the noise of state-dependent exploration, one matrix per row."""
    if not isinstance(env.action_spec, LeafSpec) or not env.action_spec.dtype.is_floating_point:
        raise ConfigError(explain("--gsde", expected="continuous actions", got=env.action_spec))
    return GSDENoise(networks.num_cells[-1], env.action_spec.shape[-1], resample_every=networks.gsde_every)


def _simulated(settings: Environment, num_envs: int, training: bool, filmed: bool) -> Env:
    if settings.env_library == "native" or settings.env_library in JAX:
        return _whole(settings, num_envs, filmed)
    if settings.env_library == "ale":
        require_games(settings)
        if training:  # an evaluation loads no game anew for a seed, and a film is drawn: simulators can
            options = {"max_episode_steps": settings.max_episode_steps, "env_kwargs": keywords(settings.env_kwargs)}
            return atari_threads(settings, num_envs, **options)
    make = _simulator(settings, training, filmed)
    if training and settings.env_workers:
        if settings.env_workers > num_envs:
            expected = f"at most the {num_envs} of --num_envs"
            raise ConfigError(explain("--env_workers", expected=expected, got=settings.env_workers))
        return ParallelEnv(make, num_envs, num_workers=settings.env_workers)
    return SerialEnv(make, num_envs)


def _whole(settings: Environment, num_envs: int, filmed: bool) -> Env:
    """Build an env that is a batch by itself; refuse what is done with one simulator or with several."""
    library = settings.env_library
    for name in OF_SIMULATORS:
        if (got := getattr(settings, name)) != getattr(Environment, name):
            expected = f"{getattr(Environment, name) or 'none'} for {library}, whose rows are one batch of tensors"
            raise ConfigError(explain(f"--{name}", expected=expected, got=got))
    if filmed:
        raise ConfigError(explain("--record_video", expected="an environment that draws pictures", got=library))
    options = keywords(settings.env_kwargs)
    if settings.max_episode_steps is not None:
        options["max_episode_steps"] = settings.max_episode_steps
    if library == "native":
        return native_env(settings.env_name, num_envs, **options)
    return JaxEnv(jax_world(library, settings.env_name, **options), num_envs)


def _simulator(settings: Environment, training: bool, filmed: bool) -> Callable[[], Simulator]:
    common = {"max_episode_steps": settings.max_episode_steps}
    if training and settings.init_with_lag is not None:
        common["wrappers"] = [partial(RandomTruncation, max_steps=settings.init_with_lag)]
    if filmed:
        common["wrappers"] = [partial(Pixels, key=FILM, pixels_only=False)]
    if settings.env_library != "dm_control" and settings.env_task:
        hint = "Did you mean --env_library=dm_control?"
        expected = f"none for {settings.env_library}"
        raise ConfigError(explain("--env_task", expected=expected, got=repr(settings.env_task), hint=hint))
    if settings.success_key is not None and (settings.env_library != "gym" or settings.atari):
        got = "--atari" if settings.atari else f"--env_library={settings.env_library}"
        raise ConfigError(explain("--success_key", expected="a simulator of gym, whose info tells it", got=got))
    arguments = keywords(settings.env_kwargs)
    drawn = {"render_mode": "rgb_array"} if filmed else {}
    if settings.atari:
        return atari_game(settings, training=training, env_kwargs=arguments | drawn, **common)
    common |= {"frame_skip": frame_skip_of(settings), "leave_out": settings.leave_out}
    if settings.from_pixels:
        if settings.env_library == "toy":
            raise ConfigError(explain("--from_pixels", expected="gym or dm_control", got="--env_library=toy"))
        common |= {"from_pixels": True, "pixels_only": True, "pixels_key": "observation"}
    if settings.env_library == "gym":
        common["env_kwargs"] = arguments | drawn
        if settings.success_key is not None:  # at a reset nothing has succeeded yet
            common["info_keys"] = {settings.success_key: FLAG}
            common["info_defaults"] = {settings.success_key: 0}
        return partial(gym_simulator, settings.env_name, max_noops=max_noops_of(settings), **common)
    if settings.env_library == "python":
        common |= {"env_kwargs": arguments, "max_noops": max_noops_of(settings)}
        return partial(python_simulator, settings.env_name, **common)
    if settings.max_noops:
        raise ConfigError(explain("--max_noops", expected=f"0 for {settings.env_library}", got=settings.max_noops))
    if settings.env_library == "toy":
        if arguments:
            got = " ".join(settings.env_kwargs)
            raise ConfigError(explain("--env_kwargs", expected="none for toy, whose simulators take none", got=got))
        return partial(toy_simulator, settings.env_name, **common)
    if not settings.env_task:
        raise ConfigError(explain("--env_task", expected=f"a task of the domain {settings.env_name!r}", got="none"))
    if settings.from_pixels:
        size = settings.image_size
        common["render_kwargs"] = {"height": size, "width": size, "camera_id": settings.camera_id}
        if not settings.shadows:
            common["render_kwargs"]["render_flag_overrides"] = {"shadow": False, "reflection": False}
    if arguments:
        common["task_kwargs"] = arguments
    return partial(dm_control_simulator, settings.env_name, settings.env_task, **common)
