"""Workers, which step a batch of simulators and write observations, rewards and flags into numpy buffers.

They import no torch and know no process: ``SerialEnv`` calls one directly, ``ParallelEnv`` has one in each process.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.simulators.base import FRESH, Observation, Simulator
from torchrl.envs.vector.batches import Actions, observation_in, splitter
from torchrl.envs.vector.buffers import Leaf, StepBuffers, Tree, at, copy_into, copy_tree, observation_leaves
from torchrl.errors import EnvError, explain

Options = Mapping | Sequence[Mapping | None] | None  # for all rows alike, or one entry for each
PAIR = "(observation, info)"
FIVE = "(observation, reward, terminated, truncated, info)"
OLD = "4 values"
OLD_RESET = "In the old gym, reset took no seed: take it, and options, and return (observation, info)."
NO_RESET_ARGUMENT = r"unexpected keyword argument '(seed|options)'"
WEIGH = "Weigh several objectives in a wrapper: one number a step."
BOOLS = frozenset((False, True))  # and 0 and 1, which are equal to them


class Worker(ABC):
    """Base of workers, which step and restart rows: it keeps the current root, episode statistics, and flags.

    The *current root* holds what the next actions are for; a step writes the other of the two root buffers, which then
    is the current one. A *frozen* row is not stepped until it is restarted, and repeats its last observation: this base
    refuses to freeze, a subclass that can wait for single rows overrides :meth:`freeze`.

    Args:
        observation_space: of one simulator.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.
        first_index: index of the first row in the whole environment, for messages.

    Attributes:
        env_name: the class of the env, for messages; empty names the worker's own class.
        turn: index, 0 or 1, of the buffer of the current root; a step flips it, and writes the other root.
        takes_arrays: whether the indices of some rows come as an array to :meth:`restart`, not as a list.
    """

    env_name = ""
    takes_arrays = False

    def __init__(self, observation_space: Space, buffers: StepBuffers, first_index: int = 0) -> None:
        self.buffers = buffers
        self.turn = 0
        self._first_index = first_index
        self._has_ended = np.ones(len(buffers.next["reward"]), dtype=bool)  # to be restarted before their next step
        self._may_step = False
        self._is_first = True  # no step was looked at closely: None and text would become numbers
        self._counts = np.ones((len(self._has_ended), 1), dtype=np.int64)  # added to the lengths; 0 where a row waits
        leaves = observation_leaves(observation_space)
        self._next_leaves = [Leaf(buffers.next, leaf, self.row) for leaf in leaves]
        self._root_leaves = [[Leaf(root, leaf, self.row) for leaf in leaves] for root in buffers.roots]
        paths = [leaf.path for leaf in leaves] + [("episode_return",), ("episode_length",)]
        self._carried = [[(at(root, path), at(buffers.next, path)) for path in paths] for root in buffers.roots]
        outcome = buffers.next
        self._reward, self._done = outcome["reward"][:, 0], outcome["done"][:, 0]
        self._terminated, self._truncated = outcome["terminated"][:, 0], outcome["truncated"][:, 0]

    @abstractmethod
    def advance(self, actions: Actions) -> bool:
        """Step every row; write the outcome, and the root after it, which becomes the current one.

        Rows that ended must be restarted before the next step; frozen ones wait.

        Args:
            actions: a batch of the action space: an array ``[num_envs, ...]``, or a dict or tuple of them.

        Returns:
            Whether any row ended.

        Raises:
            EnvError: a row that ended was not restarted, or a flag or reward is malformed.
            SpecError: an observation does not fit its space's shape or dtype.
        """

    @abstractmethod
    def restart(
        self, indices: Sequence[int], seeds: Sequence[int | None] | None = None, options: Options = None
    ) -> None:
        """Restart the given rows and write their first observation into the current root.

        Args:
            indices: which rows, counted inside this worker.
            seeds: one seed (or None) per entry of ``indices``; None leaves every row's generators as they are.
            options: passed to each simulator's ``reset``: one dict for all, or one (or None) per entry of ``indices``.
        """

    def require_ability(self, ability: str) -> None:  # noqa: B027 - most can do both
        """Raise an error if a simulator's resets take no seeds, or no options; by default none is raised.

        Args:
            ability: ``"seeds"`` or ``"options"``, as for :meth:`Simulator.require_ability`.
        """

    def freeze(self, indices: Sequence[int]) -> None:
        """Freeze the given rows until :meth:`restart`: their simulators are not stepped. The base refuses.

        In later steps these rows repeat the last observation with reward 0 and no flags, and their episode statistics
        stay. A row that had ended need not be restarted before the next step.

        Args:
            indices: which rows, counted inside this worker; rows that are frozen already stay so.

        Raises:
            EnvError: this worker cannot freeze rows, as always in this base.
        """
        expected = "simulators that can wait one by one"
        raise EnvError(explain(self._who, expected=expected, got="some that are stepped together"))

    def __getstate__(self) -> dict:
        """Return the attributes for a copy; the default raises an error.

        Raises:
            EnvError: this worker cannot be copied.
        """
        raise cannot_copy(self._who)

    def get_state(self) -> dict:
        """Return the state of the simulators and the current root; the default raises an error.

        Raises:
            EnvError: this worker cannot save its state.
        """
        raise self._has_no_state("a state to save")

    def set_state(self, state: dict) -> None:
        """Restore the state from :meth:`get_state`; the default raises an error.

        Raises:
            EnvError: this worker cannot load a state.
        """
        raise self._has_no_state("a state to load")

    def _has_no_state(self, expected: str) -> EnvError:
        return EnvError(explain(self._who, expected=expected, got="simulators without one", hint=FRESH))

    @property
    def _who(self) -> str:
        return self.env_name or type(self).__name__

    @abstractmethod
    def render(self) -> list:
        """Return one frame per row; see :meth:`Simulator.render`."""

    @abstractmethod
    def close(self) -> None:
        """Close every simulator; may be called twice."""

    @property
    def root(self) -> Tree:
        """The buffers of the current root: the observations to act on next."""
        return self.buffers.roots[self.turn]

    def ended(self) -> list[int]:
        """List the rows that ended and must be restarted before the next step."""
        return np.flatnonzero(self._has_ended).tolist()

    def row(self, index: int) -> str:
        """Return a row's name for messages, numbered in the whole environment."""
        return f"row {self._first_index + index}"

    def _write_flags(self, rewards: Sequence, terminated: Sequence, truncated: Sequence) -> None:
        if self._is_first:
            self._require_numbers(rewards, terminated, truncated)
            self._is_first = False
        try:
            self._reward[:] = rewards
            self._terminated[:] = terminated
            self._truncated[:] = truncated
            if type(rewards) is tuple:
                sum(rewards)  # numpy reads numbers out of text
                are_bools = BOOLS.issuperset(terminated) and BOOLS.issuperset(truncated)
            else:
                are_bools = np.asarray(terminated).dtype.kind == np.asarray(truncated).dtype.kind == "b"
        except (ValueError, TypeError):
            self._require_numbers(rewards, terminated, truncated)
            self._reward[:] = [np.asarray(value).item() for value in rewards]  # they have one entry each
            self._terminated[:] = [np.asarray(value).item() for value in terminated]
            self._truncated[:] = [np.asarray(value).item() for value in truncated]
            are_bools = False
        if not are_bools:
            self._require_bools("terminated", terminated)
            self._require_bools("truncated", truncated)

    def _finish_step(self) -> None:
        """Update the episode statistics, and copy the outcome's observations and statistics into the next root."""
        outcome, root = self.buffers.next, self.root
        np.logical_or(self._terminated, self._truncated, out=self._done)
        np.add(root["episode_return"], outcome["reward"], out=outcome["episode_return"])
        np.add(root["episode_length"], self._counts, out=outcome["episode_length"])
        self.turn ^= 1
        for target, source in self._carried[self.turn]:
            np.copyto(target, source)
        self.root["is_init"].fill(False)

    def _mark_ended(self) -> None:
        """Note which rows ended in this step: they must be restarted before the next."""
        np.copyto(self._has_ended, self._done)
        self._may_step = False

    def _begin(self, index: int | np.ndarray) -> None:
        """Set ``is_init`` and zero statistics in rows whose first observation has been written."""
        root = self.root
        root["is_init"][index] = True
        root["episode_return"][index] = 0
        root["episode_length"][index] = 0
        self._has_ended[index] = False

    def _require_bools(self, name: str, values: Sequence) -> None:
        """Refuse flags that are not bool, 0 or 1: an assignment would turn None, NaN or text into true or false."""
        for index, value in enumerate(values):
            if _as_array(value).dtype.kind not in "biuf" or value not in (0, 1):
                raise EnvError(explain(f"{name} of {self.row(index)}", expected="a bool", got=repr(value)))

    def _require_numbers(self, rewards: Sequence, terminated: Sequence, truncated: Sequence) -> None:
        """Refuse rewards and flags that are not one number for each row."""
        num_rows = len(self._reward)
        for name, values in (("reward", rewards), ("terminated", terminated), ("truncated", truncated)):
            came = len(values) if isinstance(values, (tuple, list)) else (*np.shape(values), 0)[0]
            if came != num_rows:
                got = f"{type(values).__name__} of shape {list(np.shape(values))}"
                raise EnvError(explain(name, expected=f"one for each of the {num_rows} rows", got=got))
            for index, value in enumerate(values):
                array = _as_array(value)
                if array.size != 1 or array.dtype.kind not in "biuf":
                    hint = WEIGH if name == "reward" and array.size > 1 else ""
                    expected = "a float" if name == "reward" else "a bool"
                    who = f"{name} of {self.row(index)}"
                    raise EnvError(explain(who, expected=expected, got=repr(value), hint=hint))


