"""A gymnasium vector environment, of any autoreset mode, as one Env: simulators that are a batch already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.vector import (
    AsyncVectorEnv,
    AutoresetMode,
    SyncVectorEnv,
    VectorEnv,
    VectorWrapper,
)
from gymnasium.wrappers import vector as wrappers

from torchrl.envs.driving import world_of
from torchrl.envs.simulators.base import FRESH
from torchrl.envs.simulators.foreign import foreign_hint
from torchrl.envs.simulators.learning import learning_wrapper
from torchrl.envs.simulators.leaving_out import Name, without_entries
from torchrl.envs.simulators.limits import gym_step_limit
from torchrl.envs.simulators.offsets import counted_from_zero
from torchrl.envs.vector.base import WorkerEnv
from torchrl.envs.vector.buffers import Leaf, StepBuffers, allocate_observations, observation_leaves
from torchrl.envs.vector.building import require_free_names, require_one_reward
from torchrl.envs.vector.worker import FIVE, PAIR, WEIGH, Actions, Options, Worker, not_restarted, shared_options
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


class GymVectorEnv(WorkerEnv):
    """A ``gymnasium.vector.VectorEnv`` as an environment ``[num_envs]``, with the transitions a :class:`SerialEnv` has.

    What is under ``next`` is the true successor in every autoreset mode, and no transition is made of a reset:

    - ``SAME_STEP``: the last observation of an episode is taken from ``info["final_obs"]``; the one that came in its
      place begins the next episode. A world that hands out the same array at every step overwrites its last one: there
      use another mode.
    - ``NEXT_STEP`` and ``DISABLED``: rows that ended are restarted at once by ``reset(options={"reset_mask": rows})``,
      which gymnasium's ``SyncVectorEnv`` and ``AsyncVectorEnv`` know.

    Seeds go to the rows as in a :class:`SerialEnv`; a vector environment that is neither of these two, and keeps one
    generator for all rows, is seeded by one number derived from them. Frame skip, time limits and what else drives a
    world belong inside, around the single environments. The state cannot be saved.

    Wrappers of ``gymnasium.wrappers.vector`` may be around it, also those that sum up rewards row by row. Refused are
    ``NormalizeObservation``, which allows no resets of single rows; what turns arrays into those of another library;
    and, in ``NEXT_STEP`` and ``DISABLED``, a wrapper with a ``reset`` of its own that is not gymnasium's, since it may
    forget the rows that go on.

    Args:
        vector_env: the vector environment; this one closes it.
        leave_out: entries that are not observed, by name: ``["mission"]`` for text, ``"goal/text"`` inside another.

    Raises:
        ConfigError: there is no such entry.
        EnvError: it does not say its autoreset mode, cannot restart single rows where that is needed, steps a part of
            its rows at a time, has a wrapper that is refused, or it is none.
    """

    def __init__(self, vector_env: VectorEnv, *, leave_out: Sequence[Name] = ()) -> None:
        if not isinstance(vector_env, VectorEnv):
            hint = "gymnasium.make_vec(id, num_envs=n) makes one; GymEnv(id, num_envs=n) needs none."
            hint = foreign_hint(vector_env) or hint
            got = type(vector_env).__name__
            raise EnvError(explain("GymVectorEnv", expected="a gymnasium.vector.VectorEnv", got=got, hint=hint))
        mode = _mode(vector_env)
        _require_all_rows(vector_env)
        _refuse_wrappers(vector_env)
        _require_restarts(vector_env, mode)
        for world in getattr(vector_env.unwrapped, "envs", ()):
            require_one_reward("GymVectorEnv", world)
        left, _ = without_entries("GymVectorEnv, leave_out", vector_env.single_observation_space, leave_out)
        observation_space, _, _ = counted_from_zero(left)
        action_space, _, _ = counted_from_zero(vector_env.single_action_space)
        require_free_names("GymVectorEnv", observation_space)
        _refuse_choices_of_spaces(action_space)
        super().__init__(
            partial(VectorWorker, vector_env, mode, leave_out),
            observation_space=observation_space,
            action_space=action_space,
            batch_size=[vector_env.num_envs],
        )
        self.vector_env = vector_env

    @property
    def restarts_rows(self) -> bool:
        """Whether the vector environment restarts single rows; see :attr:`Env.restarts_rows`."""
        return self._worker.restarts_rows

    def require_options(self, options: list[dict]) -> None:
        """Refuse options that differ from row to row: the worlds are restarted together."""
        shared_options("GymVectorEnv", options)

    @property
    def step_limit(self) -> float:
        """See :class:`Env`; only a ``SyncVectorEnv`` shows its worlds, others tell what their id says."""
        inner = self.vector_env.unwrapped
        if isinstance(inner, SyncVectorEnv):
            return min(map(gym_step_limit, inner.envs))
        limit = None if inner.spec is None else inner.spec.max_episode_steps
        return math.inf if limit is None else limit

    @property
    def learning_wrapper(self) -> str:
        """See :class:`Env`; only a ``SyncVectorEnv`` shows its worlds."""
        for layer in _layers(self.vector_env):
            if isinstance(layer, wrappers.NormalizeReward) and layer.update_running_mean:
                return type(layer).__name__
        inner = self.vector_env.unwrapped
        return learning_wrapper(inner.envs) if isinstance(inner, SyncVectorEnv) else ""

    def driven_things(self) -> list:
        """List this, the vector environment and the worlds that it shows; see :meth:`Env.driven_things`."""
        inner = self.vector_env.unwrapped
        return [self, inner, *(map(world_of, inner.envs) if isinstance(inner, SyncVectorEnv) else ())]

    def state_dict(self) -> dict:
        """Refuse: what happens inside a vector environment cannot be captured.

        Raises:
            EnvError: always.
        """
        got = f"worlds inside a {type(self.vector_env.unwrapped).__name__}"
        raise EnvError(explain("GymVectorEnv", expected="a state to save", got=got, hint=FRESH))


class VectorWorker(Worker):
    """Steps and restarts a vector environment.

    Args:
        vector_env: the vector environment.
        mode: when it resets by itself.
        leave_out: entries that are not observed.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.

    Attributes:
        restarts_rows: whether single rows can be restarted where they did not end.
    """

    def __init__(
        self, vector_env: VectorEnv, mode: AutoresetMode, leave_out: Sequence[Name], buffers: StepBuffers
    ) -> None:
        left, leaving = without_entries("leave_out", vector_env.single_observation_space, leave_out)
        self._leaving = leaving if leave_out else None
        observation_space, _, self._outward = counted_from_zero(left)
        _, self._inward, _ = counted_from_zero(vector_env.single_action_space)
        super().__init__(observation_space, buffers)
        self.vector_env = vector_env
        self._num_envs = vector_env.num_envs
        self._resets_itself = mode is AutoresetMode.SAME_STEP
        self.restarts_rows = _restarts_rows(vector_env, mode)
        self._is_wrapped = isinstance(vector_env, VectorWrapper)
        self._kept = [
            (layer, name)
            for layer in _layers(vector_env)
            for kind, names in KEPT_BY_ROW.items()
            if isinstance(layer, kind)
            for name in names
        ]
        # First observations that came with the last step of the episode before, until they are asked for.
        held = allocate_observations(observation_space, self._num_envs)
        self._held_leaves = [Leaf(held, leaf, self.row) for leaf in observation_leaves(observation_space)]
        self._is_held = np.zeros(self._num_envs, dtype=bool)

    def advance(self, actions: Actions) -> bool:
        """Step the vector environment; see :meth:`Worker.advance`."""
        if not self._may_step:
            raise not_restarted(self.ended())
        actions = actions if self._inward is None else self._inward(actions)
        if self._is_wrapped:
            actions = deepcopy(actions)  # VectorizeTransformAction may write into what it is given: the policy's action
        try:
            result = self.vector_env.step(actions)
        except (ValueError, TypeError) as error:
            explained = _explained(error)
            if explained is None:
                raise
            raise explained from error
        try:
            observations, rewards, terminated, truncated, info = result
        except (ValueError, TypeError) as error:
            raise _not_so_many("step", FIVE, result) from error
        observations = self._presented(observations)
        for leaf in self._next_leaves:
            leaf.write_batch(observations)
        self._write_flags(rewards, terminated, truncated)
        ended = bool(self._terminated.any() or self._truncated.any())
        if ended and self._resets_itself:
            self._hold(observations, info)
        self._finish_step()
        if ended:
            self._mark_ended()
        return ended

    def restart(
        self, indices: Sequence[int], seeds: Sequence[int | None] | None = None, options: Options = None
    ) -> None:
        """Begin the next episode of the given rows; see :meth:`Worker.restart`.

        Raises:
            EnvError: options that differ from row to row.
        """
        options = shared_options("GymVectorEnv", options)
        rows = np.zeros(self._num_envs, dtype=bool)
        rows[list(indices)] = True
        seeds = {} if seeds is None else dict(zip(indices, seeds, strict=True))
        held = rows & self._is_held
        held[[index for index, seed in seeds.items() if seed is not None]] = False
        if options or (rows.all() and not self.restarts_rows):
            held[:] = False
        fresh = rows & ~held
        for leaf, kept in zip(self._root_leaves[self.turn], self._held_leaves, strict=True):
            leaf.array[held] = kept.array[held]
        if fresh.any():
            self._reset_rows(fresh, seeds, options)
        self._is_held[rows] = False
        for index in indices:
            self._begin(index)
        self._may_step = not self._has_ended.any()

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

    def _presented(self, observations: Any) -> Any:
        observations = observations if self._leaving is None else self._leaving(observations)
        return observations if self._outward is None else self._outward(observations)

    def _hold(self, observations: Any, info: dict) -> None:
        """Keep the first observations of the next episodes, and write the last ones of these under ``next``."""
        listed = not isinstance(info, Mapping)  # DictInfoToList
        last = [row.get("final_obs") for row in info] if listed else info.get("final_obs")
        ended = np.flatnonzero(self._terminated | self._truncated)
        if last is None or any(last[index] is None for index in ended):
            expected = "the last observation of an episode in info['final_obs'], as autoreset mode SAME_STEP promises"
            got = f"the keys {sorted(info[ended[0]] if listed else info)}"
            raise EnvError(explain("GymVectorEnv", expected=expected, got=got))
        for leaf in self._held_leaves:
            leaf.write_batch(observations)
        for index in ended:
            self._is_held[index] = True
            observation = self._presented(last[index])
            for leaf in self._next_leaves:
                leaf.write_one(index, observation)

    def _reset_rows(self, rows: np.ndarray, seeds: dict[int, int | None], options: dict | None) -> None:
        seed = [seeds.get(index) for index in range(self._num_envs)] if seeds else None
        if seed is not None and not _is_of_gymnasium(self.vector_env):
            seed = join_seeds(seed)
        if rows.all():
            observations = _first_of(self.vector_env.reset(seed=seed, options=options))
        elif not self.restarts_rows:
            raise _cannot_restart(self.vector_env)
        else:
            kept = [(layer, name, getattr(layer, name).copy()) for layer, name in self._kept]
            options = {**(options or {}), "reset_mask": rows.copy()}
            observations = _first_of(self.vector_env.reset(seed=seed, options=options))
            for layer, name, values in kept:
                getattr(layer, name)[~rows] = values[~rows]
        observations = self._presented(observations)
        for leaf in self._root_leaves[self.turn]:
            others = leaf.write_rows(rows, observations)
            if not (others or _is_of_gymnasium(self.vector_env)):
                raise _cannot_restart(self.vector_env)


def _first_of(result: Any) -> Any:
    """Return the observations of a reset."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise _not_so_many("reset", PAIR, result)
    return result[0]


