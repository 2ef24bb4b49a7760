"""A worker: steps several simulators and writes what happened into numpy buffers.

It knows no process and imports no torch: the serial back end calls it directly, a process back end serves it from a
loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import gymnasium
import numpy as np

from torchrl.envs.simulators.base import Simulator
from torchrl.errors import EnvError, SpecError, explain

Tree = dict  # nested dict of numpy arrays, one per key, each of shape [num_envs, ...]


@dataclass
class StepBuffers:
    """Where a worker writes: one transition and two roots, used in turn so that the last root handed out stays whole.

    Attributes:
        roots: two trees with the observation keys, ``is_init``, ``episode_return`` and ``episode_length``.
        next: the tree of the step's outcome: observation keys, ``reward``, the flags, and the same statistics.
    """

    roots: tuple[Tree, Tree]
    next: Tree


def allocate(observation_space: gymnasium.Space, num_envs: int, make: Callable = np.zeros) -> StepBuffers:
    """Make the buffers for ``num_envs`` slots; ``make(shape, dtype)`` chooses the memory."""

    def statistics() -> Tree:
        return {
            "episode_return": make((num_envs, 1), np.float32),
            "episode_length": make((num_envs, 1), np.int64),
        }

    def observations() -> Tree:
        tree: Tree = {}
        for path, leaf in observation_leaves(observation_space):
            *folders, name = path
            node = tree
            for folder in folders:
                node = node.setdefault(folder, {})
            node[name] = make((num_envs, *leaf.shape), border_dtype(leaf.dtype))
        return tree

    def root() -> Tree:
        return {**observations(), "is_init": make((num_envs, 1), np.bool_), **statistics()}

    flags = {name: make((num_envs, 1), np.bool_) for name in ("terminated", "truncated", "done")}
    outcome = {**observations(), "reward": make((num_envs, 1), np.float32), **flags, **statistics()}
    return StepBuffers(roots=(root(), root()), next=outcome)


def observation_leaves(
    space: gymnasium.Space, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], gymnasium.Space]]:
    """List the leaves of an observation space with their paths; one that is no Dict is called ``observation``."""
    if not isinstance(space, gymnasium.spaces.Dict):
        return [(path or ("observation",), space)]
    return [leaf for name, child in space.spaces.items() for leaf in observation_leaves(child, (*path, name))]


def border_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype a value has inside the library: float64 becomes float32, once, here; see ``conversions``."""
    return np.dtype({"float64": "float32", "uint16": "int32", "uint32": "int64"}.get(dtype.name, dtype.name))


