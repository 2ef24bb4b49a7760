"""An EnvPool: many C++ worlds stepped by threads, as one Env. EnvPool is imported on first use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.simulators.base import FRESH
from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.buffers import Leaf, StepBuffers, allocate_observations, observation_leaves, rows_of
from torchrl.envs.vector.building import require_free_names
from torchrl.envs.vector.worker import Actions, Worker, not_restarted
from torchrl.errors import ConfigError, EnvError, explain, nearest
from torchrl.extras import require
from torchrl.seeding import child_seeds
from torchrl.threads import SameCore, start_apart

OWN_OPTIONS = ("num_envs", "batch_size", "num_threads", "seed", "env_seed")
MAX_SEED = 2**31  # EnvPool's are int32


class EnvPoolEnv(WorkerEnv):
    """The worlds of an EnvPool as an environment ``[num_envs]``, with the transitions that any environment here has.

    What is under ``next`` is the true successor, and no transition is made of a reset: every row has two worlds, of
    which one stands at the beginning of an episode while the other plays, so a row that ended goes on at once, and the
    step that EnvPool spends on a reset is never seen. All rows are stepped together (EnvPool's synchronous mode). Where
    a task is over in the very step of the time limit, EnvPool reports ``truncated`` alone.

    With ``env_kwargs={"episodic_life": True}`` an episode is one life of a game, and a row stays with its game: it has
    one world, where the next life is the next episode until the game is over. A reset in mid-life begins a new game.

    The worlds are EnvPool's own: the same id may differ in detail from gymnasium's, and the same seed gives other
    episodes. EnvPool takes seeds when a pool is built, so a reset of all rows with seeds builds a new one; single rows
    cannot be seeded. There are no reset options. The state cannot be saved.

    Args:
        name: an id that EnvPool knows, such as ``"CartPole-v1"`` or ``"Pong-v5"``.
        num_envs: number of rows.
        env_kwargs: further options for ``envpool.make_gymnasium``, for example ``{"max_episode_steps": 100}``.
        num_threads: threads that step the worlds; None leaves it to EnvPool. A single one is kept on the caller's core,
            which waits for it anyway: the fastest way to step cheap worlds.
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
        spec = _spec_of(envpool, name, options)
        observation_space, action_space = _spaces(name, spec)
        require_free_names("EnvPoolEnv", observation_space)
        worker = EnvPoolWorker if getattr(spec.config, "episodic_life", False) else TurnsWorker
        make_pool = partial(
            envpool.make_gymnasium, name, **{**options, "num_envs": worker.num_worlds * options["num_envs"]}
        )
        super().__init__(
            partial(worker, make_pool, observation_space, num_threads == 1),
            observation_space=observation_space,
            action_space=action_space,
            batch_size=[num_envs],
        )
        self.name = name
        self.step_limit = spec.config.max_episode_steps
        if seed is not None:
            self.set_seed(seed)

    @property
    def seeds_rows(self) -> bool:
        """No: a pool takes all its seeds when it is built."""
        return False

    def state_dict(self) -> dict:
        """Refuse: what happens inside EnvPool cannot be captured.

        Raises:
            EnvError: always.
        """
        raise EnvError(explain("EnvPoolEnv", expected="a state to save", got="worlds inside EnvPool", hint=FRESH))


class EnvPoolWorker(Worker):
    """Steps and restarts a pool, which it builds at the first restart and at each one with seeds.

    Every row has one world. What ended goes on by a message of its own: a step, which EnvPool turns into a reset that
    leaves a game with lives where it is.

    Args:
        make_pool: builds a pool for the gymnasium interface; takes ``seed``, one int32 per world.
        observation_space: of one world.
        on_our_core: whether to keep the pool's threads where its caller is.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.

    Attributes:
        num_worlds: how many each row has.
    """

    num_worlds = 1

    def __init__(self, make_pool: Callable, observation_space: Space, on_our_core: bool, buffers: StepBuffers) -> None:
        super().__init__(observation_space, buffers)
        self._make_pool = make_pool
        self._on_our_core = on_our_core
        self._pool: _Pool | None = None
        self._threads = SameCore([])
        num_envs = len(self._reward)
        self._rows = np.arange(num_envs)
        self._playing = np.arange(num_envs, dtype=np.int32)  # which world each row plays in
        self._is_over = np.zeros(num_envs, dtype=bool)  # what is played
        self._actions = self._rows  # of the last step

    def advance(self, actions: Actions) -> bool:
        """Step the worlds that play; see :meth:`Worker.advance`."""
        if not self._may_step:
            raise not_restarted(self.ended())
        self._threads.follow()
        self._actions = actions
        outcome = self._stepped(actions)
        for leaf in self._next_leaves:
            leaf.write_batch(outcome.observations)
        self._write_flags(outcome.rewards, outcome.done > outcome.truncated, outcome.truncated)
        ended = bool(outcome.done.any())
        self._finish_step()
        if ended:
            self._mark_ended()
            np.copyto(self._is_over, outcome.done)
        return ended

    def restart(
        self,
        indices: Sequence[int],
        seeds: Sequence[int | None] | None = None,
        options: dict | Sequence[dict | None] | None = None,
    ) -> None:
        """Begin the next episode of the given rows; see :meth:`Worker.restart`.

        Raises:
            EnvError: there are options, or seeds for some of the rows.
        """
        if options if options is None or isinstance(options, dict) else any(options):
            raise EnvError(explain("EnvPoolEnv.reset", expected="no options", got=repr(options)))
        rows = np.fromiter(indices, np.int64)
        if not len(rows):
            return
        self._prepare(rows, [seed for seed in seeds or () if seed is not None])
        is_over = self._is_over[rows]
        if not is_over.all():  # in the middle of an episode, or before the first
            self._threads.follow()
            self._write_root(rows[~is_over], self._pool.reset(self._playing[rows[~is_over]]))
        if is_over.any():
            self._begin_next_episodes(rows[is_over])
        self._is_over[rows] = False
        self._begin(rows)
        self._may_step = not self._has_ended.any()

    def require_ability(self, ability: str) -> None:
        """Refuse options: an EnvPool's resets take none; see :meth:`Worker.require_ability`."""
        if ability == "options":
            expected = "simulators whose resets take options"
            raise EnvError(explain("set_info_, env_info", expected=expected, got="EnvPoolEnv"))

    def _stepped(self, actions: Actions) -> Outcome:
        return self._pool.step(self._playing, actions)

    def _begin_next_episodes(self, rows: np.ndarray) -> None:
        """Begin the next episode of rows whose last one is over."""
        self._threads.follow()
        self._write_root(rows, self._pool.step(self._playing[rows], self._actions[rows]))  # no action counts here

    def _write_root(self, rows: np.ndarray, outcome: Outcome) -> None:
        for leaf in self._root_leaves[self.turn]:
            leaf.write_part(rows, outcome.observations)

    def render(self) -> list:
        """Return one frame per row.

        Raises:
            EnvError: the pool does not draw, or there is none before the first reset.
        """
        if self._pool is None or self._pool.library.render_mode != "rgb_array":
            expected = 'env_kwargs={"render_mode": "rgb_array"} and a reset'
            raise EnvError(explain("EnvPoolEnv.render", expected=expected, got="none of one of them"))
        return list(self._pool.library.render(self._playing))

    def close(self) -> None:
        """Let go of the pool; its threads end with it."""
        self._pool = None
        self._has_ended.fill(True)
        self._may_step = False

    def _prepare(self, rows: np.ndarray, seeds: list[int]) -> None:
        """Build a pool where there is none, or a seeded one."""
        num_envs = len(self._rows)
        if seeds and not (len(rows) == len(seeds) == num_envs):
            hint = "EnvPool takes seeds when it is built: give every row one, in a reset of all rows."
            expected, got = f"seeds for none or all of the {num_envs} rows", f"{len(seeds)} of them"
            raise EnvError(explain("EnvPoolEnv.reset", expected=expected, got=got, hint=hint))
        if seeds:
            self.close()
        elif self._pool is None:
            seeds = child_seeds(np.random.SeedSequence().entropy, num_envs)
        else:
            return
        seeds = [seed if seed < MAX_SEED else child_seeds(seed, 1)[0] for seed in seeds]
        build = partial(self._make_pool, seed=self._seeds_of_worlds(seeds))
        with _without_precision_warning():
            pool, threads = start_apart(build) if self._on_our_core else (build(), [])
            self._pool = _Pool(pool)
        self._threads = SameCore(threads)
        self._is_over.fill(False)

    def _seeds_of_worlds(self, seeds: list[int]) -> list[int]:
        return seeds


class TurnsWorker(EnvPoolWorker):
    """Has two worlds for each row, which take turns: while one plays, the other stands at its next beginning.

    So an episode that is over is followed at once by the next, and the world that it was played in is reset in the same
    message that steps the others.

    Args:
        make_pool: see :class:`EnvPoolWorker`; so the others.
    """

    num_worlds = 2

    def __init__(self, make_pool: Callable, observation_space: Space, on_our_core: bool, buffers: StepBuffers) -> None:
        super().__init__(make_pool, observation_space, on_our_core, buffers)
        num_envs = len(self._rows)
        self._standby = self._playing + np.int32(num_envs)  # which world is next
        self._to_reset = self._rows[:0]  # rows whose world on standby was played to the end
        self._begins = allocate_observations(observation_space, num_envs)  # where the worlds on standby stand
        leaves = observation_leaves(observation_space)
        self._begin_leaves = [Leaf(self._begins, leaf, self.row) for leaf in leaves]

    def _stepped(self, actions: Actions) -> Outcome:
        rows, self._to_reset = self._to_reset, self._rows[:0]
        if not len(rows):
            return self._pool.step(self._playing, actions)
        worlds = np.concatenate((self._playing, self._standby[rows]))
        both = self._pool.step(worlds, np.concatenate((actions, actions[rows])))  # for these no action counts
        self._keep_first_observations(rows, both.part(len(self._rows), len(worlds)))
        return both.part(0, len(self._rows))

    def _begin_next_episodes(self, rows: np.ndarray) -> None:
        self._playing[rows], self._standby[rows] = self._standby[rows], self._playing[rows]
        for target, source in zip(self._root_leaves[self.turn], self._begin_leaves, strict=True):
            target.array[rows] = source.array[rows]
        self._to_reset = np.concatenate((self._to_reset, rows))

    def _keep_first_observations(self, rows: np.ndarray, outcome: Outcome) -> None:
        """Keep the first observations of the worlds that come next."""
        if outcome.num_steps.any():
            got = f"step {outcome.num_steps.tolist()} of their episodes"
            raise EnvError(explain("EnvPoolEnv", expected="worlds that begin again after an ending", got=got))
        for leaf in self._begin_leaves:
            leaf.write_part(rows, outcome.observations)

    def _prepare(self, rows: np.ndarray, seeds: list[int]) -> None:
        before = self._pool
        super()._prepare(rows, seeds)
        if self._pool is before:
            return
        self._to_reset = self._rows[:0]
        self._playing[:], self._standby[:] = self._rows, self._rows + len(self._rows)
        self._keep_first_observations(self._rows, self._pool.reset(self._standby))

    def _seeds_of_worlds(self, seeds: list[int]) -> list[int]:
        return seeds + [child_seeds(seed, 1)[0] for seed in seeds]


class _Pool:
    """A pool, spoken to below its Python layer, whose conversions cost an eighth of a step of 64 CartPoles.

    Args:
        library: what ``envpool.make_gymnasium`` returned.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        names = list(library._state_keys)
        self._places = [names.index(key) for key in ("info:env_id", "reward", "done", "trunc", "elapsed_step")]
        form = _form_of({name: place for place, name in enumerate(names) if name.split(":")[0] == "obs"})
        while isinstance(form, dict) and len(form) == 1 and not isinstance(library.observation_space, spaces.Dict):
            (form,) = form.values()
        self._form = form
        self._action_dtype = library.spec.action_array_spec["action"].dtype

    def step(self, worlds: np.ndarray, actions: np.ndarray) -> Outcome:
        """Step some worlds, int32 ``[n]``; those whose episode is over are reset instead."""
        self.library._send([worlds, worlds, np.ascontiguousarray(actions, self._action_dtype)])
        return self._receive(worlds)

    def reset(self, worlds: np.ndarray) -> Outcome:
        """Reset some worlds, int32 ``[n]``."""
        self.library._reset(worlds)
        return self._receive(worlds)

    def _receive(self, worlds: np.ndarray) -> Outcome:
        values = self.library._recv()
        came, rewards, done, truncated, num_steps = [values[place] for place in self._places]
        if not np.array_equal(came, worlds):
            raise EnvError(explain("EnvPoolEnv", expected=f"the worlds {worlds.tolist()}", got=came.tolist()))
        return Outcome(_filled(self._form, values), rewards, done, truncated, num_steps)


class Outcome(NamedTuple):
    """What some worlds of a pool answered; arrays ``[n, ...]``.

    Attributes:
        observations: an array, or a dict of them.
        rewards: float32.
        done: bool, whether the episode is over in any way.
        truncated: bool, whether it is so by a time limit.
        num_steps: int32, how many steps the episode has had.
    """

    observations: Any
    rewards: np.ndarray
    done: np.ndarray
    truncated: np.ndarray
    num_steps: np.ndarray

    def part(self, begin: int, end: int) -> Outcome:
        """Return that of some of the worlds."""
        rows = slice(begin, end)
        return Outcome(rows_of(self.observations, rows), *[array[rows] for array in self[1:]])


def _form_of(places: dict[str, int]) -> Any:
    """Nest places by the parts of their names: ``{"obs:a": 1, "obs:b.c": 2}`` becomes ``{"a": 1, "b": {"c": 2}}``."""
    form: dict = {}
    for name, place in places.items():
        *folders, last = name.replace(":", ".").split(".")
        node = form
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = place
    return form["obs"]


def _filled(form: Any, values: Sequence[np.ndarray]) -> Any:
    return {key: _filled(part, values) for key, part in form.items()} if isinstance(form, dict) else values[form]


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


def _spec_of(envpool: ModuleType, name: str, options: dict[str, Any]) -> Any:
    """Return what EnvPool says of a pool that is not built yet.

    Raises:
        EnvError: there is no such pool.
    """
    known = envpool.list_all_envs()
    if name not in known:
        near = nearest(str(name), known)
        hint = f'Did you mean "{near}"?' if near else "envpool.list_all_envs() lists them."
        raise EnvError(explain("EnvPoolEnv", expected="an id that EnvPool knows", got=repr(name), hint=hint))
    try:
        with _without_precision_warning():
            return envpool.make_spec(name, **options)
    except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
        who, expected = f"EnvPoolEnv({name!r})", "a pool that EnvPool can build, with such env_kwargs"
        raise EnvError(explain(who, expected=expected, got=f"{type(error).__name__}: {error}")) from error


def _spaces(name: str, spec: Any) -> tuple[Space, Space]:
    """Read the observations and actions of one world of a pool.

    Raises:
        EnvError: it cannot be presented.
    """
    with _without_precision_warning():
        observation_space, action_space = spec.gymnasium_observation_space, spec.gymnasium_action_space
    players = spec.config.max_num_players
    if players > 1 or not isinstance(action_space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)):
        got = f"{players} players, {action_space}"
        raise EnvError(explain(f"EnvPoolEnv({name!r})", expected="one player whose action is one array", got=got))
    return _with_open_bounds(observation_space), action_space


@contextmanager
def _without_precision_warning() -> Iterator[None]:
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