class SimulatorWorker(Worker):
    """Step and restart simulators one after the other, and write their results into numpy buffers.

    Args:
        simulators: one simulator per row, all with the same spaces.
        buffers: where to write, see :func:`~torchrl.envs.vector.buffers.allocate`.
        first_index: index of the first row in the whole environment, for messages.
    """

    def __init__(self, simulators: Sequence[Simulator], buffers: StepBuffers, first_index: int = 0) -> None:
        super().__init__(simulators[0].observation_space, buffers, first_index)
        self.simulators = list(simulators)
        self._space = self.simulators[0].observation_space
        self._steps = [simulator.step for simulator in self.simulators]
        self._frozen: set[int] = set()
        self._each = splitter(self.simulators[0].action_space)

    def __getstate__(self) -> dict:
        """Return the attributes for a copy: new memory, and copies of the simulators, to be reset before a step.

        The simulators' present states are not kept: many of gymnasium's are built anew when they are copied.
        """
        return {"simulators": self.simulators, "buffers": self.buffers, "first_index": self._first_index}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def advance(self, actions: Actions) -> bool:
        """Step every simulator of a row that is not frozen, and restart none; answer whether any row ended.

        See :meth:`Worker.advance`.
        """
        if not self._may_step:
            raise not_restarted([self._first_index + index for index in self.ended()])
        results: list = []
        try:
            for step, action in zip(self._steps, self._each(actions), strict=True):
                results.append(step(action))
        except Exception as error:
            error.add_note(f"Raised by the simulator of row {self._first_index + len(results)} in step().")
            if "values to unpack" in str(error):
                error.add_note(f"A step returns five values, {FIVE}.")
            raise
        try:
            observations, rewards, terminated, truncated, _ = zip(*results, strict=True)
        except (ValueError, TypeError) as error:
            raise self._not_five(results) from error
        for leaf in self._next_leaves:
            leaf.write(observations)
        self._write_flags(rewards, terminated, truncated)
        self._finish_step()
        ended = any(terminated) or any(truncated)
        if ended:
            self._mark_ended()
        return ended

    def restart(
        self, indices: Sequence[int], seeds: Sequence[int | None] | None = None, options: Options = None
    ) -> None:
        """Reset the simulators of the given rows, frozen ones too, and write what they show into the current root.

        See :meth:`Worker.restart`.

        Raises:
            EnvError: a reset returned no ``(observation, info)``, or takes no ``seed`` and ``options``.
        """
        shared = options is None or isinstance(options, Mapping)
        for position, index in enumerate(indices):
            seed = None if seeds is None else seeds[position]
            own = options if shared else options[position]
            try:
                result = self.simulators[index].reset(seed=seed, options=own)
            except Exception as error:
                error.add_note(f"Raised by the simulator of {self.row(index)} in reset().")
                if isinstance(error, TypeError) and re.search(NO_RESET_ARGUMENT, str(error)):
                    who, expected = f"reset of {self.row(index)}", "a simulator with reset(*, seed=None, options=None)"
                    raise EnvError(explain(who, expected=expected, got=error, hint=OLD_RESET)) from error
                raise
            if not isinstance(result, tuple) or len(result) != 2:
                got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
                hint = "An environment of the old gym returns the observation alone: return {} beside it."
                raise EnvError(explain(f"reset of {self.row(index)}", expected=PAIR, got=got, hint=hint))
            for leaf in self._root_leaves[self.turn]:
                leaf.write_one(index, result[0])
            if index in self._frozen:
                self._unfreeze(index)
            self._begin(index)
        self._may_step = not self._has_ended.any()

    def require_ability(self, ability: str) -> None:
        """Raise an error if any simulator's resets lack the ability: ``"seeds"`` or ``"options"``."""
        for simulator in self.simulators:
            own_method("require_ability", simulator)(ability)

    def freeze(self, indices: Sequence[int]) -> None:
        """Stop stepping the simulators of the given rows until :meth:`restart`; see :meth:`Worker.freeze`."""
        seen = self.root if isinstance(self._space, (spaces.Dict, spaces.Tuple)) else self.root["observation"]
        for index in indices:
            self._steps[index] = partial(_repeat, observation_in(self._space, seen, index))
            self._counts[index] = 0
            self._frozen.add(index)
            self._has_ended[index] = False
        self._may_step = not self._has_ended.any()

    def _unfreeze(self, index: int) -> None:
        self._steps[index] = self.simulators[index].step
        self._counts[index] = 1
        self._frozen.remove(index)

    def get_state(self) -> dict:
        """Return the state of every simulator, the current root, and which rows have ended or are frozen.

        Raises:
            EnvError: a simulator cannot save its state.
        """
        return {
            "simulators": [own_method("get_state", simulator)() for simulator in self.simulators],
            "root": copy_tree(self.root),
            "has_ended": self._has_ended.copy(),
            "is_frozen": self._counts[:, 0] == 0,
        }

    def set_state(self, state: dict) -> None:
        """Restore the state from :meth:`get_state`, of as many simulators built alike.

        Raises:
            EnvError: a simulator cannot load it.
        """
        for simulator, simulator_state in zip(self.simulators, state["simulators"], strict=True):
            own_method("set_state", simulator)(simulator_state)
        copy_into(self.root, state["root"])
        for index in list(self._frozen):
            self._unfreeze(index)
        np.copyto(self._has_ended, state["has_ended"])
        self.freeze(np.flatnonzero(state["is_frozen"]).tolist())

    def render(self) -> list:
        """Return one frame per row; see :meth:`Simulator.render`."""
        return [own_method("render", simulator)() for simulator in self.simulators]

    def close(self) -> None:
        """Close every simulator."""
        for simulator in self.simulators:
            own_method("close", simulator)()

    def _not_five(self, results: list) -> EnvError:
        for index, result in enumerate(results):
            if not isinstance(result, tuple) or len(result) != 5:
                got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
                hint = (
                    "In the old gym, done was terminated or a time limit: return the two apart." if got == OLD else ""
                )
                return EnvError(explain(f"step of {self.row(index)}", expected=FIVE, got=got, hint=hint))
        return EnvError(explain("step", expected=f"{FIVE} from every row", got=repr(results)))


