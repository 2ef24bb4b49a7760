"""Simulator wrappers that add entries of ``info`` or pictures to the observation, or remove entries from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space, spaces

from torchrl.envs.simulators.base import Action, Observation, SimulatorWrapper
from torchrl.envs.simulators.leaving_out import Name, without_entries
from torchrl.envs.simulators.offsets import count_from_zero
from torchrl.errors import ConfigError, EnvError, explain


class Beside(SimulatorWrapper):
    """Base of wrappers that add entries to a dict observation; another observation becomes its entry ``observation``.

    Subclasses write :meth:`_entries`.

    Args:
        simulator: what to wrap.
        added: the space of every new entry, by name.
        keeps: whether the simulator's own observation stays.

    Raises:
        ConfigError: the observation has an entry of that name already.
    """

    def __init__(self, simulator: gymnasium.Env, added: Mapping[str, Space], *, keeps: bool = True) -> None:
        super().__init__(simulator)
        below = simulator.observation_space
        self._is_dict = isinstance(below, spaces.Dict)
        self._keeps = keeps
        kept = {} if not keeps else dict(below.items()) if self._is_dict else {"observation": below}
        taken = sorted(kept.keys() & added.keys())
        if taken:
            expected = f"names other than {sorted(kept)}"
            raise ConfigError(explain(type(self).__name__, expected=expected, got=taken[0]))
        self.observation_space = spaces.Dict([*kept.items(), *added.items()])  # pairs keep their order

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode, and add the new entries to the observation; see :meth:`Simulator.reset`."""
        observation, info = self.simulator.reset(seed=seed, options=options)
        return self._join(observation, info), info

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step, and add the new entries to the observation; see :meth:`Simulator.step`."""
        observation, reward, terminated, truncated, info = self.simulator.step(action)
        return self._join(observation, info), reward, terminated, truncated, info

    def _join(self, observation: Observation, info: dict) -> dict:
        added = self._entries(info)
        if not self._keeps:
            return added
        return {**observation, **added} if self._is_dict else {"observation": observation, **added}

    @abstractmethod
    def _entries(self, info: dict) -> dict:
        """Return the values of the new entries after a reset or step that returned ``info``."""


FLAG = spaces.Box(0, 1, (), np.uint8)  # the space of one entry of info that is 0 or 1, or a bool


class InfoKeys(Beside):
    """Add chosen entries of the simulator's ``info`` to its observation, at every reset and step.

    The simulator must return an entry at every step and reset, unless it has a default. A space of bools or bits
    accepts zeros and ones of any dtype, as masks of legal actions often have. Choices with another start are shifted to
    start at 0.

    >>> from torchrl.envs.simulators import GymSimulator
    >>> taxi = InfoKeys(GymSimulator("Taxi-v4"), {"action_mask": spaces.MultiBinary(6)})
    >>> sorted(taxi.reset(seed=0)[0])
    ['action_mask', 'observation']

    Args:
        simulator: what to wrap.
        keys: the space of each entry, by its name in ``info``; a ``Dict`` space for one that is a dict itself.
        defaults: what is observed where an entry is missing, typically at a reset; a value of its space.

    Raises:
        ConfigError: a name is taken by an observation, a default has no key or does not lie in its space.
    """

    def __init__(
        self, simulator: gymnasium.Env, keys: Mapping[str, Space], *, defaults: Mapping[str, Any] | None = None
    ) -> None:
        presented = {key: count_from_zero(space) for key, space in keys.items()}
        super().__init__(simulator, {key: space for key, (space, _, _) in presented.items()})
        self._moves = {key: outward for key, (_, _, outward) in presented.items() if outward is not None}
        self._keys = dict(keys)
        self._bits = {key: space.dtype for key, space in keys.items() if holds_bits(space)}
        self._defaults = {key: self._checked_default(key, value) for key, value in (defaults or {}).items()}

    def _checked_default(self, key: str, value: Any) -> Any:
        if key not in self._keys:
            raise ConfigError(explain("InfoKeys", expected=f"defaults for {sorted(self._keys)}", got=repr(key)))
        space = self._keys[key]
        value = np.asarray(value, space.dtype) if isinstance(space, spaces.Box) else value
        if not space.contains(value):
            raise ConfigError(explain(f"InfoKeys, default of {key!r}", expected=f"a value in {space}", got=repr(value)))
        return value

    def _entries(self, info: dict) -> dict:
        return {key: self._value(info, key) for key in self._keys}

    def _value(self, info: dict, key: str) -> Any:
        value = info.get(key)
        if value is None:
            value = self._defaults.get(key)
        if value is None:
            hint = f"Say what is observed then: defaults={{{key!r}: ...}}, in GymEnv info_defaults."
            raise EnvError(explain("InfoKeys", expected=f"an info with {key!r}", got=sorted(info), hint=hint))
        if key in self._moves:
            return self._moves[key](value)
        dtype = self._bits.get(key)
        return value if dtype is None else as_bits(value, dtype)


def holds_bits(space: Space) -> bool:
    """Answer whether all values of a space are true or false, or 0 or 1."""
    if isinstance(space, spaces.MultiDiscrete):
        return bool((space.nvec == 2).all() and not np.any(space.start))
    is_box = isinstance(space, spaces.Box) and space.dtype.kind in "iu"
    is_unit = is_box and bool((space.low == 0).all() and (space.high == 1).all())
    return isinstance(space, spaces.MultiBinary) or space.dtype == np.bool_ or is_unit


def as_bits(value: Any, dtype: np.dtype) -> Any:
    """Return zeros and ones in another dtype; values that are none stay as they are."""
    value = np.asarray(value)
    if value.dtype == dtype:
        return value
    is_binary = value.dtype.kind in "iufb" and bool(((value == 0) | (value == 1)).all())
    return value.astype(dtype) if is_binary else value


class LeaveOut(SimulatorWrapper):
    """Remove named entries from the observation, such as text, or what the policy shall not see.

    >>> from torchrl.envs.simulators import GymSimulator
    >>> LeaveOut(GymSimulator("Blackjack-v1"), ["2"]).observation_space  # no usable ace
    Dict('0': Discrete(32), '1': Discrete(11))

    Args:
        simulator: what to wrap; its observation is a dict, or a tuple, whose entries are called ``"0"``, ``"1"``, ….
        keys: names of entries, ``["mission"]``; one inside another is ``"goal/text"`` or ``("goal", "text")``. The name
            of a Dict or Tuple removes all its entries.

    Raises:
        ConfigError: there is no such entry, or no entry would stay.
    """

    def __init__(self, simulator: gymnasium.Env, keys: Sequence[Name]) -> None:
        super().__init__(simulator)
        self.observation_space, self._kept = without_entries("leave_out", simulator.observation_space, keys)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode, and remove the entries from the observation; see :meth:`Simulator.reset`."""
        observation, info = self.simulator.reset(seed=seed, options=options)
        return self._kept(observation), info

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step, and remove the entries from the observation; see :meth:`Simulator.step`."""
        observation, *result = self.simulator.step(action)
        return self._kept(observation), *result


class Pixels(Beside):
    """Add a rendered picture, uint8 ``[H, W, 3]``, to the observation, or replace the observation by it.

    The simulator is reset once when it is wrapped, to learn the size of its pictures.

    >>> from torchrl.envs.simulators import GymSimulator
    >>> lake = Pixels(GymSimulator("FrozenLake-v1", {"render_mode": "rgb_array"}))  # doctest: +SKIP
    >>> lake.observation_space["pixels"].shape  # doctest: +SKIP
    (256, 256, 3)

    Args:
        simulator: what to wrap; it must be able to :meth:`~Simulator.render`.
        key: the picture's key in the observation.
        pixels_only: whether the other observations are left out.

    Raises:
        ConfigError: the name is taken by an observation.
        EnvError: the simulator cannot draw itself.
        MissingExtraError: a package that draws is not installed.
    """

    def __init__(self, simulator: gymnasium.Env, key: str = "pixels", *, pixels_only: bool = True) -> None:
        simulator.reset()
        shape = _frame(simulator).shape
        super().__init__(simulator, {key: spaces.Box(0, 255, shape, np.uint8)}, keeps=not pixels_only)
        self._key = key

    def _entries(self, info: dict) -> dict:
        return {self._key: self.simulator.render()}


def _frame(simulator: gymnasium.Env) -> np.ndarray:
    frame = np.asarray(simulator.render()) if hasattr(simulator, "render") else np.empty(0)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or not frame.size:
        got = f"{frame.dtype} of shape {list(frame.shape)} from {type(simulator).__name__}"
        raise EnvError(explain("Pixels", expected="a picture, uint8 [H, W, 3]", got=got))
    return frame
