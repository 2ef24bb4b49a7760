"""The settings of commands for Atari games, and what they are where nothing was said. No registry of games."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torchrl.envs import ALEEnv
from torchrl.envs.simulators import Simulator, atari_simulator, gym_simulator
from torchrl.errors import ConfigError, explain
from torchrl.recipes.value_types import default_of

SKIP, NOOPS = (default_of(atari_simulator, name) for name in ("frame_skip", "max_noops"))


@dataclass(frozen=True)
class AtariGames:
    """Whether the environment is an Atari game with the preprocessing of the field, and which parts of it are left out.

    >>> AtariGames(atari=True).episodic_life
    True
    """

    atari: bool = False
    """play an Atari game (with the extra: atari) by the rules of the field: no-ops at the start, frames repeated, the
    last two made one grey picture, lives, FIRE, signs of rewards; an evaluation plays whole games for the rewards
    themselves"""
    episodic_life: bool = True
    "let a lost life end an episode of training, while the game goes on; needs --atari"
    fire_reset: bool = default_of(atari_simulator, "fire_reset")
    """press FIRE at the start of a game and after each lost life, where a game waits for it; in training with
    --env_library=ale instead of the first action after a lost life; needs --atari"""
    sign_rewards: bool = True
    "learn from the sign of each reward; reported returns stay raw; needs --atari"


class Driven(Protocol):
    """Interface of settings that say how an environment is stepped: those of a command's environment.

    >>> settings.environment.atari
    False
    """

    env_library: str
    env_name: str
    env_task: str
    env_workers: int
    init_with_lag: int | None
    frame_skip: int | None
    max_noops: int | None
    image_size: int
    grayscale: bool
    atari: bool
    episodic_life: bool
    fire_reset: bool


def frame_skip_of(settings: Driven) -> int:
    """Return the simulator steps per frame: those of ``--frame_skip``; by default 4 of Atari games, 1 of all others.

    >>> frame_skip_of(settings.environment)
    1
    """
    default = SKIP if settings.atari else default_of(gym_simulator, "frame_skip")
    return default if settings.frame_skip is None else settings.frame_skip


def max_noops_of(settings: Driven) -> int:
    """Return the most no-ops at a start: those of ``--max_noops``; by default 30 of Atari games, none of all others.

    >>> max_noops_of(settings.environment)
    0
    """
    default = NOOPS if settings.atari else default_of(gym_simulator, "max_noops")
    return default if settings.max_noops is None else settings.max_noops


def atari_game(settings: Driven, *, training: bool, **options: Any) -> Callable[[], Simulator]:
    """Return a factory of the Atari game that settings describe.

    Args:
        settings: of the environment, with ``atari``.
        training: whether a lost life ends an episode, if settings say so; else an episode is a whole game.
        options: further arguments of :func:`~torchrl.envs.simulators.atari_simulator`.

    Raises:
        ConfigError: the environment is of another library, or settings ask for what an Atari game does not have.
    """
    if settings.env_library not in ("ale", "gym"):
        wanted = "gym or ale with --atari"
        raise ConfigError(explain("--env_library", expected=wanted, got=settings.env_library))
    return partial(atari_simulator, settings.env_name, **_preprocessing(settings, training=training), **options)


def require_games(settings: Driven) -> None:
    """Refuse ``--env_library=ale`` beside settings that its games do not have.

    Raises:
        ConfigError: ``--atari`` is not with it, or there is a setting of single simulators.
    """
    if not settings.atari:
        raise ConfigError(explain("--env_library=ale", expected="--atari with it", got="it alone"))
    for name in ("env_task", "env_workers", "init_with_lag"):
        if got := getattr(settings, name):
            wanted = "none with --env_library=ale, whose games are one batch"
            raise ConfigError(explain(f"--{name}", expected=wanted, got=got))


def atari_threads(settings: Driven, num_envs: int, **options: Any) -> ALEEnv:
    """Build the Atari games that settings describe as one env for training, whose games C++ threads step.

    Args:
        settings: of the environment, with ``atari``.
        num_envs: how many games.
        options: further arguments of :class:`~torchrl.envs.ALEEnv`.

    Raises:
        ConfigError: settings ask for what an Atari game does not have.
    """
    return ALEEnv(settings.env_name, num_envs, **_preprocessing(settings, training=True), **options)


def _preprocessing(settings: Driven, *, training: bool) -> dict[str, Any]:
    for name, expected in (("from_pixels", False), ("leave_out", ())):
        if (got := getattr(settings, name)) != expected:
            wanted = f"{expected or 'none'} with --atari, whose only observation is a picture"
            raise ConfigError(explain(f"--{name}", expected=wanted, got=got))
    return {
        "frame_skip": frame_skip_of(settings),
        "max_noops": max_noops_of(settings),
        "fire_reset": settings.fire_reset,
        "episodic_life": training and settings.episodic_life,
        "image_size": settings.image_size,
        "grayscale": settings.grayscale,
    }
