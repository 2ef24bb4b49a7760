"""The worker of ``BatchEnv``: steps and restarts a ``BatchSimulator``, and copies what that wrote into the buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.simulators.base import Observation
from torchrl.envs.simulators.batch import BatchArrays, BatchSimulator
from torchrl.envs.vector.batches import Actions
from torchrl.envs.vector.buffers import Leaf, StepBuffers, copy_into, copy_tree
from torchrl.envs.vector.building import shared_options
from torchrl.envs.vector.worker import Options, Worker, not_restarted
from torchrl.errors import EnvError, SpecError, explain

AUTORESETS = ("disabled", "same_step")
IN_PLACE = "In place: self.arrays.rewards[:] = ...; return nothing."


class BatchWorker(Worker):
    """Step and restart a simulator of all rows at once, and copy its results into numpy buffers.

    Args:
        simulator: the simulator; it is bound to new arrays.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.

    Attributes:
        simulator: the simulator.
    """

    env_name = "BatchEnv"
    takes_arrays = True

    def __init__(self, simulator: BatchSimulator, buffers: StepBuffers) -> None:
        super().__init__(simulator.observation_space, buffers)
        self.simulator = simulator
        self._resets_itself = simulator.autoreset == "same_step"
        self._keeps_last = getattr(simulator, "keeps_last", True)
        self._restarts_rows = getattr(simulator, "restarts_rows", True)
        given = _allocate(simulator.observation_space, len(self._reward), self._resets_itself and self._keeps_last)
        self._arrays = batch_method("bind", simulator)(given)
        _require_arrays(self._arrays, given)
        self._seen = self._sources(self._arrays.observations)
        self._last = self._sources(self._arrays.last_observations) if self._resets_itself and self._keeps_last else []
        self._is_held = np.zeros(len(self._reward), dtype=bool)  # rows that the simulator has restarted by itself

    def advance(self, actions: Actions) -> bool:
        """Step all rows; answer whether any ended. See :meth:`Worker.advance`.

        Raises:
            EnvError: an episode was cut by time, and the simulator has lost its last observation.
        """
        if not self._may_step:
            raise not_restarted(self.ended())
        self._require_nothing("step", self.simulator.step(actions))
        arrays = self._arrays
        for leaf, source in zip(self._next_leaves, self._seen, strict=True):
            if source is None:
                leaf.write_batch(arrays.observations)
            else:
                np.copyto(leaf.array, source)
        self._write_flags(arrays.rewards, arrays.terminated, arrays.truncated)
        ended = (self._terminated | self._truncated).nonzero()[0]
        if not len(ended):
            self._finish_step()
            return False
        if self._resets_itself:
            self._write_last_observations(ended)
            self._is_held[ended] = True
        self._finish_step()
        self._mark_ended()
        return True

    def restart(
        self, indices: Sequence[int], seeds: Sequence[int | None] | None = None, options: Options = None
    ) -> None:
        """Begin the next episode of the given rows, and write its first observation into the current root.

        Raises:
            EnvError: options that differ from row to row; or some rows of a simulator that can only restart all, or
                that changed others.
        """
        indices = np.asarray(indices)
        if seeds is not None or options or not self._is_held[indices].all():
            self._begin_anew(indices, seeds, shared_options("BatchEnv", options))
        for leaf, source in zip(self._root_leaves[self.turn], self._seen, strict=True):
            _copy_rows(leaf, indices, source, self._arrays.observations)
        self._is_held[indices] = False
        self._begin(indices)
        self._may_step = not self._has_ended.any()

    def require_ability(self, ability: str) -> None:
        """Raise an error if the simulator's resets lack the ability: ``"seeds"`` or ``"options"``."""
        batch_method("require_ability", self.simulator)(ability)

    def get_state(self) -> dict:
        """Return the state of the simulator, what lies in its arrays, the current root, and which rows have ended.

        Raises:
            EnvError: the simulator cannot save its state.
        """
        return {
            "simulator": batch_method("get_state", self.simulator)(),
            "arrays": copy_tree(_leaves_of(self._arrays)),
            "root": copy_tree(self.root),
            "has_ended": self._has_ended.copy(),
            "is_held": self._is_held.copy(),
        }

    def set_state(self, state: dict) -> None:
        """Restore the state from :meth:`get_state`, of a simulator built alike.

        Raises:
            EnvError: the simulator cannot load it.
        """
        batch_method("set_state", self.simulator)(state["simulator"])
        copy_into(_leaves_of(self._arrays), state["arrays"])
        copy_into(self.root, state["root"])
        np.copyto(self._has_ended, state["has_ended"])
        np.copyto(self._is_held, state["is_held"])
        self._may_step = not self._has_ended.any()

    def render(self) -> list:
        """Return one frame per row; see :meth:`BatchSimulator.render`."""
        return batch_method("render", self.simulator)()

    def close(self) -> None:
        """Close the simulator."""
        batch_method("close", self.simulator)()

    def _sources(self, observations: Observation) -> list[np.ndarray | None]:
        """Return the array that holds each leaf; None where a copy has to look at each number, as of float64."""
        sources = [leaf.source_in(observations) for leaf in self._next_leaves]
        pairs = zip(sources, self._next_leaves, strict=True)
        return [source if np.can_cast(source.dtype, leaf.array.dtype, "safe") else None for source, leaf in pairs]

    def _write_last_observations(self, ended: np.ndarray) -> None:
        """Write what ended rows showed last to ``next``; where that is lost, what they showed before."""
        if self._keeps_last:
            for leaf, source in zip(self._next_leaves, self._last, strict=True):
                _copy_rows(leaf, ended, source, self._arrays.last_observations)
            return
        cut = np.flatnonzero(self._truncated & ~self._terminated)
        if len(cut):
            expected = "the last observation of an episode that time has cut, whose value counts"
            got = f"a {type(self.simulator).__name__} that loses it, in {self.row(cut[0])}"
            hint = "Let the simulator write arrays.last_observations (keeps_last = True)."
            raise EnvError(explain("BatchEnv", expected=expected, got=got, hint=hint))
        for leaf, before in zip(self._next_leaves, self._root_leaves[self.turn], strict=True):
            leaf.array[ended] = before.array[ended]

    def _begin_anew(self, indices: np.ndarray, seeds: Sequence[int | None] | None, options: Mapping | None) -> None:
        """Reset the given rows, but for those that the simulator has restarted and nothing is asked of."""
        rows = np.zeros(len(self._is_held), dtype=bool)
        rows[indices] = True
        fresh = rows.copy() if options else rows & ~self._is_held
        by_row: list[int | None] | None = None
        if seeds is not None:
            by_row = [None] * len(rows)
            for index, seed in zip(indices, seeds, strict=True):
                by_row[index] = seed
                fresh[index] |= seed is not None
        if fresh.any():
            self._restart_fresh(fresh if self._restarts_rows else rows, by_row, options)

    def _restart_fresh(self, rows: np.ndarray, seeds: list[int | None] | None, options: Mapping | None) -> None:
        others = ~rows
        if others.any() and not self._restarts_rows:
            expected = "rows that can be restarted one by one (restarts_rows)"
            got = f"a {type(self.simulator).__name__}, which restarts all or none"
            raise EnvError(explain("BatchEnv.reset", expected=expected, got=got))
        self._require_nothing("reset", self.simulator.reset(rows, seeds=seeds, options=options))
        others &= ~(self._is_held | self._has_ended)  # what those show has been taken already, or is of no episode
        if not others.any():
            return
        for leaf in self._root_leaves[self.turn]:
            if (leaf.differs(self._arrays.observations) & others).any():
                who, expected = f"{type(self.simulator).__name__}.reset", "rows that go on to show what they showed"
                hint = "Write only where rows is true: self.arrays.observations[rows] = ..."
                raise EnvError(explain(who, expected=expected, got="other observations in them", hint=hint))

    def _require_nothing(self, method: str, result: Any) -> None:
        """Refuse results that are returned instead of written: nobody would read them."""
        if result is not None:
            who, got = f"{type(self.simulator).__name__}.{method}", f"a {type(result).__name__}"
            raise EnvError(explain(who, expected="results written into the arrays", got=got, hint=IN_PLACE))