def _not_so_many(method: str, expected: str, result: Any) -> EnvError:
    got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
    hint = "In the old gym, done was terminated or a time limit, and a reset returned the observations alone."
    return EnvError(explain(f"{method} of the vector environment", expected=expected, got=got, hint=hint))


def _explained(error: Exception) -> EnvError | None:
    """Say what gymnasium stumbles over where it collects what single worlds return; None for errors of the worlds."""
    frames = error.__traceback__
    while frames.tb_next is not None:
        frames = frames.tb_next
    if not frames.tb_frame.f_globals["__name__"].startswith("gymnasium."):
        return None
    if "array element with a sequence" in str(error):
        hint = f"Return float(reward). {WEIGH}"
        return EnvError(explain("GymVectorEnv.step", expected="worlds with one number as reward", got=error, hint=hint))
    if "values to unpack" in str(error):
        hint = f"A step returns {FIVE}."
        return EnvError(explain("GymVectorEnv.step", expected="worlds of gymnasium", got=error, hint=hint))
    return None


def _mode(vector_env: VectorEnv) -> AutoresetMode:
    found = vector_env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(found)
    except ValueError as error:
        expected = "metadata['autoreset_mode'] to be a gymnasium.vector.AutoresetMode"
        hint = (
            "Write vector_env.metadata = {**vector_env.metadata, 'autoreset_mode': mode}, where mode is "
            "AutoresetMode.SAME_STEP if the step that ends an episode returns the first observation of the next and "
            "the last one in info['final_obs'], NEXT_STEP if the step after it does, DISABLED if none does."
        )
        who = f"GymVectorEnv({type(vector_env.unwrapped).__name__})"
        raise EnvError(explain(who, expected=expected, got=repr(found), hint=hint)) from error