class SimulatorWorker:
    """Steps and restarts simulators; each call writes whole batches through numpy views.

    Args:
        simulators: one world per slot, all with the same spaces.
        buffers: where to write, see :func:`allocate`.
        first_index: index of the first slot in the whole environment, for messages.
    """

    def __init__(self, simulators: Sequence[Simulator], buffers: StepBuffers, first_index: int = 0) -> None:
        self.simulators = list(simulators)
        self.buffers = buffers
        self.turn = 0
        self._first_index = first_index
        self._steps = [simulator.step for simulator in self.simulators]
        self._has_ended = np.ones(len(self.simulators), dtype=bool)  # slots to be restarted before their next step
        self._may_step = False
        nested = isinstance(self.simulators[0].observation_space, gymnasium.spaces.Dict)
        leaves = observation_leaves(self.simulators[0].observation_space)
        self._next_leaves = [_Leaf(buffers.next, path, nested) for path, _ in leaves]
        self._root_leaves = [[_Leaf(root, path, nested) for path, _ in leaves] for root in buffers.roots]
        self._carried = [self._pairs_to_carry(root, leaves) for root in buffers.roots]
        outcome = buffers.next
        self._reward, self._done = outcome["reward"][:, 0], outcome["done"][:, 0]
        self._terminated, self._truncated = outcome["terminated"][:, 0], outcome["truncated"][:, 0]

    def _pairs_to_carry(self, root: Tree, leaves: list) -> list[tuple[np.ndarray, np.ndarray]]:
        paths = [path for path, _ in leaves] + [("episode_return",), ("episode_length",)]
        return [(_at(root, path), _at(self.buffers.next, path)) for path in paths]

    @property
    def root(self) -> Tree:
        """The root to act on."""
        return self.buffers.roots[self.turn]

    def advance(self, actions: Sequence) -> bool:
        """Step every simulator; write the outcome and the next root, in which ended slots wait for :meth:`restart`.

        Args:
            actions: one action per slot: a numpy integer (discrete) or a numpy row.

        Returns:
            Whether any slot ended.

        Raises:
            EnvError: a slot that ended was not restarted, or a flag or reward is malformed.
            SpecError: an observation does not fit its space's shape or dtype.
        """
        if not self._may_step:
            raise self._not_restarted()
        results: list = []
        try:
            for step, action in zip(self._steps, actions, strict=True):
                results.append(step(action))
        except Exception as error:
            error.add_note(f"Raised by the simulator of slot {self._first_index + len(results)} in step().")
            raise
        try:
            observations, rewards, terminated, truncated, _ = zip(*results, strict=True)
        except (ValueError, TypeError) as error:
            raise self._not_five(results) from error
        for leaf in self._next_leaves:
            leaf.write(observations, self)
        try:
            self._reward[:] = rewards
            self._terminated[:] = terminated
            self._truncated[:] = truncated
        except (ValueError, TypeError) as error:
            raise self._malformed({"reward": rewards, "terminated": terminated, "truncated": truncated}) from error
        outcome, root = self.buffers.next, self.root
        np.logical_or(self._terminated, self._truncated, out=self._done)
        np.add(root["episode_return"], outcome["reward"], out=outcome["episode_return"])
        np.add(root["episode_length"], 1, out=outcome["episode_length"])
        self.turn ^= 1
        for target, source in self._carried[self.turn]:
            np.copyto(target, source)
        self.root["is_init"].fill(False)
        ended = any(terminated) or any(truncated)
        if ended:
            np.copyto(self._has_ended, self._done)
            self._may_step = False
        return ended

    def restart(
        self, indices: Sequence[int], seeds: Sequence[int | None] | None = None, options: dict | None = None
    ) -> None:
        """Reset the given slots and write their first observation into the current root.

        Args:
            indices: which slots, counted inside this worker.
            seeds: one seed (or None) per entry of ``indices``; None continues every slot's own stream.
            options: passed to each simulator's ``reset``.
        """
        root = self.root
        for position, index in enumerate(indices):
            seed = None if seeds is None else seeds[position]
            try:
                result = self.simulators[index].reset(seed=seed, options=options)
            except Exception as error:
                error.add_note(f"Raised by the simulator of slot {self._first_index + index} in reset().")
                raise
            if not isinstance(result, tuple) or len(result) != 2:
                got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
                raise EnvError(explain(f"reset of {self.slot(index)}", expected="(observation, info)", got=got))
            for leaf in self._root_leaves[self.turn]:
                leaf.write_one(index, result[0], self)
            root["is_init"][index] = True
            root["episode_return"][index] = 0
            root["episode_length"][index] = 0
            self._has_ended[index] = False
        self._may_step = not self._has_ended.any()

    def ended(self) -> list[int]:
        """List the slots that wait for a restart."""
        return np.flatnonzero(self._has_ended).tolist()

    def get_state(self) -> dict:
        """Capture the simulators and the current root; see :meth:`Simulator.get_state`."""
        return {
            "simulators": [_own("get_state", simulator)() for simulator in self.simulators],
            "root": _copy_tree(self.root),
            "has_ended": self._has_ended.copy(),
        }

    def set_state(self, state: dict) -> None:
        """Restore what :meth:`get_state` captured."""
        for simulator, simulator_state in zip(self.simulators, state["simulators"], strict=True):
            _own("set_state", simulator)(simulator_state)
        _copy_into(self.root, state["root"])
        np.copyto(self._has_ended, state["has_ended"])
        self._may_step = not self._has_ended.any()

    def close(self) -> None:
        """Close every simulator."""
        for simulator in self.simulators:
            _own("close", simulator)()

    def slot(self, index: int) -> str:
        """Name a slot in messages."""
        return f"slot {self._first_index + index}"

    def _not_restarted(self) -> EnvError:
        waiting = [self._first_index + index for index in self.ended()]
        return EnvError(
            explain(
                "step",
                expected="every slot inside an episode",
                got=f"slots {waiting} that have ended or never started",
                hint="Call reset(mask) for them first, or use step_and_reset.",
            )
        )

    def _not_five(self, results: list) -> EnvError:
        expected = "(observation, reward, terminated, truncated, info)"
        for index, result in enumerate(results):
            if not isinstance(result, tuple) or len(result) != 5:
                got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
                return EnvError(explain(f"step of {self.slot(index)}", expected=expected, got=got))
        return EnvError(explain("step", expected=f"{expected} from every slot", got=repr(results)))

    def _malformed(self, results: dict[str, tuple]) -> EnvError:
        for name, values in results.items():
            for index, value in enumerate(values):
                if np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "biuf":
                    expected = "a float" if name == "reward" else "a bool"
                    return EnvError(explain(f"{name} of {self.slot(index)}", expected=expected, got=repr(value)))
        return EnvError(f"The rewards or flags of a step are malformed: {results}.")