def _as_array(value: Any) -> np.ndarray:
    """Convert a value to an array; return an empty one if numpy cannot, as for a tensor on another device."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        return np.empty(0, object)


def cannot_copy(who: str) -> EnvError:
    """Return the error that says that these simulators can be neither copied nor pickled."""
    hint = 'Copy or send a function that builds the environment: partial(EnvPoolEnv, "CartPole-v1", 4).'
    expected = "simulators that can be copied or pickled"
    return EnvError(explain(who, expected=expected, got="some that cannot", hint=hint))


def not_restarted(rows: Sequence[int]) -> EnvError:
    """Return the error that says which rows must be reset before the next step."""
    got = f"rows {list(rows)} that have ended or never started"
    hint = "Call reset(mask) for them first, or use step_and_reset."
    return EnvError(explain("step", expected="every row inside an episode", got=got, hint=hint))


def _repeat(observation: Observation, action: Any) -> tuple[Observation, float, bool, bool, dict]:
    """Return the step result of a frozen row: its last observation, reward 0, no flags; the action is ignored."""
    return observation, 0.0, False, False, {}


def own_method(name: str, simulator: Simulator) -> Callable:
    """Return a simulator's method by name; if an object that is no :class:`Simulator` lacks it, Simulator's default."""
    return getattr(simulator, name, None) or partial(getattr(Simulator, name), simulator)
