"""The workers of ``EnvPoolEnv``, which step and restart an EnvPool by the functions under its Python layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.vector.batches import Actions, rows_of
from torchrl.envs.vector.buffers import Leaf, StepBuffers, allocate_observations, observation_leaves
from torchrl.envs.vector.worker import Worker, not_restarted
from torchrl.errors import EnvError, explain
from torchrl.seeding import child_seeds
from torchrl.threads import SameCore, start_apart

MAX_SEED = 2**31  # EnvPool's are int32


class EnvPoolWorker(Worker):
    """Step and restart an EnvPool with one simulator per row; build the pool at the first restart and with new seeds.

    After an ending, an extra step to the row's simulator begins its next episode: EnvPool turns it into a reset, which
    continues a game that has lives left.

    Args:
        make_pool: builds a pool for the gymnasium interface; takes ``seed``, one int32 per simulator.
        observation_space: of one simulator.
        on_our_core: whether to pin the pool's threads to the core of the calling thread.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.

    Attributes:
        num_simulators: number of simulators of each row.
    """

    env_name = "EnvPoolEnv"
    num_simulators = 1

    def __init__(self, make_pool: Callable, observation_space: Space, on_our_core: bool, buffers: StepBuffers) -> None:
        super().__init__(observation_space, buffers)
        self._make_pool = make_pool
        self._on_our_core = on_our_core
        self._pool: Pool | None = None
        self._threads = SameCore([])
        num_envs = len(self._reward)
        self._rows = np.arange(num_envs)
        self._playing = np.arange(num_envs, dtype=np.int32)  # which simulator each row plays in
        self._is_over = np.zeros(num_envs, dtype=bool)  # what is played
        self._actions = self._rows  # of the last step

    def advance(self, actions: Actions) -> bool:
        """Step each row's current simulator, restart none; answer whether any row ended. See :meth:`Worker.advance`."""
        if not self._may_step:
            raise not_restarted(self.ended())
        self._threads.follow()
        self._actions = actions
        outcome = self._step_pool(actions)
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
        """Begin the next episode of the given rows, and write its first observation into the current root.

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
        """Raise an error for ``"options"``, which an EnvPool's resets do not take; ``"seeds"`` pass."""
        if ability == "options":
            expected = "simulators whose resets take options"
            raise EnvError(explain("set_info_, env_info", expected=expected, got="EnvPoolEnv"))

    def _step_pool(self, actions: Actions) -> Outcome:
        return self._pool.step(self._playing, actions)

    def _begin_next_episodes(self, rows: np.ndarray) -> None:
        """Begin the next episode of rows whose last one has ended."""
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
            raise EnvError(explain("EnvPoolEnv.render", expected=expected, got="one of them missing"))
        return list(self._pool.library.render(self._playing))

    def close(self) -> None:
        """Drop the pool, which ends its threads."""
        self._pool = None
        self._has_ended.fill(True)
        self._may_step = False

    def _prepare(self, rows: np.ndarray, seeds: list[int]) -> None:
        """Build a pool if there is none, or a new one with the given seeds."""
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
        build = partial(self._make_pool, seed=self._simulator_seeds(seeds_of_pool(seeds)))
        with without_precision_warning():
            pool, threads = start_apart(build) if self._on_our_core else (build(), [])
            self._pool = Pool(pool)
        self._threads = SameCore(threads)
        self._is_over.fill(False)

    def _simulator_seeds(self, seeds: list[int]) -> list[int]:
        return seeds


