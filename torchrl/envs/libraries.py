"""Environments by library: a name becomes simulators, their wrappers, and one batched Env."""

from __future__ import annotations

from functools import partial

from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.dm_control import DMControlSimulator
from torchrl.envs.simulators.gym import GymSimulator
from torchrl.envs.simulators.toys import TOYS
from torchrl.envs.simulators.wrappers import FrameSkip, NoopReset, TimeLimit
from torchrl.envs.vector.serial import SerialEnv
from torchrl.errors import ConfigError, EnvError, explain, nearest


class GymEnv(SerialEnv):
    """Gymnasium environments as one batch.

    Args:
        name_or_env: a registered id, or a ``gymnasium.Env`` (then ``num_envs`` must be None).
        num_envs: batch size ``[num_envs]``; None gives one world with batch size ``[]``.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated; None leaves the id's own limit.
        max_noops: do between 1 and this many no-op actions after each reset; 0 does none.
        env_kwargs: keyword arguments for ``gymnasium.make``.
    """

    def __init__(
        self,
        name_or_env: object,
        *,
        num_envs: int | None = None,
        frame_skip: int = 1,
        max_episode_steps: int | None = None,
        max_noops: int = 0,
        env_kwargs: dict | None = None,
    ) -> None:
        if not isinstance(name_or_env, str):
            _require_one("GymEnv", num_envs)
        make = partial(GymSimulator, name_or_env, env_kwargs)
        super().__init__(partial(_wrapped, make, frame_skip, max_episode_steps, max_noops), num_envs)


class DMControlEnv(SerialEnv):
    """DeepMind control suite tasks on state observations, as one batch.

    Each observation keeps its own key; ``TransformedEnv(env, CatTensors())`` joins them under ``observation``.
    A discount of 0 ends an episode as terminated, the suite's time limit as truncated.

    Args:
        domain_or_env: a domain of the suite, or a ``dm_env.Environment`` (then ``task`` and ``num_envs`` must be None).
        task: a task of the domain.
        num_envs: batch size ``[num_envs]``; None gives one world with batch size ``[]``.
        frame_skip: simulator steps per agent step; rewards are summed.
        max_episode_steps: agent steps after which an episode is truncated, beside the suite's own limit.
        task_kwargs: keyword arguments of the task, for example ``{"time_limit": 10}``.
    """

    def __init__(
        self,
        domain_or_env: object,
        task: str | None = None,
        *,
        num_envs: int | None = None,
        frame_skip: int = 1,
        max_episode_steps: int | None = None,
        task_kwargs: dict | None = None,
    ) -> None:
        if not isinstance(domain_or_env, str):
            _require_one("DMControlEnv", num_envs)
        make = partial(DMControlSimulator, domain_or_env, task, task_kwargs=task_kwargs)
        super().__init__(partial(_wrapped, make, frame_skip, max_episode_steps, 0), num_envs)


class ToyEnv(SerialEnv):
    """Toy worlds of this package by name, as one batch: see :mod:`torchrl.envs.simulators.toys`.

    Args:
        name: of a toy world, such as ``"Matching"``.
        num_envs: batch size ``[num_envs]``; None gives one world with batch size ``[]``.
        toy_kwargs: keyword arguments of the world, for example ``{"nvec": [3, 4, 2]}``.

    Raises:
        EnvError: no such world.
    """

    def __init__(self, name: str, *, num_envs: int | None = None, toy_kwargs: dict | None = None) -> None:
        if name not in TOYS:
            near = nearest(str(name), TOYS)
            hint = f'Did you mean "{near}"?' if near else ""
            raise EnvError(explain("ToyEnv", expected=f"one of {', '.join(TOYS)}", got=repr(name), hint=hint))
        super().__init__(partial(TOYS[name], **(toy_kwargs or {})), num_envs)


def _wrapped(make: partial, frame_skip: int, max_episode_steps: int | None, max_noops: int) -> Simulator:
    simulator = make()
    if frame_skip != 1:
        simulator = FrameSkip(simulator, frame_skip)
    if max_noops:
        simulator = NoopReset(simulator, max_noops)
    if max_episode_steps is not None:
        simulator = TimeLimit(simulator, max_episode_steps)
    return simulator


def _require_one(who: str, num_envs: int | None) -> None:
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