class _Leaf:
    """One observation key: where its batch lies, and how a step's values get there."""

    def __init__(self, tree: Tree, path: tuple[str, ...], nested: bool) -> None:
        self.path = path
        self.array = _at(tree, path)
        self._keys = path if nested else ()
        rows = self.array.shape
        self._joined = self.array.reshape(rows[0] * rows[1], *rows[2:]) if self.array.ndim > 1 else None

    def write(self, observations: tuple, worker: SimulatorWorker) -> None:
        """Write one value per slot; concatenation refuses shapes that an assignment would broadcast."""
        values = observations
        try:
            for key in self._keys:
                values = tuple([value[key] for value in values])
            if self._joined is None:
                np.copyto(self.array, values, casting="same_kind")
            else:
                np.concatenate(values, out=self._joined)
        except (ValueError, TypeError, KeyError) as error:
            for index, observation in enumerate(observations):
                self._require_fit(self._value_in(observation, worker.slot(index)), worker.slot(index))
            raise SpecError(f"the observations {self.path} of a step do not stack: {error}") from error

    def write_one(self, index: int, observation: object, worker: SimulatorWorker) -> None:
        value = self._value_in(observation, worker.slot(index))
        self._require_fit(value, worker.slot(index))
        self.array[index] = value

    def _value_in(self, observation: object, slot: str) -> object:
        """Go down to this key, or say that it is not there."""
        for key in self._keys:
            if not isinstance(observation, Mapping) or key not in observation:
                got = sorted(observation) if isinstance(observation, Mapping) else type(observation).__name__
                raise EnvError(explain(f"observation of {slot}", expected=f"the key {'/'.join(self.path)!r}", got=got))
            observation = observation[key]
        return observation

    def _require_fit(self, value: object, slot: str) -> None:
        value = np.asarray(value)
        expected = self.array.shape[1:]
        if value.shape != expected or not np.can_cast(value.dtype, self.array.dtype, "same_kind"):
            raise SpecError(
                explain(
                    f"observation {'/'.join(self.path)!r} of {slot}",
                    expected=f"shape {list(expected)} and dtype {self.array.dtype} (the simulator's observation_space)",
                    got=f"shape {list(value.shape)} and dtype {value.dtype}",
                    hint="Make the simulator's observation_space say what reset and step return.",
                )
            )


def _own(method: str, simulator: Simulator) -> Callable:
    """A method of a simulator, or of the contract where a duck-typed one lacks it: then a state is refused."""
    return getattr(simulator, method, None) or partial(getattr(Simulator, method), simulator)


def _at(tree: Tree, path: tuple[str, ...]) -> np.ndarray:
    for key in path:
        tree = tree[key]
    return tree


def _copy_tree(tree: Tree) -> Tree:
    return {key: _copy_tree(value) if isinstance(value, dict) else value.copy() for key, value in tree.items()}


def _copy_into(target: Tree, source: Tree) -> None:
    for key, value in target.items():
        if isinstance(value, dict):
            _copy_into(value, source[key])
        else:
            np.copyto(value, source[key])