def _copy_rows(leaf: Leaf, rows: np.ndarray, source: np.ndarray | None, observations: Observation) -> None:
    if source is None:
        leaf.copy_rows(rows, observations)
    else:
        leaf.array[rows] = source[rows]


def batch_method(name: str, simulator: BatchSimulator) -> Callable:
    """Return a simulator's method by name; if an object that is no :class:`BatchSimulator` lacks it, its default."""
    return getattr(simulator, name, None) or partial(getattr(BatchSimulator, name), simulator)


def _allocate(space: Space, num_envs: int, keeps_last: bool) -> BatchArrays:
    return BatchArrays(
        observations=_zeros(space, num_envs),
        rewards=np.zeros(num_envs, np.float32),
        terminated=np.zeros(num_envs, np.bool_),
        truncated=np.zeros(num_envs, np.bool_),
        last_observations=_zeros(space, num_envs) if keeps_last else None,
    )


def _zeros(space: Space, num_envs: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part, num_envs) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple([_zeros(part, num_envs) for part in space])
    return np.zeros((num_envs, *space.shape), space.dtype)


def _leaves_of(arrays: BatchArrays) -> dict:
    """Return all arrays as a tree of dicts."""
    return {name: _as_tree(value) for name, value in vars(arrays).items() if value is not None}


def _as_tree(value: Observation) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_tree(part) for key, part in value.items()}
    return {str(at): _as_tree(part) for at, part in enumerate(value)} if isinstance(value, tuple) else value


def _require_arrays(arrays: object, given: BatchArrays) -> None:
    """Refuse arrays of a simulator's own that do not look like those it was given."""
    if not isinstance(arrays, BatchArrays):
        hint = "Return the BatchArrays that were given, or BatchArrays(observations, rewards, terminated, truncated)."
        raise EnvError(explain("bind", expected="a BatchArrays", got=type(arrays).__name__, hint=hint))
    _require_alike("arrays", _leaves_of(arrays), _leaves_of(given))


def _require_alike(name: str, own: Any, given: Any) -> None:
    if isinstance(given, dict):
        if not isinstance(own, dict) or own.keys() != given.keys():
            got = sorted(own) if isinstance(own, dict) else type(own).__name__
            raise SpecError(explain(f"bind, {name}", expected=f"the entries {sorted(given)}", got=got))
        for key, part in given.items():
            _require_alike(f"{name}.{key}", own[key], part)
        return
    found = (own.shape, own.dtype) if isinstance(own, np.ndarray) else (type(own).__name__, "no array")
    is_number = name == "arrays.rewards" and isinstance(own, np.ndarray) and own.dtype.kind in "iuf"
    if not (isinstance(own, np.ndarray) and own.shape == given.shape and (own.dtype == given.dtype or is_number)):
        hint = "An array of bytes that are 0 or 1 is one of bools: array.view(bool)." if given.dtype == bool else ""
        expected = f"an array {list(given.shape)} of {given.dtype}"
        raise SpecError(explain(f"bind, {name}", expected=expected, got=f"{found[0]}, {found[1]}", hint=hint))
