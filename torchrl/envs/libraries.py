"""Environments built by name from gymnasium, Atari, dm_control or the toys, each a batch that this process steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from gymnasium.vector import VectorEnv

from torchrl.envs.simulators.base import Simulator
from torchrl.envs.simulators.named import (
    atari_simulator,
    dm_control_simulator,
    gym_simulator,
    toy_simulator,
)
from torchrl.envs.vector.serial import SerialEnv
from torchrl.errors import ConfigError, explain

NUM_ENVS = inspect.Parameter("num_envs", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="int | None")


class NamedEnv(SerialEnv):
    """Base class of envs that build a batch of simulators by name, with the function ``build`` that a subclass gives.

    The constructor takes that function's arguments, with its defaults, and ``num_envs``.

    Args:
        names: the first arguments: an id, or a domain and a task, or a built environment (then ``num_envs`` is None).
        num_envs: batch size ``[num_envs]``; None gives one row with batch size ``[]``.
        options: the other arguments of the function.
    """

    _build: Callable[..., Simulator]

    def __init_subclass__(cls, *, build: Callable[..., Simulator] | None = None, **options: Any) -> None:
        """Store ``build``, and make its arguments the signature of the subclass."""
        super().__init_subclass__(**options)
        if build is not None:
            cls._build = staticmethod(build)
            given = list(inspect.signature(build).parameters.values())
            num_names = sum(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in given)
            cls.__signature__ = inspect.Signature([*given[:num_names], NUM_ENVS, *given[num_names:]])
        elif "__init__" in vars(cls):
            cls.__signature__ = inspect.signature(partial(cls.__init__, None))

    def __init__(self, *names: object, num_envs: int | None = None, **options: Any) -> None:
        make_simulator = partial(self._build, *names, **options)
        try:
            bound = inspect.signature(self._build).bind(*names, **options)
        except TypeError as error:  # which names the argument alone
            raise TypeError(f"{type(self).__name__}() {error}") from None
        first = next(iter(bound.arguments.values()))
        if not isinstance(first, str):
            _require_one(type(self).__name__, first, num_envs)
        super().__init__(make_simulator, num_envs)


class GymEnv(NamedEnv, build=gym_simulator):
    """A batch of gymnasium environments, built from an id and stepped one after the other in this process.

    >>> env = GymEnv("CartPole-v1", num_envs=3, frame_skip=2, max_episode_steps=50)
    >>> env.batch_size, env.observation_spec["observation"].shape, env.step_limit
    (torch.Size([3]), torch.Size([3, 4]), 50)

    Args:
        name_or_env: a registered id, or a ``gymnasium.Env`` (then ``num_envs`` must be None).
        num_envs: batch size ``[num_envs]``; None gives one row with batch size ``[]``.
        options: those of :func:`~torchrl.envs.simulators.gym_simulator`: ``frame_skip``, ``max_episode_steps``,
            ``max_noops``, ``env_kwargs``, ``leave_out``, ``info_keys``, ``info_defaults``, ``from_pixels``,
            ``pixels_only``, ``pixels_key``, ``wrappers``.

    Raises:
        ConfigError: arguments that contradict each other.
        EnvError: no such id, or the environment cannot be presented.
        MissingExtraError: a package that the environment needs is not installed.
    """


class AtariEnv(NamedEnv, build=atari_simulator):
    """A batch of Atari games with the preprocessing of the field, stepped in this process; extra ``atari``.

    One picture a step, uint8 ``[*B, 84, 84]``, under ``observation``; an episode is a whole game, unless
    ``episodic_life=True``. In other processes: ``ParallelEnv(partial(atari_simulator, "ALE/Pong-v5"), 8)``.

    >>> AtariEnv("ALE/Pong-v5", num_envs=2).observation_spec["observation"].shape  # doctest: +SKIP
    torch.Size([2, 84, 84])

    Args:
        name_or_env: an id of ale-py, or such a ``gymnasium.Env`` with ``frameskip=1`` (then ``num_envs`` must be None).
        num_envs: batch size ``[num_envs]``; None gives one row with batch size ``[]``.
        options: those of :func:`~torchrl.envs.simulators.atari_simulator`: ``frame_skip``, ``max_noops``,
            ``fire_reset``, ``episodic_life``, ``image_size``, ``grayscale``, ``max_episode_steps``, ``env_kwargs``,
            ``wrappers``.

    Raises:
        ConfigError: arguments that contradict each other.
        EnvError: no such id, or no Atari game.
        MissingExtraError: ale-py or OpenCV is not installed.
    """


class DMControlEnv(NamedEnv, build=dm_control_simulator):
    """A batch of DeepMind control suite tasks, stepped in this process, on state observations, pictures or both.

    Each observation keeps its own key; ``TransformedEnv(env, CatTensors())`` joins them under ``observation``.
    A discount of 0 ends an episode as terminated, the suite's time limit as truncated.

    >>> env = DMControlEnv("cheetah", "run", num_envs=2)  # doctest: +SKIP
    >>> list(env.observation_spec.keys())  # doctest: +SKIP
    ['position', 'velocity']

    Args:
        domain_or_env: a domain of the suite, or a ``dm_env.Environment`` (then ``task`` and ``num_envs`` must be None).
        task: a task of the domain.
        num_envs: batch size ``[num_envs]``; None gives one row with batch size ``[]``.
        options: those of :func:`~torchrl.envs.simulators.dm_control_simulator`: ``frame_skip``, ``max_episode_steps``,
            ``task_kwargs``, ``leave_out``, ``from_pixels``, ``pixels_only``, ``pixels_key``, ``render_kwargs``,
            ``wrappers``.

    Raises:
        ConfigError: arguments that contradict each other.
        EnvError: no such domain or task, or nothing to draw with.
        MissingExtraError: dm_control is not installed.
    """


class ToyEnv(NamedEnv, build=toy_simulator):
    """A batch of this package's toy simulators, built by name: see :mod:`torchrl.envs.simulators.toys`.

    >>> env = ToyEnv("Matching", num_envs=2, toy_kwargs={"nvec": [3, 4]})
    >>> env.reset()["observation"].sum(-1)  # two one-hot vectors side by side
    tensor([2., 2.])

    Args:
        name: of a toy simulator, such as ``"Matching"``.
        num_envs: batch size ``[num_envs]``; None gives one row with batch size ``[]``.
        options: those of :func:`~torchrl.envs.simulators.toy_simulator`: ``frame_skip``, ``max_episode_steps``,
            ``toy_kwargs``, ``leave_out``, ``wrappers``.

    Raises:
        EnvError: no such simulator.
    """


def _require_one(who: str, env: object, num_envs: int | None) -> None:
    if isinstance(env, VectorEnv):
        hint = "Write GymVectorEnv(vector_env): it has its own num_envs."
        raise ConfigError(explain(who, expected="an id or one environment", got=f"{env} with many", hint=hint))
    if num_envs is not None:
        hint = "Copies of your own come from a factory: SerialEnv(make_simulator, num_envs)."
        got = f"num_envs={num_envs}"
        raise ConfigError(explain(who, expected="num_envs=None around what is not a name", got=got, hint=hint))
