"""Build one simulator by name (gymnasium, Atari, dm_control, toys), with wrappers for frame skip and the like.

``partial(gym_simulator, "CartPole-v1", frame_skip=4)`` is a factory for every back end, which imports no torch. Batches
that speak TensorDict, with the same arguments, are ``GymEnv``, ``AtariEnv``, ``DMControlEnv`` and ``ToyEnv`` of
:mod:`torchrl.envs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
from gymnasium import Space

from torchrl.envs.simulators.atari import AtariPictures, EpisodicLife, FireReset
from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.dm_control import DMControlSimulator
from torchrl.envs.simulators.gym import GymSimulator
from torchrl.envs.simulators.leaving_out import Name
from torchrl.envs.simulators.limits import frames_per_step
from torchrl.envs.simulators.observing import InfoKeys, Pixels
from torchrl.envs.simulators.toys import TOYS
from torchrl.envs.simulators.wrappers import NoopReset
from torchrl.envs.simulators.wrapping import Wrap, driving_wrappers, leave_out_wrappers, limit_wrappers, wrap_simulator
from torchrl.errors import ConfigError, EnvError, explain, nearest
from torchrl.extras import require


def gym_simulator(
    name_or_env: object,
    *,
    frame_skip: int = 1,
    max_episode_steps: int | None = None,
    max_noops: int = 0,
    env_kwargs: dict | None = None,
    leave_out: Sequence[Name] = (),
    info_keys: Mapping[str, Space] | None = None,
    info_defaults: Mapping[str, Any] | None = None,
    from_pixels: bool = False,
    pixels_only: bool = True,
    pixels_key: str = "pixels",
    wrappers: Sequence[Wrap] = (),
) -> Simulator:
    """Build one gymnasium environment as a simulator, with the wrappers that the arguments ask for.

    >>> simulator = gym_simulator("CartPole-v1", frame_skip=4, max_episode_steps=100)
    >>> type(simulator).__name__, type(simulator.simulator).__name__, simulator.step_limit()
    ('TimeLimit', 'FrameSkip', 100)

    Args:
        name_or_env: a registered id, or a ``gymnasium.Env``.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated, instead of the id's own limit, which counts
            steps before ``frame_skip`` and no-ops too; None leaves that one.
        max_noops: do between 1 and this many no-op actions after each reset; 0 does none.
        env_kwargs: keyword arguments for ``gymnasium.make``.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.
        info_keys: entries of ``info`` to be observed, each with its space, for example
            ``{"x_position": Box(-inf, inf, ())}``.
        info_defaults: what is observed where such an entry is missing; without, a missing entry is an error.
        from_pixels: whether pictures are observed, uint8 ``[H, W, 3]``; an environment that is given must have been
            made with ``render_mode="rgb_array"``.
        pixels_only: whether pictures replace the other observations.
        pixels_key: the pictures' name.
        wrappers: put around it last, the innermost first, for example ``[partial(RandomTruncation, max_steps=500)]``.

    Raises:
        ConfigError: arguments that contradict each other; ``max_episode_steps`` above a limit that the environment has
            itself; ``frame_skip`` around an Atari game that skips frames already.
        EnvError: no such id, or the environment cannot be presented.
        MissingExtraError: a package that the environment needs is not installed.
    """
    if from_pixels and isinstance(name_or_env, str):
        env_kwargs = _with_pictures(env_kwargs)
    if info_defaults and not info_keys:
        raise ConfigError(explain("GymEnv", expected="info_keys with info_defaults", got="none"))
    around = [*leave_out_wrappers(leave_out), *driving_wrappers(frame_skip, max_noops)]
    if from_pixels:
        around.append(partial(Pixels, key=pixels_key, pixels_only=pixels_only))
    if info_keys:
        around.append(partial(InfoKeys, keys=info_keys, defaults=info_defaults))
    if max_episode_steps is not None and isinstance(name_or_env, str):
        env_kwargs = _without_limit(env_kwargs)
    driven = [partial(_require_one_skip, frame_skip), *around, *limit_wrappers(max_episode_steps)]
    return wrap_simulator(partial(GymSimulator, name_or_env, env_kwargs), driven, wrappers)


def atari_simulator(
    name_or_env: object,
    *,
    frame_skip: int = 4,
    max_noops: int = 30,
    fire_reset: bool = True,
    episodic_life: bool = False,
    image_size: int = 84,
    grayscale: bool = True,
    max_episode_steps: int | None = None,
    env_kwargs: dict | None = None,
    wrappers: Sequence[Wrap] = (),
) -> Simulator:
    """Build one Atari game as a simulator, with the preprocessing of the field: one picture a step, uint8 ``[H, W]``.

    From the inside out: no-ops at a start, frames repeated and the last two of them made one picture, lives, FIRE.
    Stacks of pictures and signs of rewards are transforms: ``FrameStack``, ``SignTransform``. Whether actions are
    sticky, the id says: ``ALE/Pong-v5`` repeats a quarter of them, ``PongNoFrameskip-v4`` none. The frames that an id
    skips by itself are those of ``frame_skip`` here, whatever the id.

    >>> simulator = atari_simulator("ALE/Breakout-v5", episodic_life=True)  # doctest: +SKIP
    >>> simulator.observation_space.shape  # doctest: +SKIP
    (84, 84)

    Args:
        name_or_env: an id of ale-py, or such a ``gymnasium.Env`` with ``frameskip=1``.
        frame_skip: frames of the console per agent step; rewards are summed.
        max_noops: begin games with 1 to this many frames without action; 0 does none.
        fire_reset: whether FIRE is pressed at the start of a game and after each lost life, in games that wait for it.
        episodic_life: whether a lost life ends the episode; the game goes on at the next reset. For training: without
            it, an episode is a whole game.
        image_size: height and width of pictures, in pixels.
        grayscale: whether pictures are grey, else ``[H, W, 3]``.
        max_episode_steps: agent steps after which an episode is truncated; None leaves the 108,000 frames of the ids.
        env_kwargs: keyword arguments for ``gymnasium.make``, such as ``repeat_action_probability``, ``mode``,
            ``difficulty``, ``full_action_space``.
        wrappers: put around it last, the innermost first.

    Raises:
        ConfigError: arguments that contradict each other.
        EnvError: no such id, or no Atari game.
        MissingExtraError: ale-py or OpenCV is not installed.
    """
    ale_py = require("ale_py", extra="atari", purpose="AtariEnv")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # as its environments do, but before the first greeting
    if isinstance(name_or_env, str):
        _require_atari(name_or_env)
        env_kwargs = {"frameskip": 1, "obs_type": "ram", "disable_env_checker": True} | (env_kwargs or {})
    around: list[Wrap] = [partial(NoopReset, max_noops=max_noops)] if max_noops else []
    around.append(partial(AtariPictures, num_frames=frame_skip, size=image_size, grayscale=grayscale))
    around += [EpisodicLife] if episodic_life else []
    around += [FireReset] if fire_reset else []
    return wrap_simulator(
        partial(GymSimulator, name_or_env, env_kwargs), [*around, *limit_wrappers(max_episode_steps)], wrappers
    )


def dm_control_simulator(
    domain_or_env: object,
    task: str | None = None,
    *,
    frame_skip: int = 1,
    max_episode_steps: int | None = None,
    task_kwargs: dict | None = None,
    leave_out: Sequence[Name] = (),
    from_pixels: bool = False,
    pixels_only: bool = True,
    pixels_key: str = "pixels",
    render_kwargs: dict | None = None,
    wrappers: Sequence[Wrap] = (),
) -> Simulator:
    """Build one task of the DeepMind control suite as a simulator, with the wrappers that the arguments ask for.

    >>> simulator = dm_control_simulator("cheetah", "run", frame_skip=4)  # doctest: +SKIP
    >>> simulator.step_limit()  # doctest: +SKIP
    250

    Args:
        domain_or_env: a domain of the suite, or a ``dm_env.Environment`` (then ``task`` must be None).
        task: a task of the domain.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated, instead of the suite's own limit; None
            leaves that one.
        task_kwargs: keyword arguments of the task, for example ``{"time_limit": 10}``.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.
        from_pixels: whether pictures are observed, uint8 ``[H, W, 3]``. Drawing takes OpenGL: without a display,
            EGL or OSMesa is found by itself; the environment variable ``MUJOCO_GL`` chooses another.
        pixels_only: whether pictures replace the other observations.
        pixels_key: the pictures' name.
        render_kwargs: arguments for ``physics.render``, for example ``{"height": 84, "width": 84, "camera_id": 0}``.
        wrappers: put around it last, the innermost first.

    Raises:
        ConfigError: arguments that contradict each other; ``max_episode_steps`` above a limit that the environment has
            itself.
        EnvError: no such domain or task, or nothing to draw with.
        MissingExtraError: dm_control is not installed.
    """
    if max_episode_steps is not None and isinstance(domain_or_env, str):
        task_kwargs = {"time_limit": math.inf, **(task_kwargs or {})}
    make = partial(DMControlSimulator, domain_or_env, task, task_kwargs=task_kwargs, render_kwargs=render_kwargs)
    around = [*leave_out_wrappers(leave_out), *driving_wrappers(frame_skip, 0)]
    if from_pixels:
        around.append(partial(Pixels, key=pixels_key, pixels_only=pixels_only))
    return wrap_simulator(make, [*around, *limit_wrappers(max_episode_steps)], wrappers)


def toy_simulator(
    name: str,
    *,
    frame_skip: int = 1,
    max_episode_steps: int | None = None,
    toy_kwargs: dict | None = None,
    leave_out: Sequence[Name] = (),
    wrappers: Sequence[Wrap] = (),
) -> Simulator:
    """Build one of this package's toy simulators, with the wrappers that the arguments ask for.

    >>> toy_simulator("Matching", max_episode_steps=5).step_limit()
    5

    Args:
        name: of a toy simulator, such as ``"Matching"``.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated, at most the simulator's own limit.
        toy_kwargs: keyword arguments of the simulator, for example ``{"nvec": [3, 4, 2]}``.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.
        wrappers: put around it last, the innermost first.

    Raises:
        ConfigError: ``max_episode_steps`` above the simulator's own limit.
        EnvError: no such simulator.
    """
    if name not in TOYS:
        near = nearest(str(name), TOYS)
        hint = f'Did you mean "{near}"?' if near else ""
        raise EnvError(explain("ToyEnv", expected=f"one of {', '.join(TOYS)}", got=repr(name), hint=hint))
    around = [*leave_out_wrappers(leave_out), *driving_wrappers(frame_skip, 0), *limit_wrappers(max_episode_steps)]
    return wrap_simulator(partial(TOYS[name], **(toy_kwargs or {})), around, wrappers)


def _require_atari(env_id: str) -> None:
    spec = gymnasium.registry.get(env_id.split(":")[-1])
    if spec is not None and not str(spec.entry_point).startswith("ale_py"):
        hint = f'Other ids go into GymEnv("{env_id}").'
        raise EnvError(explain("AtariEnv", expected="an id of ale-py", got=repr(env_id), hint=hint))


def _without_limit(env_kwargs: dict | None) -> dict:
    """Return ``env_kwargs`` that switch off the id's own time limit, so that a longer requested one can hold."""
    if "max_episode_steps" in (env_kwargs or {}):
        got = "both, here and in env_kwargs"
        raise ConfigError(explain("GymEnv", expected="one max_episode_steps", got=got, hint="Leave one of them out."))
    return {**(env_kwargs or {}), "max_episode_steps": -1}


def _require_one_skip(frame_skip: int, simulator: GymSimulator) -> GymSimulator:
    """Refuse ``frame_skip`` around an Atari game that skips frames itself, since the two would multiply."""
    own = frames_per_step(simulator.env)
    if frame_skip > 1 and own > 1:
        hint = 'Write env_kwargs={"frameskip": 1} as well, or leave frame_skip out.'
        got = f"{frame_skip} around {own} of its own"
        raise ConfigError(explain("GymEnv, frame_skip", expected="one that skips frames", got=got, hint=hint))
    return simulator


def _with_pictures(env_kwargs: dict | None) -> dict:
    mode = (env_kwargs or {}).get("render_mode", "rgb_array")
    if mode != "rgb_array":
        expected = 'render_mode "rgb_array" with from_pixels=True'
        raise ConfigError(explain("GymEnv", expected=expected, got=repr(mode), hint="Leave it out of env_kwargs."))
    return {**(env_kwargs or {}), "render_mode": mode}