class TurnsWorker(EnvPoolWorker):
    """Step an EnvPool with two simulators per row: one is stepped, the other has been reset for the row's next episode.

    When an episode ends, the row switches to the other simulator at once; the ended one is reset by the same call that
    makes the next step of the others.

    Args:
        make_pool: as in :class:`EnvPoolWorker`, like the other arguments.
    """

    num_simulators = 2

    def __init__(self, make_pool: Callable, observation_space: Space, on_our_core: bool, buffers: StepBuffers) -> None:
        super().__init__(make_pool, observation_space, on_our_core, buffers)
        num_envs = len(self._rows)
        self._standby = self._playing + np.int32(num_envs)  # which simulator is next
        self._to_reset = self._rows[:0]  # rows whose simulator on standby was played to the end
        self._begins = allocate_observations(observation_space, num_envs)  # where the simulators on standby stand
        leaves = observation_leaves(observation_space)
        self._begin_leaves = [Leaf(self._begins, leaf, self.row) for leaf in leaves]

    def _step_pool(self, actions: Actions) -> Outcome:
        rows, self._to_reset = self._to_reset, self._rows[:0]
        if not len(rows):
            return self._pool.step(self._playing, actions)
        simulators = np.concatenate((self._playing, self._standby[rows]))
        both = self._pool.step(simulators, np.concatenate((actions, actions[rows])))  # for these no action counts
        self._keep_first_observations(rows, both.part(len(self._rows), len(simulators)))
        return both.part(0, len(self._rows))

    def _begin_next_episodes(self, rows: np.ndarray) -> None:
        self._playing[rows], self._standby[rows] = self._standby[rows], self._playing[rows]
        for target, source in zip(self._root_leaves[self.turn], self._begin_leaves, strict=True):
            target.array[rows] = source.array[rows]
        self._to_reset = np.concatenate((self._to_reset, rows))

    def _keep_first_observations(self, rows: np.ndarray, outcome: Outcome) -> None:
        """Store the first observations of the simulators that were just reset, for their rows' next episodes."""
        if outcome.num_steps.any():
            got = f"step {outcome.num_steps.tolist()} of their episodes"
            raise EnvError(explain("EnvPoolEnv", expected="simulators that begin again after an ending", got=got))
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

    def _simulator_seeds(self, seeds: list[int]) -> list[int]:
        return seeds + [child_seeds(seed, 1)[0] for seed in seeds]


class Pool:
    """Call a pool's C++ functions directly: its Python layer's conversions cost an eighth of a step of 64 CartPoles.

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

    def step(self, simulators: np.ndarray, actions: np.ndarray) -> Outcome:
        """Step some simulators, int32 ``[n]``; EnvPool resets those whose episode has ended instead."""
        self.send(simulators, actions)
        return self._receive(simulators)

    def reset(self, simulators: np.ndarray) -> Outcome:
        """Reset some simulators, int32 ``[n]``."""
        self.library._reset(simulators)
        return self._receive(simulators)

    def send(self, simulators: np.ndarray, actions: np.ndarray) -> None:
        """Let some simulators, int32 ``[n]``, step, and do not wait for them; :meth:`receive` does."""
        self.library._send([simulators, simulators, np.ascontiguousarray(actions, self._action_dtype)])

    def receive(self) -> tuple[np.ndarray, Outcome]:
        """Wait until as many simulators have answered as a batch of the pool has; return which, int32, and what."""
        values = self.library._recv()
        came, rewards, done, truncated, num_steps = [values[place] for place in self._places]
        return came, Outcome(_fill(self._form, values), rewards, done, truncated, num_steps)

    def _receive(self, simulators: np.ndarray) -> Outcome:
        came, outcome = self.receive()
        if not np.array_equal(came, simulators):
            raise EnvError(explain("EnvPoolEnv", expected=f"the simulators {simulators.tolist()}", got=came.tolist()))
        return outcome


class Outcome(NamedTuple):
    """Hold the results of a step or reset of ``n`` simulators of an EnvPool, arrays ``[n, ...]``.

    Attributes:
        observations: an array, or a dict of them.
        rewards: float32.
        done: bool, whether the episode ended, terminated or truncated.
        truncated: bool, whether a time limit ended it.
        num_steps: int32, how many steps the episode has had.
    """

    observations: Any
    rewards: np.ndarray
    done: np.ndarray
    truncated: np.ndarray
    num_steps: np.ndarray

    def part(self, begin: int, end: int) -> Outcome:
        """Return the results of the simulators from position ``begin`` up to ``end``."""
        rows = slice(begin, end)
        return Outcome(rows_of(self.observations, rows), *[array[rows] for array in self[1:]])


def seeds_of_pool(seeds: Sequence[int]) -> list[int]:
    """Return seeds that fit into EnvPool's int32; larger ones are hashed."""
    return [seed if seed < MAX_SEED else child_seeds(seed, 1)[0] for seed in seeds]


def _form_of(places: dict[str, int]) -> Any:
    """Nest a dict by the parts of its names: ``{"obs:a": 1, "obs:b.c": 2}`` becomes ``{"a": 1, "b": {"c": 2}}``."""
    form: dict = {}
    for name, place in places.items():
        *folders, last = name.replace(":", ".").split(".")
        node = form
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = place
    return form["obs"]


def _fill(form: Any, values: Sequence[np.ndarray]) -> Any:
    return {key: _fill(part, values) for key, part in form.items()} if isinstance(form, dict) else values[form]


@contextmanager
def without_precision_warning() -> Iterator[None]:
    """Suppress, in a ``with`` block, gymnasium's warning about the precision of EnvPool's bounds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered by casting")
        yield
