"""The worker of ``GymVectorEnv``: steps and restarts a gymnasium vector environment, which ``gym_vector`` checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import vector as wrappers

from torchrl.envs.simulators.gym import GymSimulator
from torchrl.envs.simulators.leaving_out import Name, without_entries
from torchrl.envs.simulators.offsets import count_from_zero
from torchrl.envs.vector.batches import Actions
from torchrl.envs.vector.buffers import (
    Leaf,
    StepBuffers,
    allocate_observations,
    copy_into,
    copy_tree,
    observation_leaves,
)
from torchrl.envs.vector.building import shared_options
from torchrl.envs.vector.info_entries import InfoEntries
from torchrl.envs.vector.worker import FIVE, PAIR, WEIGH, Options, Worker, not_restarted
from torchrl.errors import EnvError, explain
from torchrl.seeding import join_seeds

ROWS_HINT = (
    'Build it with autoreset_mode SAME_STEP, or from single environments: gymnasium.make_vec(id, n, "sync"), or '
    "GymEnv(id, num_envs=n)."
)
# What gymnasium's wrappers keep of each row. A reset of some rows makes them forget all of them.
KEPT_BY_ROW = {
    wrappers.RecordEpisodeStatistics: ("episode_start_times", "episode_returns", "episode_lengths", "prev_dones"),
    wrappers.NormalizeReward: ("accumulated_reward", "_prev_dones"),
}


class VectorWorker(Worker):
    """Step and restart a gymnasium vector environment, and write its results into numpy buffers.

    Args:
        vector_env: the vector environment.
        mode: its autoreset mode.
        leave_out: names of observations to leave out.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.
        infos: entries of ``info`` that are observed; None observes none.

    Attributes:
        restarts_rows: whether single rows can be restarted where they did not end.
    """

    env_name = "GymVectorEnv"

    def __init__(
        self,
        vector_env: VectorEnv,
        mode: AutoresetMode,
        leave_out: Sequence[Name],
        buffers: StepBuffers,
        *,
        infos: InfoEntries | None = None,
    ) -> None:
        left, leaving = without_entries("leave_out", self._space_of(vector_env), leave_out)
        self._leaving = leaving if leave_out else None
        observation_space, _, self._outward = count_from_zero(left)
        _, self._inward, _ = count_from_zero(vector_env.single_action_space)
        self._infos = infos
        observation_space = observation_space if infos is None else infos.space
        super().__init__(observation_space, buffers)
        self.vector_env = vector_env
        self._num_envs = vector_env.num_envs
        self._mode = mode
        self._resets_itself = mode is AutoresetMode.SAME_STEP
        self.restarts_rows = _restarts_rows(vector_env, mode)
        self._is_wrapped = isinstance(vector_env, VectorWrapper)
        self._kept = [
            (layer, name)
            for layer in layers_of(vector_env)
            for kind, names in KEPT_BY_ROW.items()
            if isinstance(layer, kind)
            for name in names
        ]
        # First observations that came with the last step of the episode before, until they are asked for.
        held = allocate_observations(observation_space, self._num_envs)
        self._held_leaves = [Leaf(held, leaf, self.row) for leaf in observation_leaves(observation_space)]
        self._is_held = np.zeros(self._num_envs, dtype=bool)
        self._is_frozen = np.zeros(self._num_envs, dtype=bool)

    def _space_of(self, vector_env: VectorEnv) -> Space:
        """Return the space of one row's observation, as :meth:`_translate` finds it."""
        return vector_env.single_observation_space

    def advance(self, actions: Actions) -> bool:
        """Step the vector environment; answer whether any row ended. See :meth:`Worker.advance`.

        Where it restarts rows itself, their first observations are held back for :meth:`restart`.
        """
        if not self._may_step:
            raise not_restarted(self.ended())
        observations, rewards, terminated, truncated, info = self._take_step(actions)
        observations = self._present(observations, info, ~self._is_frozen)
        for leaf in self._next_leaves:
            leaf.write_batch(observations)
        self._write_flags(rewards, terminated, truncated)
        if self._is_frozen.any():
            self._repeat_frozen()
        ended = bool(self._terminated.any() or self._truncated.any())
        if ended:
            self._keep_ends(observations, info)
        self._finish_step()
        if ended:
            self._mark_ended()
        return ended

    def _take_step(self, actions: Actions) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Step the vector environment; return its five values."""
        actions = actions if self._inward is None else self._inward(actions)
        if self._is_wrapped:
            actions = deepcopy(actions)  # VectorizeTransformAction may write into what it is given: the policy's action
        try:
            result = self.vector_env.step(actions)
        except (ValueError, TypeError) as error:
            explained = _explain(error)
            if explained is None:
                raise
            raise explained from error
        try:
            observations, rewards, terminated, truncated, info = result
        except (ValueError, TypeError) as error:
            raise _wrong_count("step", FIVE, result) from error
        return observations, rewards, terminated, truncated, info

    def restart(
        self, indices: Sequence[int], seeds: Sequence[int | None] | None = None, options: Options = None
    ) -> None:
        """Begin the next episode of the given rows, and write its first observation into the current root.

        Raises:
            EnvError: options that differ from row to row.
        """
        options = shared_options("GymVectorEnv", options)
        rows = np.zeros(self._num_envs, dtype=bool)
        rows[list(indices)] = True
        seeds = {} if seeds is None else dict(zip(indices, seeds, strict=True))
        held = rows & self._is_held & ~self._is_frozen
        held[[index for index, seed in seeds.items() if seed is not None]] = False
        if options or (rows.all() and not self.restarts_rows):
            held[:] = False
        fresh = rows & ~held
        for leaf, kept in zip(self._root_leaves[self.turn], self._held_leaves, strict=True):
            leaf.array[held] = kept.array[held]
        if fresh.any():
            self._reset_rows(fresh, seeds, options)
        self._is_held[rows] = self._is_frozen[rows] = False
        self._counts[rows] = 1
        for index in indices:
            self._begin(index)
        self._may_step = not self._has_ended.any()

    @property
    def can_freeze(self) -> bool:
        """Whether rows can wait; they are stepped unseen and begin a new episode, so they must be restarted by row."""
        return self.restarts_rows

    def freeze(self, indices: Sequence[int]) -> None:
        """Hide what the given rows do until :meth:`restart`, which begins a new episode; see :meth:`Worker.freeze`.

        The vector environment steps them further, as it steps all rows, so their random generators move on.

        Raises:
            EnvError: the vector environment cannot restart single rows.
        """
        if not self.can_freeze:
            super().freeze(indices)
        rows = list(indices)
        over = np.zeros(self._num_envs, dtype=bool)
        over[rows] = self._has_ended[rows]
        self._is_frozen[rows] = True
        self._counts[rows] = 0
        self._has_ended[rows] = False
        self._go_on_unseen(over)
        self._may_step = not self._has_ended.any()

    def _repeat_frozen(self) -> None:
        """Replace what frozen rows did in this step by their last observation, reward 0 and no flags."""
        rows = self._is_frozen
        over = rows & (self._terminated | self._truncated)
        for leaf, last in zip(self._next_leaves, self._root_leaves[self.turn], strict=True):
            leaf.array[rows] = last.array[rows]
        self._reward[rows] = 0
        self._terminated[rows] = self._truncated[rows] = False
        self._go_on_unseen(over)

    def _go_on_unseen(self, over: np.ndarray) -> None:
        """Restart frozen rows whose hidden episode is over, where the vector environment does not by itself."""
        if self._mode is AutoresetMode.DISABLED and over.any():
            self._reset_some(over, None, None)

    def get_state(self) -> dict:
        """Return the state of a ``SyncVectorEnv``'s simulators, the current root, and the first observations held back.

        Raises:
            EnvError: the simulators are hidden by wrappers or processes, a row waits, or one cannot save its state.
        """
        if self._is_frozen.any():
            raise EnvError(explain(f"{self._who}, state", expected="rows that play", got="some that wait"))
        return {
            "simulators": [simulator.get_state() for simulator in self._simulators("a state to save")],
            "root": copy_tree(self.root),
            "has_ended": self._has_ended.copy(),
            "is_held": self._is_held.copy(),
            "held": [leaf.array.copy() for leaf in self._held_leaves],
        }

    def set_state(self, state: dict) -> None:
        """Restore the state from :meth:`get_state`, of a ``SyncVectorEnv`` built alike.

        Raises:
            EnvError: the simulators are hidden by wrappers or processes, or one cannot load its state.
        """
        simulators = self._simulators("a state to load")
        self.vector_env.reset()  # so that it resets no row by itself at the next step
        for simulator, simulator_state in zip(simulators, state["simulators"], strict=True):
            simulator.set_state(simulator_state)
        copy_into(self.root, state["root"])
        for leaf, values in zip(self._held_leaves, state["held"], strict=True):
            np.copyto(leaf.array, values)
        np.copyto(self._has_ended, state["has_ended"])
        np.copyto(self._is_held, state["is_held"])
        self._is_frozen.fill(False)
        self._counts.fill(1)
        self._may_step = not self._has_ended.any()

    def _simulators(self, expected: str) -> list[GymSimulator]:
        if not isinstance(self.vector_env, SyncVectorEnv):
            raise self._has_no_state(expected)
        return [GymSimulator(env) for env in self.vector_env.envs]

    def render(self) -> list:
        """Return one frame per row.

        Raises:
            EnvError: the vector environment was not built to return pictures.
        """
        frames = self.vector_env.render()
        if frames is None or any(frame is None for frame in frames):
            hint = 'Build it so: gymnasium.make_vec(id, num_envs=n, render_mode="rgb_array").'
            got = f'render_mode "{self.vector_env.render_mode}"'
            raise EnvError(explain("GymVectorEnv.render", expected='render_mode "rgb_array"', got=got, hint=hint))
        return list(frames)

    def close(self) -> None:
        """Close the vector environment."""
        self.vector_env.close()

    def _present(self, observations: Any, info: Mapping, rows: np.ndarray) -> Any:
        """Return a batch as it is observed; ``rows``, bool ``[num_envs]``, are those whose infos must be there."""
        shown = self._translate(observations)
        return shown if self._infos is None else self._infos.beside(shown, self._infos.read(info, rows))

    def _translate(self, observations: Any) -> Any:
        observations = observations if self._leaving is None else self._leaving(observations)
        return observations if self._outward is None else self._outward(observations)

    def _keep_ends(self, observations: Any, info: dict) -> None:
        """Hold back first observations that came with last ones, in mode ``SAME_STEP``; write the true last ones."""
        if not self._resets_itself:
            return
        listed = not isinstance(info, Mapping)  # DictInfoToList
        last = [row.get("final_obs") for row in info] if listed else info.get("final_obs")
        ends = self._terminated | self._truncated
        ended = np.flatnonzero(ends)
        if last is None or any(last[index] is None for index in ended):
            expected = "the last observation of an episode in info['final_obs'], as autoreset mode SAME_STEP promises"
            got = f"the keys {sorted(info[ended[0]] if listed else info)}"
            raise EnvError(explain("GymVectorEnv", expected=expected, got=got))
        self._hold(ends, observations)
        added = None if self._infos is None else self._infos.read(info.get("final_info", {}), ends)
        for index in ended:
            observation = self._translate(last[index])
            if added is not None:
                observation = self._infos.beside(observation, self._infos.row(added, index))
            for leaf in self._next_leaves:
                leaf.write_one(index, observation)

    def _hold(self, rows: np.ndarray, observations: Any) -> None:
        """Store first observations of the next episodes of these rows, bool ``[num_envs]``, for :meth:`restart`."""
        for leaf in self._held_leaves:
            leaf.write_rows(rows, observations)
        self._is_held |= rows

    def _reset_rows(self, rows: np.ndarray, seeds: dict[int, int | None], options: dict | None) -> None:
        seed = self._seed_for(rows, seeds) if seeds else None
        if rows.all():
            observations, info = _first_of(self.vector_env.reset(seed=seed, options=options))
        elif not self.restarts_rows:
            raise cannot_restart(self.vector_env)
        else:
            observations, info = self._reset_some(rows, seed, options)
        self._note_reset(rows, info)
        observations = self._present(observations, info, rows)
        for leaf in self._root_leaves[self.turn]:
            others = leaf.write_rows(rows, observations)
            if not (others or self._infos is not None or knows_masks(self.vector_env)):
                raise cannot_restart(self.vector_env)

    def _reset_some(self, rows: np.ndarray, seed: Any, options: dict | None) -> tuple[Any, dict]:
        """Restart some rows; what gymnasium's wrappers keep of the others stays."""
        kept = [(layer, name, getattr(layer, name).copy()) for layer, name in self._kept]
        options = {**(options or {}), "reset_mask": rows.copy()}
        observations, info = _first_of(self.vector_env.reset(seed=seed, options=options))
        for layer, name, values in kept:
            getattr(layer, name)[~rows] = values[~rows]
        return observations, info

    def _seed_for(self, rows: np.ndarray, seeds: dict[int, int | None]) -> Any:
        """Return the seed for a reset of ``rows``: gymnasium's two take one for each row, others one for all."""
        seed = [seeds.get(index) for index in range(self._num_envs)]
        return seed if is_of_gymnasium(self.vector_env) else join_seeds(seed)

    def _note_reset(self, rows: np.ndarray, info: dict) -> None:
        """Look at the infos of a reset of ``rows``; by default nothing is done."""