def _is_of_gymnasium(vector_env: VectorEnv) -> bool:
    return isinstance(vector_env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))


def _layers(vector_env: VectorEnv) -> Iterator[VectorWrapper]:
    """Yield the wrappers from the outside in."""
    while isinstance(vector_env, VectorWrapper):
        yield vector_env
        vector_env = vector_env.env


def _own_resets(vector_env: VectorEnv) -> list[str]:
    """Name the wrappers whose ``reset`` is not gymnasium's: nobody knows what it does to rows that go on."""
    resets = {type(layer).__name__: type(layer).reset.__module__ for layer in _layers(vector_env)}
    return [name for name, module in resets.items() if module.split(".")[0] != "gymnasium"]


def _restarts_rows(vector_env: VectorEnv, mode: AutoresetMode) -> bool:
    knows_masks = _is_of_gymnasium(vector_env) or mode is AutoresetMode.DISABLED
    return knows_masks and not _own_resets(vector_env)


def _require_all_rows(vector_env: VectorEnv) -> None:
    """Refuse an asynchronous one, which returns some rows of each step."""
    num_rows = getattr(vector_env.unwrapped, "batch_size", None)
    if isinstance(num_rows, int) and num_rows < vector_env.num_envs:
        who = f"GymVectorEnv({type(vector_env.unwrapped).__name__})"
        expected = f"all {vector_env.num_envs} rows at every step"
        hint = "Build it with batch_size equal to num_envs."
        raise EnvError(explain(who, expected=expected, got=f"batch_size {num_rows}", hint=hint))


