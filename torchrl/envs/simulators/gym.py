"""A gymnasium environment as a simulator: built from an id, its spaces presented alike, its state saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium import error as gym_error
from gymnasium import spaces

from torchrl.envs.simulators.base import Observation, Simulator, State
from torchrl.envs.simulators.capture import capture_attributes, restore_attributes
from torchrl.envs.simulators.physics import get_physics, set_physics
from torchrl.errors import EnvError, MissingExtraError, explain, nearest


class GymSimulator(Simulator):
    """One gymnasium environment. ``step`` and ``reset`` are the environment's own where nothing needs translating.

    A ``Discrete`` space that does not start at 0 is presented as one that does. Observations come as the environment
    returns them, float64 included.

    Args:
        env_or_id: an id such as ``"CartPole-v1"``, or an environment.
        env_kwargs: arguments for ``gymnasium.make``; only with an id.

    Raises:
        EnvError: no such id, or something that is not one environment without automatic reset.
        MissingExtraError: the environment needs a package that is not installed.
    """

    def __init__(self, env_or_id: str | gymnasium.Env, env_kwargs: dict[str, Any] | None = None) -> None:
        if isinstance(env_or_id, str):
            self.env = _make(env_or_id, env_kwargs or {})
        else:
            self.env = _checked(env_or_id, env_kwargs)
        self.observation_space, outward = _from_zero(self.env.observation_space, -1)
        self.action_space, inward = _from_zero(self.env.action_space, 1)
        self._outward, self._inward = outward or _unchanged, inward or _unchanged
        if outward is None and inward is None:
            self.step, self.reset = self.env.step, self.env.reset

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; see :meth:`Simulator.reset`."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._outward(observation), info

    def step(self, action: np.ndarray | int) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step; see :meth:`Simulator.step`."""
        observation, reward, terminated, truncated, info = self.env.step(self._inward(action))
        return self._outward(observation), reward, terminated, truncated, info

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_state(self) -> State:
        """Return the attributes of every wrapper layer, the random generators, and the physics if it is MuJoCo's.

        Raises:
            EnvError: a layer holds something that is neither plain data nor known to be constant.
        """
        return {
            "simulator": "gym",
            "layers": {str(at): _layer_state(layer) for at, layer in enumerate(_layers(self.env))},
        }

    def set_state(self, state: State) -> None:
        """Continue from a saved state; see :meth:`Simulator.set_state`."""
        layers = list(_layers(self.env))
        own = [type(layer).__name__ for layer in layers]
        saved = [layer["class"] for layer in state.get("layers", {}).values()]
        if saved != own:
            raise EnvError(explain("GymSimulator.set_state", expected=f"a state of {own}", got=f"one of {saved}"))
        for layer, layer_state in zip(layers, state["layers"].values(), strict=True):
            if "physics" in layer_state:
                set_physics(layer.model, layer.data, layer_state["physics"])
            restore_attributes(layer, layer_state["attributes"])


def _layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """Yield the environment's wrappers from the outside in, then the environment itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def _layer_state(layer: gymnasium.Env) -> State:
    held = {"env"} if isinstance(layer, gymnasium.Wrapper) else set()
    state = {"class": type(layer).__name__}
    own = vars(layer)
    if all(type(own.get(name)).__module__.startswith("mujoco.") for name in ("model", "data")):
        state["physics"] = get_physics(own["model"], own["data"])
        held |= {"model", "data"}
    return state | {"attributes": capture_attributes(layer, skip=held)}


def _make(env_id: str, env_kwargs: dict[str, Any]) -> gymnasium.Env:
    try:
        return gymnasium.make(env_id, **env_kwargs)
    except (gym_error.DependencyNotInstalled, ImportError) as error:
        raise MissingExtraError(_missing_dependency(env_id, error)) from error
    except gym_error.Error as error:
        is_foreign = isinstance(error, gym_error.NamespaceNotFound)
        near = None if is_foreign else nearest(env_id, gymnasium.registry)
        hint = f'Did you mean "{near}"?' if near else "Import the package that registers it, or write module:id."
        hint = f"{hint} gymnasium says: {error}"
        raise EnvError(explain("GymSimulator", expected="a registered id", got=repr(env_id), hint=hint)) from error


def _missing_dependency(env_id: str, error: Exception) -> str:
    spec = gymnasium.registry.get(env_id)
    is_mujoco = spec is not None and "mujoco" in str(spec.entry_point)
    if is_mujoco and any(find_spec(module) is None for module in ("mujoco", "imageio")):
        hint = 'Install the extra from the clone: pip install -c constraints.txt -e ".[mujoco]"'
    else:
        hint = "Install what it names."
    hint = f"{hint} gymnasium says: {error}"
    return explain("GymSimulator", expected=f'the packages that "{env_id}" needs', got="one missing", hint=hint)


def _checked(env: Any, env_kwargs: dict[str, Any] | None) -> gymnasium.Env:
    if env_kwargs:
        expected = "env_kwargs only with an id"
        raise EnvError(explain("GymSimulator", expected=expected, got=f"an environment and {sorted(env_kwargs)}"))
    if not isinstance(env, gymnasium.Env):
        hint = "A vector environment is a batch already, not one simulator."
        hint = hint if isinstance(env, gymnasium.vector.VectorEnv) else ""
        expected = "an id or a gymnasium.Env"
        raise EnvError(explain("GymSimulator", expected=expected, got=type(env).__name__, hint=hint))
    if any(isinstance(layer, gymnasium.wrappers.Autoreset) for layer in _layers(env)):
        hint = "Take the wrapper off: endings are handled by the Env, which keeps the final observation."
        expected = "an environment without automatic reset"
        raise EnvError(explain("GymSimulator", expected=expected, got="the wrapper Autoreset", hint=hint))
    return env


def _from_zero(space: spaces.Space, sign: int) -> tuple[spaces.Space, Callable[[Any], Any] | None]:
    """Present ``Discrete`` spaces as starting at 0.

    Args:
        space: the environment's.
        sign: 1 to translate to the environment's values, -1 from them.

    Returns:
        The space to present, and how to translate a value; None if nothing changes.
    """
    if isinstance(space, spaces.Discrete) and space.start != 0:
        offset = sign * int(space.start)
        return spaces.Discrete(space.n), lambda value: int(value) + offset
    if isinstance(space, spaces.Dict):
        presented = {key: _from_zero(part, sign) for key, part in space.items()}
        moves = {key: move for key, (_, move) in presented.items() if move is not None}
        if moves:
            return (
                spaces.Dict({key: part for key, (part, _) in presented.items()}),
                lambda value: {key: moves.get(key, _unchanged)(part) for key, part in value.items()},
            )
    return space, None


def _unchanged(value: Any) -> Any:
    return value
