"""The base class of simulators: one world in numpy, without batch and TensorDict, which an Env has."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space

from torchrl.envs.simulators.limits import step_limit_of
from torchrl.errors import EnvError, explain
from torchrl.misspelling import refuse_misspelt
from torchrl.seeding import named_seeds

Observation = np.ndarray | Mapping[str, "Observation"] | tuple["Observation", ...]
Action = np.ndarray | np.integer | dict[str, "Action"] | tuple["Action", ...]
State = dict[str, Any]


class Simulator(gymnasium.Env, ABC):
    """Base class of simulators: one world in numpy that can be reset, stepped and, in some subclasses, saved.

    Any object with ``reset``, ``step`` and the two spaces can be used as a simulator, every ``gymnasium.Env`` included
    (without saving its state). This class is a ``gymnasium.Env``, so gymnasium's wrappers work around it. After an
    ending the caller must call :meth:`reset`.

    >>> from gymnasium import spaces
    >>> class Clock(Simulator):
    ...     observation_space, action_space = spaces.Box(0, 9, (1,)), spaces.Discrete(2)
    ...     def reset(self, *, seed=None, options=None):
    ...         self.now = 0
    ...         return np.zeros(1, np.float32), {}
    ...     def step(self, action):
    ...         self.now += 1
    ...         return np.full(1, self.now, np.float32), 1.0, False, self.now == 9, {}
    >>> clock = Clock()
    >>> clock.reset(), clock.step(0)[:2]
    ((array([0.], dtype=float32), {}), (array([1.], dtype=float32), 1.0))

    Attributes:
        observation_space: what :meth:`reset` and :meth:`step` return: a ``Box``, ``Discrete``, ``MultiDiscrete`` or
            ``MultiBinary``, or a ``Dict`` or ``Tuple`` of such. Choices start at 0.
        action_space: what :meth:`step` takes: one of these, or a ``OneOf``.
    """

    observation_space: Space
    action_space: Space

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a subclass with a misspelt method; see :func:`~torchrl.misspelling.refuse_misspelt`."""
        super().__init_subclass__(**options)
        refuse_misspelt(cls, also=("_own_state", "_set_own_state"), synonyms={"seed": "reset, which is given the seed"})

    @abstractmethod
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode and return ``(observation, info)``.

        ``super().reset(seed=seed)`` seeds ``self.np_random``, a numpy generator, as in gymnasium.

        Args:
            seed: seeds every random generator of this simulator; None leaves them as they are.
            options: further options, specific to the simulator.
        """
        gymnasium.Env.reset(self, seed=seed)

    @abstractmethod
    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step and return ``(observation, reward, terminated, truncated, info)``.

        Args:
            action: a numpy integer for a ``Discrete`` space, an array of the space's shape for other leaves; a dict or
                tuple of these where the space is one.
        """

    def render(self) -> np.ndarray:
        """Return a picture of the present state, uint8 ``[H, W, 3]``.

        Raises:
            EnvError: this simulator draws no pictures.
        """
        raise EnvError(explain(type(self).__name__, expected="a simulator with render", got="one without it"))

    def close(self) -> None:  # noqa: B027 - most simulators hold nothing
        """Release what this simulator holds; may be called twice."""

    def step_limit(self) -> float:
        """Return after how many steps this simulator truncates every episode; infinity if it does not know."""
        return math.inf

    def require_ability(self, ability: str) -> None:  # noqa: B027 - most simulators can do both
        """Raise an error if :meth:`reset` takes no seeds, or no options; by default it takes both.

        Args:
            ability: ``"seeds"``, whether a reset takes a seed, or ``"options"``, whether it takes options.

        Raises:
            EnvError: it does not take this.
        """

    def get_state(self) -> State:
        """Return the whole state of this simulator: a nested dict of numbers, strings, None and numpy arrays.

        A new simulator, built alike and given this state by :meth:`set_state`, continues bit for bit.

        Raises:
            EnvError: this simulator cannot save its state.
        """
        raise _stateless(self, "a state to save")

    def set_state(self, state: State) -> None:
        """Continue from what :meth:`get_state` of a simulator built alike returned.

        Raises:
            EnvError: the state is of another simulator.
        """
        raise _stateless(self, "a state to load")


FRESH = "A run that is continued from a checkpoint will start new episodes here."


def _stateless(simulator: object, expected: str) -> EnvError:
    """Build the error for a simulator without a state; a duck-typed one is no :class:`Simulator`."""
    return EnvError(explain(type(simulator).__name__, expected=expected, got="a simulator without one", hint=FRESH))


class SimulatorWrapper(Simulator):
    """Base class of simulators around another one: it passes every call on; a subclass overrides what it changes.

    >>> from torchrl.envs.simulators import Matching
    >>> class Doubled(SimulatorWrapper):
    ...     def step(self, action):
    ...         observation, reward, *rest = self.simulator.step(action)
    ...         return observation, 2 * reward, *rest
    >>> Doubled(Matching()).step_limit()  # passed through
    16

    Args:
        simulator: what to wrap.
    """

    def __init__(self, simulator: gymnasium.Env) -> None:
        self.simulator = simulator
        self.metadata = getattr(simulator, "metadata", {})
        self.render_mode = getattr(simulator, "render_mode", None)
        self.spec = getattr(simulator, "spec", None)
        self.observation_space = simulator.observation_space
        self.action_space = simulator.action_space

    @property
    def unwrapped(self) -> Any:
        """The environment below all wrappers."""
        return getattr(self.simulator, "unwrapped", self.simulator)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode of the wrapped simulator; seed the wrapper's own ``np_random`` by a child of the seed."""
        if seed is not None:
            name = type(self).__name__
            gymnasium.Env.reset(self, seed=named_seeds(seed, name)[name])
        return self.simulator.reset(seed=seed, options=options)

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict]:
        """Advance the wrapped simulator by one step."""
        return self.simulator.step(action)

    def render(self) -> np.ndarray:
        """Return a picture of the wrapped simulator."""
        return getattr(self.simulator, "render", super().render)()

    def step_limit(self) -> float:
        """Return the wrapped simulator's step limit, in steps of this wrapper; see :meth:`Simulator.step_limit`."""
        return step_limit_of(self.simulator)

    def require_ability(self, ability: str) -> None:
        """Raise an error where the wrapped simulator does: its resets lack ``"seeds"`` or ``"options"``."""
        getattr(self.simulator, "require_ability", super().require_ability)(ability)

    def close(self) -> None:
        """Close the wrapped simulator."""
        self.simulator.close()

    def get_state(self) -> State:
        """Return the state of the wrapped simulator and of this wrapper; see :meth:`Simulator.get_state`."""
        inner = getattr(self.simulator, "get_state", super().get_state)
        return {"wrapper": type(self).__name__, "own": self._own_state(), "simulator": inner()}

    def set_state(self, state: State) -> None:
        """Continue from a state that :meth:`get_state` of a wrapper and simulator built alike returned.

        Raises:
            EnvError: the state is of another wrapper or another simulator.
        """
        if state.get("wrapper") != type(self).__name__:
            expected = f"a state of {type(self).__name__}"
            raise EnvError(explain("set_state", expected=expected, got=f"one of {state.get('wrapper', 'no wrapper')}"))
        self.simulator.set_state(state["simulator"])
        self._set_own_state(state["own"])

    def _own_state(self) -> State:
        return {}

    def _set_own_state(self, state: State) -> None:
        pass