def _refuse_wrappers(vector_env: VectorEnv) -> None:
    """Refuse wrappers that cannot be right here, whatever the autoreset mode."""
    for layer in _layers(vector_env):
        who = f"GymVectorEnv({type(layer).__name__})"
        if isinstance(layer, wrappers.NormalizeObservation):
            got = "one that allows no resets of single rows"
            hint = "Leave it out and write TransformedEnv(GymVectorEnv(vector_env), VecNorm())."
            raise EnvError(explain(who, expected="wrappers that go on row by row", got=got, hint=hint))
        target = getattr(layer, "_target_xp", np).__name__  # of ArrayConversion and its kin
        if target.removeprefix("array_api_compat.") != "numpy":
            hint = "Leave the wrapper out: GymVectorEnv gives tensors of torch."
            raise EnvError(explain(who, expected="arrays of numpy", got=f"those of {target}", hint=hint))


def _require_restarts(vector_env: VectorEnv, mode: AutoresetMode) -> None:
    """Refuse a vector environment whose rows cannot be restarted one by one where that is needed."""
    if mode is AutoresetMode.SAME_STEP:
        return
    own = _own_resets(vector_env)
    if own:
        expected = "wrappers whose reset leaves alone the rows that go on"
        hint = (
            "If it keeps nothing of the rows, derive it from VectorObservationWrapper, VectorActionWrapper or "
            "VectorRewardWrapper, and write no reset; else put it around the single environments, or build it with "
            "autoreset_mode SAME_STEP."
        )
        got = f"{', '.join(own)} with a reset of its own, in {mode}"
        raise EnvError(explain("GymVectorEnv", expected=expected, got=got, hint=hint))
    if mode is AutoresetMode.DISABLED:
        return
    if not _is_of_gymnasium(vector_env):  # it would turn a step after an ending into a reset, whatever comes before it
        raise _cannot_restart(vector_env)
    inner = vector_env.unwrapped
    if isinstance(inner, AsyncVectorEnv) and not inner.shared_memory:
        expected = "shared_memory=True in autoreset mode NEXT_STEP"  # else its workers forget that they were reset
        hint = "Or build it with autoreset_mode SAME_STEP."
        raise EnvError(explain("GymVectorEnv(AsyncVectorEnv)", expected=expected, got="False", hint=hint))


def _cannot_restart(vector_env: VectorEnv) -> EnvError:
    who = f"GymVectorEnv({type(vector_env.unwrapped).__name__})"
    expected = "rows that can be restarted one by one, reset(options={'reset_mask': rows})"
    mode = vector_env.metadata["autoreset_mode"]
    return EnvError(explain(who, expected=expected, got=f"one that restarts all, in {mode}", hint=ROWS_HINT))


def _refuse_choices_of_spaces(space: Space) -> None:
    if isinstance(space, spaces.OneOf):
        hint = "Use GymEnv or SerialEnv, which step the worlds one by one."
        raise EnvError(explain("GymVectorEnv", expected="actions that can be batched", got=space, hint=hint))
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for part in space.values() if isinstance(space, spaces.Dict) else space.spaces:
            _refuse_choices_of_spaces(part)
