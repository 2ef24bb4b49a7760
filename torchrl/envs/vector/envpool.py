"""An EnvPool: many C++ worlds stepped by threads, as one Env. EnvPool is imported on first use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.base import Env
from torchrl.envs.simulators.base import FRESH
from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.buffers import StepBuffers
from torchrl.envs.vector.building import require_free_names
from torchrl.envs.vector.worker import Actions, Worker, not_restarted
from torchrl.errors import ConfigError, EnvError, explain, nearest
from torchrl.extras import require
from torchrl.seeding import child_seeds

OWN_OPTIONS = ("num_envs", "batch_size", "num_threads", "seed", "env_seed")
MAX_SEED = 2**31  # EnvPool's are int32


class EnvPoolEnv(WorkerEnv):
    """The worlds of an EnvPool as an environment ``[num_envs]``, with the transitions that any environment here has.

    What is under ``next`` is the true successor, and no transition is made of a reset: rows that ended are restarted at
    once by ``pool.reset(rows)``, before EnvPool would turn their next step into a reset. All rows are stepped together
    (EnvPool's synchronous mode). Where a task is over in the very step of the time limit, EnvPool reports ``truncated``
    alone.

    The worlds are EnvPool's own: the same id may differ in detail from gymnasium's, and the same seed gives other
    episodes. EnvPool takes seeds when a pool is built, so a reset of all rows with seeds builds a new one; single rows
    cannot be seeded. There are no reset options. The state cannot be saved.

    Args:
        name: an id that EnvPool knows, such as ``"CartPole-v1"`` or ``"Pong-v5"``.
        num_envs: number of worlds.
        env_kwargs: further options for ``envpool.make_gymnasium``, for example ``{"max_episode_steps": 100}``.
        num_threads: threads that step the worlds; None leaves it to EnvPool.
        seed: as :meth:`set_seed`; None draws one.

    Raises:
        ConfigError: ``num_envs`` is no positive integer, or ``env_kwargs`` holds what has an argument of its own.
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
        options = _checked_options(num_envs, env_kwargs, num_threads)
        envpool = require("envpool", extra="envpool", purpose="EnvPoolEnv")
        observation_space, action_space = _spaces(envpool, name, options)
        require_free_names("EnvPoolEnv", observation_space)
        super().__init__(
            partial(EnvPoolWorker, partial(envpool.make_gymnasium, name, **options), observation_space),
            observation_space=observation_space,
            action_space=action_space,
            batch_size=[num_envs],
        )
        self.name = name
        if seed is not None:
            self.set_seed(seed)

    def _require_options(self, options: list[dict]) -> None:
        """Refuse any: an EnvPool's resets take none."""
        Env._require_options(self, options)

    def state_dict(self) -> dict:
        """Refuse: what happens inside EnvPool cannot be captured.

        Raises:
            EnvError: always.
        """
        raise EnvError(explain("EnvPoolEnv", expected="a state to save", got="worlds inside EnvPool", hint=FRESH))


class EnvPoolWorker(Worker):
    """Steps and restarts a pool, which it builds at the first restart and at each one with seeds.

    Args:
        make_pool: builds a pool for the gymnasium interface; takes ``seed``, one int32 per row.
        observation_space: of one world.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.
    """

    def __init__(self, make_pool: Callable, observation_space: Space, buffers: StepBuffers) -> None:
        super().__init__(observation_space, buffers)
        self._make_pool = make_pool
        self._pool: Any = None
        self._all = np.arange(len(self._reward), dtype=np.int32)

    def advance(self, actions: Actions) -> bool:
        """Step the pool; see :meth:`Worker.advance`."""
        if not self._may_step:
            raise not_restarted(self.ended())
        observations, rewards, terminated, truncated, info = self._pool.step(actions)  # casts the actions itself
        if not np.array_equal(info["env_id"], self._all):
            raise EnvError(explain("EnvPoolEnv", expected="rows in the order of their slots", got=info["env_id"]))
        for leaf in self._next_leaves:
            leaf.write_batch(observations)
        self._write_flags(rewards, terminated, truncated)
        ended = bool(terminated.any() or truncated.any())
        self._turn_over()
        if ended:
            self._mark_ended()
        return ended

    def restart(
        self,
        indices: Sequence[int],
        seeds: Sequence[int | None] | None = None,
        options: dict | Sequence[dict | None] | None = None,
    ) -> None:
        """Begin the next episode of the given slots; see :meth:`Worker.restart`.

        Raises:
            EnvError: there are options, or seeds for some of the slots.
        """
        if options if options is None or isinstance(options, dict) else any(options):
            raise EnvError(explain("EnvPoolEnv.reset", expected="no options", got=repr(options)))
        rows = np.fromiter(indices, np.int32)
        if not len(rows):
            return
        self._prepare(rows, [seed for seed in seeds or () if seed is not None])
        observations, info = self._pool.reset(rows)
        if not np.array_equal(info["env_id"], rows):
            raise EnvError(explain("EnvPoolEnv.reset", expected=f"the rows {rows.tolist()}", got=info["env_id"]))
        for leaf in self._root_leaves[self.turn]:
            leaf.write_part(rows, observations)
        for index in indices:
            self._begin(index)
        self._may_step = not self._has_ended.any()

    def render(self) -> list:
        """Return one frame per slot.

        Raises:
            EnvError: the pool does not draw, or there is none before the first reset.
        """
        if self._pool is None or self._pool.render_mode != "rgb_array":
            expected = 'env_kwargs={"render_mode": "rgb_array"} and a reset'
            raise EnvError(explain("EnvPoolEnv.render", expected=expected, got="none of one of them"))
        return list(self._pool.render(self._all))

    def close(self) -> None:
        """Let go of the pool; its threads end with it."""
        self._pool = None
        self._has_ended.fill(True)
        self._may_step = False

    def _prepare(self, rows: np.ndarray, seeds: list[int]) -> None:
        """Build a pool where there is none, or a seeded one."""
        num_envs = len(self._all)
        if seeds and not (len(rows) == len(seeds) == num_envs):
            hint = "EnvPool takes seeds when it is built: give every row one, in a reset of all rows."
            expected, got = f"seeds for none or all of the {num_envs} rows", f"{len(seeds)} of them"
            raise EnvError(explain("EnvPoolEnv.reset", expected=expected, got=got, hint=hint))
        if seeds:
            self.close()
            seeds = [seed if seed < MAX_SEED else child_seeds(seed, 1)[0] for seed in seeds]
        elif self._pool is None:
            seeds = child_seeds(np.random.SeedSequence().entropy, num_envs)
        else:
            return
        with _quiet():
            self._pool = self._make_pool(seed=seeds)
            _ = self._pool.observation_space  # kept by the pool from now on


def _checked_options(num_envs: int, env_kwargs: dict[str, Any] | None, num_threads: int | None) -> dict[str, Any]:
    """Return what ``envpool.make_gymnasium`` is given beside the name."""
    if isinstance(num_envs, bool) or not isinstance(num_envs, Integral) or num_envs < 1:
        raise ConfigError(explain("EnvPoolEnv", expected="num_envs of at least 1", got=repr(num_envs)))
    taken = [key for key in OWN_OPTIONS if key in (env_kwargs or {})]
    if taken:
        hint = "num_envs, num_threads and seed are arguments of EnvPoolEnv; all rows are stepped together."
        raise ConfigError(explain("EnvPoolEnv", expected="none of these in env_kwargs", got=taken, hint=hint))
    threads = {} if num_threads is None else {"num_threads": num_threads}
    return {**(env_kwargs or {}), **threads, "num_envs": int(num_envs)}


def _spaces(envpool: ModuleType, name: str, options: dict[str, Any]) -> tuple[Space, Space]:
    """Read the observations and actions of one world of a pool, without building it.

    Raises:
        EnvError: there is no such pool, or it cannot be presented.
    """
    known = envpool.list_all_envs()
    if name not in known:
        near = nearest(str(name), known)
        hint = f'Did you mean "{near}"?' if near else "envpool.list_all_envs() lists them."
        raise EnvError(explain("EnvPoolEnv", expected="an id that EnvPool knows", got=repr(name), hint=hint))
    try:
        with _quiet():
            spec = envpool.make_spec(name, **options)
            observation_space, action_space = spec.gymnasium_observation_space, spec.gymnasium_action_space
    except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
        who, expected = f"EnvPoolEnv({name!r})", "a pool that EnvPool can build, with such env_kwargs"
        raise EnvError(explain(who, expected=expected, got=f"{type(error).__name__}: {error}")) from error
    players = spec.config.max_num_players
    if players > 1 or not isinstance(action_space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)):
        got = f"{players} players, {action_space}"
        raise EnvError(explain(f"EnvPoolEnv({name!r})", expected="one player whose action is one array", got=got))
    return _with_open_bounds(observation_space), action_space


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what gymnasium says to EnvPool about the precision of its bounds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered by casting")
        yield


def _with_open_bounds(space: Space) -> Space:
    """Open the sides of boxes that EnvPool leaves at the smallest or largest number of their dtype.

    It calls the smallest positive number of a float dtype the lower bound of what has none.
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _with_open_bounds(part) for key, part in space.items()})
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        return space
    limits = np.finfo(space.dtype)
    is_open_below = (space.low == limits.min) | (space.low == limits.tiny)
    low = np.where(is_open_below, -np.inf, space.low).astype(space.dtype)
    high = np.where(space.high == limits.max, np.inf, space.high).astype(space.dtype)
    return spaces.Box(low, high, space.shape, space.dtype)