def _first_of(result: Any) -> tuple[Any, dict]:
    """Return a reset's result, ``(observations, info)``, if it is one."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise _wrong_count("reset", PAIR, result)
    return result


def _wrong_count(method: str, expected: str, result: Any) -> EnvError:
    got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
    hint = "In the old gym, done was terminated or a time limit, and a reset returned the observations alone."
    return EnvError(explain(f"{method} of the vector environment", expected=expected, got=got, hint=hint))


def _explain(error: Exception) -> EnvError | None:
    """Return an error for simulators' results that gymnasium cannot join; None if a simulator itself raised."""
    frames = error.__traceback__
    while frames.tb_next is not None:
        frames = frames.tb_next
    if not frames.tb_frame.f_globals["__name__"].startswith("gymnasium."):
        return None
    if "array element with a sequence" in str(error):
        hint = f"Return float(reward). {WEIGH}"
        return EnvError(explain("GymVectorEnv.step", expected="one number as reward", got=error, hint=hint))
    if "values to unpack" in str(error):
        hint = f"A step returns {FIVE}."
        return EnvError(explain("GymVectorEnv.step", expected="environments of gymnasium", got=error, hint=hint))
    return None


def is_of_gymnasium(vector_env: VectorEnv) -> bool:
    """Answer whether the vector environment, below its wrappers, is a ``SyncVectorEnv`` or an ``AsyncVectorEnv``."""
    return isinstance(vector_env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))


