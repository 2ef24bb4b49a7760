"""Environments by library: the simulators of :mod:`torchrl.envs.simulators.named`, as one batched Env."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gymnasium import Space
from gymnasium.vector import VectorEnv

from torchrl.envs.simulators.leaving_out import Name
from torchrl.envs.simulators.named import Wrap, dm_control_simulator, gym_simulator, toy_simulator
from torchrl.envs.vector.serial import SerialEnv
from torchrl.errors import ConfigError, explain

# Where the defaults are written: of the simulators, whose arguments the batches share.
_GYM, _DM_CONTROL, _TOY = (one.__kwdefaults__ for one in (gym_simulator, dm_control_simulator, toy_simulator))


class GymEnv(SerialEnv):
    """Gymnasium environments as one batch.

    Args:
        name_or_env: a registered id, or a ``gymnasium.Env`` (then ``num_envs`` must be None).
        num_envs: batch size ``[num_envs]``; None gives one world with batch size ``[]``.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated, instead of the id's own limit, which counts
            steps before ``frame_skip`` and no-ops too; None leaves that one.
        max_noops: do between 1 and this many no-op actions after each reset; 0 does none.
        env_kwargs: keyword arguments for ``gymnasium.make``.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.
        info_keys: entries of ``info`` to be observed, each with its space, for example
            ``{"x_position": Box(-inf, inf, ())}``.
        info_defaults: what is observed where such an entry is missing; without, a missing entry is an error.
        from_pixels: whether pictures are observed, uint8 ``[*B, H, W, 3]``; an environment that is given must have been
            made with ``render_mode="rgb_array"``.
        pixels_only: whether pictures replace the other observations.
        pixels_key: the pictures' name.
        wrappers: put around each world last, the innermost first, ours or gymnasium's, for example
            ``[partial(RandomTruncation, max_steps=500)]``.

    Raises:
        ConfigError: arguments that do not go together.
        EnvError: no such id, or the environment cannot be presented.
        MissingExtraError: a package that the environment needs is not installed.
    """

    def __init__(
        self,
        name_or_env: object,
        *,
        num_envs: int | None = None,
        frame_skip: int = _GYM["frame_skip"],
        max_episode_steps: int | None = _GYM["max_episode_steps"],
        max_noops: int = _GYM["max_noops"],
        env_kwargs: dict | None = _GYM["env_kwargs"],
        leave_out: Sequence[Name] = _GYM["leave_out"],
        info_keys: Mapping[str, Space] | None = _GYM["info_keys"],
        info_defaults: Mapping[str, Any] | None = _GYM["info_defaults"],
        from_pixels: bool = _GYM["from_pixels"],
        pixels_only: bool = _GYM["pixels_only"],
        pixels_key: str = _GYM["pixels_key"],
        wrappers: Sequence[Wrap] = _GYM["wrappers"],
    ) -> None:
        if not isinstance(name_or_env, str):
            _require_one("GymEnv", name_or_env, num_envs)
        make_simulator = partial(
            gym_simulator,
            name_or_env,
            frame_skip=frame_skip,
            max_episode_steps=max_episode_steps,
            max_noops=max_noops,
            env_kwargs=env_kwargs,
            leave_out=leave_out,
            info_keys=info_keys,
            info_defaults=info_defaults,
            from_pixels=from_pixels,
            pixels_only=pixels_only,
            pixels_key=pixels_key,
            wrappers=wrappers,
        )
        super().__init__(make_simulator, num_envs)


class DMControlEnv(SerialEnv):
    """DeepMind control suite tasks as one batch, on state observations, pictures or both.

    Each observation keeps its own key; ``TransformedEnv(env, CatTensors())`` joins them under ``observation``.
    A discount of 0 ends an episode as terminated, the suite's time limit as truncated.

    Args:
        domain_or_env: a domain of the suite, or a ``dm_env.Environment`` (then ``task`` and ``num_envs`` must be None).
        task: a task of the domain.
        num_envs: batch size ``[num_envs]``; None gives one world with batch size ``[]``.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated, instead of the suite's own limit; None
            leaves that one.
        task_kwargs: keyword arguments of the task, for example ``{"time_limit": 10}``.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.
        from_pixels: whether pictures are observed, uint8 ``[*B, H, W, 3]``. Drawing takes OpenGL: on a machine without
            a display set the environment variable ``MUJOCO_GL=egl`` before Python starts.
        pixels_only: whether pictures replace the other observations.
        pixels_key: the pictures' name.
        render_kwargs: arguments for ``physics.render``, for example ``{"height": 84, "width": 84, "camera_id": 0}``.
        wrappers: put around each world last, the innermost first, ours or gymnasium's, for example
            ``[partial(RandomTruncation, max_steps=500)]``.

    Raises:
        ConfigError: arguments that do not go together.
        EnvError: no such domain or task, or nothing to draw with.
        MissingExtraError: dm_control is not installed.
    """

    def __init__(
        self,
        domain_or_env: object,
        task: str | None = None,
        *,
        num_envs: int | None = None,
        frame_skip: int = _DM_CONTROL["frame_skip"],
        max_episode_steps: int | None = _DM_CONTROL["max_episode_steps"],
        task_kwargs: dict | None = _DM_CONTROL["task_kwargs"],
        leave_out: Sequence[Name] = _DM_CONTROL["leave_out"],
        from_pixels: bool = _DM_CONTROL["from_pixels"],
        pixels_only: bool = _DM_CONTROL["pixels_only"],
        pixels_key: str = _DM_CONTROL["pixels_key"],
        render_kwargs: dict | None = _DM_CONTROL["render_kwargs"],
        wrappers: Sequence[Wrap] = _DM_CONTROL["wrappers"],
    ) -> None:
        if not isinstance(domain_or_env, str):
            _require_one("DMControlEnv", domain_or_env, num_envs)
        make_simulator = partial(
            dm_control_simulator,
            domain_or_env,
            task,
            frame_skip=frame_skip,
            max_episode_steps=max_episode_steps,
            task_kwargs=task_kwargs,
            leave_out=leave_out,
            from_pixels=from_pixels,
            pixels_only=pixels_only,
            pixels_key=pixels_key,
            render_kwargs=render_kwargs,
            wrappers=wrappers,
        )
        super().__init__(make_simulator, num_envs)


class ToyEnv(SerialEnv):
    """Toy worlds of this package by name, as one batch: see :mod:`torchrl.envs.simulators.toys`.

    Args:
        name: of a toy world, such as ``"Matching"``.
        num_envs: batch size ``[num_envs]``; None gives one world with batch size ``[]``.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated, at most the world's own limit.
        toy_kwargs: keyword arguments of the world, for example ``{"nvec": [3, 4, 2]}``.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.
        wrappers: put around each world last, the innermost first.

    Raises:
        EnvError: no such world.
    """

    def __init__(
        self,
        name: str,
        *,
        num_envs: int | None = None,
        frame_skip: int = _TOY["frame_skip"],
        max_episode_steps: int | None = _TOY["max_episode_steps"],
        toy_kwargs: dict | None = _TOY["toy_kwargs"],
        leave_out: Sequence[Name] = _TOY["leave_out"],
        wrappers: Sequence[Wrap] = _TOY["wrappers"],
    ) -> None:
        make_simulator = partial(
            toy_simulator,
            name,
            frame_skip=frame_skip,
            max_episode_steps=max_episode_steps,
            toy_kwargs=toy_kwargs,
            leave_out=leave_out,
            wrappers=wrappers,
        )
        super().__init__(make_simulator, num_envs)


def _require_one(who: str, env: object, num_envs: int | None) -> None:
    if isinstance(env, VectorEnv):
        hint = "Write GymVectorEnv(vector_env): it has its own num_envs."
        raise ConfigError(explain(who, expected="an id or one environment", got=f"{env} with many", hint=hint))
    if num_envs is not None:
        hint = "Copies of your own come from a factory: SerialEnv(make_simulator, num_envs)."
        raise ConfigError(
            explain(
                who,
                expected="num_envs=None around what is not a name",
                got=f"num_envs={num_envs}",
                hint=hint,
            )
        )
