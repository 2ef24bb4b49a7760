"""An EnvPool: many C++ simulators stepped by threads, as one Env. EnvPool is imported on first use."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.building import require_free_names
from torchrl.envs.vector.envpool_queue import EnvPoolQueue
from torchrl.envs.vector.envpool_worker import EnvPoolWorker, TurnsWorker, without_precision_warning
from torchrl.errors import ConfigError, EnvError, explain, nearest
from torchrl.extras import require

OWN_OPTIONS = ("num_envs", "batch_size", "num_threads", "seed", "env_seed")


class EnvPoolEnv(WorkerEnv):
    """Wrap an EnvPool (C++ simulators stepped by threads) as an env with the same transitions as every other env.

    ``next`` holds the true successor observations. EnvPool itself spends a step on every reset; to hide that, every row
    has two simulators: while one is stepped, the other has been reset and waits at the start of its next episode. All
    rows are stepped together (EnvPool's synchronous mode; :class:`~torchrl.collectors.AsyncEnvPoolCollector` waits for
    the fastest only). If a task ends in the very step of the time limit, EnvPool
    reports ``truncated`` alone.

    With ``env_kwargs={"episodic_life": True}`` an episode is one life of a game. Then every row has one simulator, and
    the next life of the same game is the next episode, until the game is over. A reset in mid-life begins a new game.

    The simulators are EnvPool's own: the same id may differ in detail from gymnasium's, and the same seed gives other
    episodes. EnvPool takes seeds when a pool is built, so a reset of all rows with seeds builds a new one; single rows
    cannot be seeded. There are no reset options. The state cannot be saved.

    >>> env = EnvPoolEnv("CartPole-v1", 64, num_threads=1)  # doctest: +SKIP
    >>> env.rollout(10).batch_size  # doctest: +SKIP
    torch.Size([64, 10])

    Args:
        name: an id that EnvPool knows, such as ``"CartPole-v1"`` or ``"Pong-v5"``.
        num_envs: number of rows.
        env_kwargs: further options for ``envpool.make_gymnasium``, for example ``{"max_episode_steps": 100}``.
        num_threads: threads that step the simulators; None leaves it to EnvPool. A single one is kept on the caller's
            core, which waits for it anyway: the fastest way to step cheap simulators.
        seed: as :meth:`set_seed`; None draws one.

    Raises:
        ConfigError: ``num_envs`` is no positive integer, or ``env_kwargs`` repeats an argument of this class.
        EnvError: no such id or option, several players, or actions that are not one array.
        MissingExtraError: EnvPool is not installed.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        *,
        env_kwargs: dict[str, Any] | None = None,
        num_threads: int | None = None,
        seed: int | None = None,
    ) -> None:
        options = _pool_options(num_envs, env_kwargs, num_threads)
        envpool = require("envpool", extra="envpool", purpose="EnvPoolEnv")
        spec = _spec_of(envpool, name, options)
        observation_space, action_space = _spaces(name, spec)
        require_free_names("EnvPoolEnv", observation_space)
        worker = EnvPoolWorker if getattr(spec.config, "episodic_life", False) else TurnsWorker
        self._make_pool = partial(envpool.make_gymnasium, name, **options)
        self._observation_space = observation_space
        make_pool = partial(self._make_pool, num_envs=worker.num_simulators * options["num_envs"])
        super().__init__(
            partial(worker, make_pool, observation_space, num_threads == 1),
            observation_space=observation_space,
            action_space=action_space,
            batch_size=[num_envs],
        )
        self.name = self.task = name
        self.step_limit = spec.config.max_episode_steps
        if seed is not None:
            self.set_seed(seed)

    def make_queue(self, num_envs: int) -> EnvPoolQueue:
        """Make a queue over ``num_envs`` simulators of this kind; as many answer together as this env has rows.

        It has a pool of its own, in EnvPool's asynchronous mode, and leaves this env as it is.
        :class:`~torchrl.collectors.AsyncEnvPoolCollector` collects from it.
        """
        make_pool = partial(self._make_pool, num_envs=num_envs, batch_size=self.batch_size.numel())
        return EnvPoolQueue(make_pool, self._observation_space, self._read, num_envs, self.batch_size.numel())

    @property
    def seeds_rows(self) -> bool:
        """False: single rows cannot be seeded, since a pool takes all its seeds when it is built."""
        return False


def _pool_options(num_envs: int, env_kwargs: dict[str, Any] | None, num_threads: int | None) -> dict[str, Any]:
    """Return the keyword arguments for ``envpool.make_gymnasium``."""
    if isinstance(num_envs, bool) or not isinstance(num_envs, Integral) or num_envs < 1:
        raise ConfigError(explain("EnvPoolEnv", expected="num_envs of at least 1", got=repr(num_envs)))
    taken = [key for key in OWN_OPTIONS if key in (env_kwargs or {})]
    if taken:
        hint = "num_envs, num_threads and seed are arguments of EnvPoolEnv; all rows are stepped together."
        raise ConfigError(explain("EnvPoolEnv", expected="none of these in env_kwargs", got=taken, hint=hint))
    threads = {} if num_threads is None else {"num_threads": num_threads}
    return {**(env_kwargs or {}), **threads, "num_envs": int(num_envs)}


def _spec_of(envpool: ModuleType, name: str, options: dict[str, Any]) -> Any:
    """Return EnvPool's spec of a pool, without building the pool.

    Raises:
        EnvError: there is no such pool.
    """
    known = envpool.list_all_envs()
    if name not in known:
        near = nearest(str(name), known)
        hint = f'Did you mean "{near}"?' if near else "envpool.list_all_envs() lists them."
        raise EnvError(explain("EnvPoolEnv", expected="an id that EnvPool knows", got=repr(name), hint=hint))
    try:
        with without_precision_warning():
            return envpool.make_spec(name, **options)
    except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
        who, expected = f"EnvPoolEnv({name!r})", "a pool that EnvPool can build, with such env_kwargs"
        raise EnvError(explain(who, expected=expected, got=f"{type(error).__name__}: {error}")) from error


def _spaces(name: str, spec: Any) -> tuple[Space, Space]:
    """Return the observation and action space of one simulator of a pool.

    Raises:
        EnvError: a space that no spec describes, or several players.
    """
    with without_precision_warning():
        observation_space, action_space = spec.gymnasium_observation_space, spec.gymnasium_action_space
    players = spec.config.max_num_players
    if players > 1 or not isinstance(action_space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)):
        got = f"{players} players, {action_space}"
        raise EnvError(explain(f"EnvPoolEnv({name!r})", expected="one player whose action is one array", got=got))
    return _open_bounds(observation_space), action_space


def _open_bounds(space: Space) -> Space:
    """Make bounds of boxes infinite where EnvPool has the smallest or largest number of the dtype in their place.

    For a missing lower bound EnvPool has the smallest *positive* number of a float dtype.
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _open_bounds(part) for key, part in space.items()})
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        return space
    limits = np.finfo(space.dtype)
    is_open_below = (space.low == limits.min) | (space.low == limits.tiny)
    low = np.where(is_open_below, -np.inf, space.low).astype(space.dtype)
    high = np.where(space.high == limits.max, np.inf, space.high).astype(space.dtype)
    return spaces.Box(low, high, space.shape, space.dtype)