def is_of_ale(vector_env: VectorEnv) -> bool:
    """Answer whether the vector environment, below its wrappers, is ale-py's ``AtariVectorEnv``."""
    return any(kind.__module__.split(".")[0] == "ale_py" for kind in type(vector_env.unwrapped).__mro__)


def knows_masks(vector_env: VectorEnv) -> bool:
    """Answer whether a reset of some rows works in every mode, and leaves none of them to be reset at its next step."""
    return is_of_gymnasium(vector_env) or is_of_ale(vector_env)


def layers_of(vector_env: VectorEnv) -> Iterator[VectorWrapper]:
    """Yield the wrappers around a vector environment from the outside in."""
    while isinstance(vector_env, VectorWrapper):
        yield vector_env
        vector_env = vector_env.env


def own_resets(vector_env: VectorEnv) -> list[str]:
    """List the class names of wrappers with a ``reset`` that is not gymnasium's: it may change rows that go on."""
    resets = {type(layer).__name__: type(layer).reset.__module__ for layer in layers_of(vector_env)}
    return [name for name, module in resets.items() if module.split(".")[0] != "gymnasium"]


def _restarts_rows(vector_env: VectorEnv, mode: AutoresetMode) -> bool:
    return (knows_masks(vector_env) or mode is AutoresetMode.DISABLED) and not own_resets(vector_env)


def cannot_restart(vector_env: VectorEnv) -> EnvError:
    """Return the error for a vector environment that cannot restart single rows; it says how to build one that can."""
    who = f"GymVectorEnv({type(vector_env.unwrapped).__name__})"
    expected = "rows that can be restarted one by one, reset(options={'reset_mask': rows})"
    mode = vector_env.metadata["autoreset_mode"]
    return EnvError(explain(who, expected=expected, got=f"one that restarts all, in {mode}", hint=ROWS_HINT))
