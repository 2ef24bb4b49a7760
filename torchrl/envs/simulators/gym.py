"""Wrap a gymnasium environment, built from an id or given, as a simulator: choices count from 0, state can be saved."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium import error as gym_error, spaces

from torchrl.envs.simulators.base import Observation, Simulator, State
from torchrl.envs.simulators.capture import capture_attributes, restore_attributes
from torchrl.envs.simulators.console import get_console, is_console, set_console
from torchrl.envs.simulators.foreign import foreign_hint, is_pool
from torchrl.envs.simulators.ids import install_hint, package_hint, similar_id, with_module
from torchrl.envs.simulators.limits import gym_step_limit
from torchrl.envs.simulators.offsets import count_from_zero
from torchrl.envs.simulators.opengl import choose_opengl, no_opengl
from torchrl.envs.simulators.physics import get_physics, set_physics
from torchrl.errors import EnvError, MissingExtraError, explain

# By the folder of gymnasium that an environment lives in: the extra of this package that brings what it needs.
EXTRAS = {
    "box2d": "box2d",
    "classic_control": "classic-control",
    "mujoco": "mujoco",
    "toy_text": "classic-control",
}


class GymSimulator(Simulator):
    """Wrap one gymnasium environment as a simulator whose choices count from 0 and whose state can be saved.

    Spaces of choices with another start, also inside other spaces, are shifted to start at 0. Observations are not
    converted, float64 included. An environment that resets itself at the step after an ending
    (``gymnasium.wrappers.Autoreset``) works, too: the library resets it before that step.

    >>> simulator = GymSimulator("Blackjack-v1")
    >>> simulator.observation_space, simulator.action_space
    (Tuple(Discrete(32), Discrete(11), Discrete(2)), Discrete(2))

    Args:
        env_or_id: an id such as ``"CartPole-v1"``, or an environment.
        env_kwargs: arguments for ``gymnasium.make``; only with an id.

    Raises:
        EnvError: no such id, or something that is not one environment, or one without spaces.
        MissingExtraError: the environment needs a package that is not installed.
    """

    def __init__(self, env_or_id: str | gymnasium.Env, env_kwargs: dict[str, Any] | None = None) -> None:
        if isinstance(env_or_id, str):
            self.env = _make(env_or_id, env_kwargs or {})
        else:
            self.env = _check_env(env_or_id, env_kwargs)
        _require_spaces(self.env)
        self.observation_space, _, outward = count_from_zero(self.env.observation_space)
        self.action_space, inward, _ = count_from_zero(self.env.action_space)
        self._outward, self._inward = outward or _unchanged, inward or _unchanged
        if outward is None and inward is None:
            self.step, self.reset = self.env.step, self.env.reset
        self.metadata, self.render_mode, self.spec = self.env.metadata, self.env.render_mode, self.env.spec

    @property
    def unwrapped(self) -> gymnasium.Env:
        """The environment below all wrappers."""
        return self.env.unwrapped

    def require_ability(self, ability: str) -> None:
        """Let a :class:`Simulator` inside gymnasium's wrappers refuse ``"seeds"`` or ``"options"``; others pass."""
        *_, simulator = _layers(self.env)
        if isinstance(simulator, Simulator):
            simulator.require_ability(ability)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; see :meth:`Simulator.reset`."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._outward(observation), info

    def step(self, action: np.ndarray | int) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step; see :meth:`Simulator.step`."""
        observation, reward, terminated, truncated, info = self.env.step(self._inward(action))
        return self._outward(observation), reward, terminated, truncated, info

    def render(self) -> np.ndarray:
        """Return a picture of the present state; see :meth:`Simulator.render`.

        Raises:
            EnvError: the environment was not built to return pictures, or MuJoCo finds no OpenGL.
            MissingExtraError: a package that draws is not installed.
        """
        try:
            if "mujoco" in sys.modules:
                choose_opengl()
            frame = self.env.render()
        except (gym_error.DependencyNotInstalled, ImportError) as error:
            raise MissingExtraError(_missing_dependency(self.env, error)) from error
        except Exception as error:
            if isinstance(error, gym_error.Error) or not hasattr(self.env.unwrapped, "mujoco_renderer"):
                raise
            raise no_opengl("GymSimulator.render", error) from error
        if not isinstance(frame, np.ndarray):
            hint = 'GymEnv(name, env_kwargs={"render_mode": "rgb_array"}), or the same argument for gymnasium.make.'
            got = f'{type(frame).__name__} with render_mode "{self.env.render_mode}"'
            expected = 'an environment with render_mode "rgb_array"'
            raise EnvError(explain("GymSimulator.render", expected=expected, got=got, hint=hint))
        return frame

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def step_limit(self) -> float:
        """Return the step limit of the environment and its wrappers; see :meth:`Simulator.step_limit`."""
        return gym_step_limit(self.env)

    def get_state(self) -> State:
        """Return the attributes of every wrapper layer, the random generators, and what MuJoCo or ale-py hold below.

        Raises:
            EnvError: a layer holds something that is neither plain data nor known to be constant.
        """
        return {
            "simulator": "gym",
            "layers": {str(at): _layer_state(layer) for at, layer in enumerate(_layers(self.env))},
        }

    def set_state(self, state: State) -> None:
        """Continue from a state that :meth:`get_state` of an environment built alike returned.

        Raises:
            EnvError: the state is of other wrapper layers or another environment.
        """
        layers = list(_layers(self.env))
        own = [type(layer).__name__ for layer in layers]
        saved = [layer["class"] for layer in state.get("layers", {}).values()]
        if saved != own:
            raise EnvError(explain("GymSimulator.set_state", expected=f"a state of {own}", got=f"one of {saved}"))
        for layer, layer_state in zip(layers, state["layers"].values(), strict=True):
            if isinstance(layer, Simulator):
                layer.set_state(layer_state["simulator"])
                continue
            if "physics" in layer_state:
                set_physics(layer.model, layer.data, layer_state["physics"])
            if "console" in layer_state:
                set_console(layer.ale, layer_state)
            restore_attributes(layer, layer_state["attributes"])


def _layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """Yield the environment's wrappers from the outside in, then the environment itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def _layer_state(layer: gymnasium.Env) -> State:
    if isinstance(layer, Simulator):
        return {"class": type(layer).__name__, "simulator": layer.get_state()}
    held = {"env"} if isinstance(layer, gymnasium.Wrapper) else set()
    state = {"class": type(layer).__name__}
    own = vars(layer)
    if all(type(own.get(name)).__module__.startswith("mujoco.") for name in ("model", "data")):
        state["physics"] = get_physics(own["model"], own["data"])
        held |= {"model", "data"}
    if is_console(own.get("ale")):
        state |= get_console(own["ale"])
        held |= {"ale", "_action_set"}
    return state | {"attributes": capture_attributes(layer, skip=held)}


_OF_GYMNASIUM = ("render_mode", "max_episode_steps", "disable_env_checker")  # taken by every environment


def _make(env_id: str, env_kwargs: dict[str, Any]) -> gymnasium.Env:
    if env_id.count(":") > 1 or env_id.startswith(":") or env_id.endswith(":"):
        hint = 'Such as "CartPole-v1" or "minigrid:MiniGrid-Empty-8x8-v0".'
        raise EnvError(explain("GymSimulator", expected="an id, or module:id", got=repr(env_id), hint=hint))
    try:
        return gymnasium.make(with_module(env_id), **env_kwargs)
    except Exception as error:
        mistake = _mistake(env_id, env_kwargs, error)
        if mistake is None:
            raise
        raise mistake from error


def _mistake(env_id: str, env_kwargs: dict[str, Any], error: Exception) -> EnvError | MissingExtraError | None:
    """Return the error to raise where gymnasium cannot make an environment; None if that is not the user's mistake."""
    if isinstance(error, gym_error.DependencyNotInstalled | ImportError):
        return MissingExtraError(_missing_dependency(with_module(env_id), error))
    if isinstance(error, AttributeError) and "must specify an" in str(error):  # gymnasium's check of the two spaces
        return EnvError(explain("GymSimulator", expected="an environment with its two spaces", got=error))
    if isinstance(error, gym_error.Error):
        hint = _hint_for(env_id, error)
        return EnvError(explain("GymSimulator", expected="a registered id", got=repr(env_id), hint=hint))
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        expected, got = f'arguments that "{env_id}" takes', f"{sorted(env_kwargs)}: {error}"
        return EnvError(explain("GymSimulator, env_kwargs", expected=expected, got=got))
    own = {name: value for name, value in env_kwargs.items() if name not in _OF_GYMNASIUM}
    expected, got = f'values that "{env_id}" takes', f"{own}: {type(error).__name__}: {error}"
    return EnvError(explain("GymSimulator, env_kwargs", expected=expected, got=got)) if own else None


def _hint_for(env_id: str, error: Exception) -> str:
    *module, name = env_id.split(":")
    hint = None if module else package_hint(name)
    if hint is not None:
        return hint  # gymnasium knows nothing of it
    near = similar_id(name)
    hint = f'Did you mean "{near}"?' if near else "Import the package that registers it, or write module:id."
    hint = f'"{module[0]}" was imported and registers no such id.' if module and not near else hint
    return f"{hint} gymnasium says: {error}"


def _missing_dependency(env: gymnasium.Env | str, error: Exception) -> str:
    module = env.split(":")[0] if isinstance(env, str) and ":" in env else None
    if module is not None and find_spec(module.split(".")[0]) is None:
        got = "no such module"
        return explain("GymSimulator", expected=f'the module "{module}"', got=got, hint=install_hint(module))
    if module is not None and gymnasium.registry.get(env.split(":")[1]) is None:
        expected = f'a module "{module}" that can be imported'
        return explain("GymSimulator", expected=expected, got=f"{type(error).__name__}: {error}")
    env = env.split(":")[-1] if isinstance(env, str) else env
    spec = gymnasium.registry.get(env) if isinstance(env, str) else env.spec
    home = str(spec.entry_point) if spec is not None else type(env.unwrapped).__module__
    extra = next((extra for folder, extra in EXTRAS.items() if home.startswith(f"gymnasium.envs.{folder}")), None)
    if extra == "mujoco" and all(find_spec(module) is not None for module in ("mujoco", "imageio")):
        extra = None  # an old version, which needs something else
    hint = f'Install the extra from the clone: pip install -c constraints.txt -e ".[{extra}]"'
    hint = f"{hint if extra else 'Install what it names.'} gymnasium says: {error}"
    name = env if isinstance(env, str) else getattr(spec, "id", type(env.unwrapped).__name__)
    return explain("GymSimulator", expected=f'the packages that "{name}" needs', got="one missing", hint=hint)


def _check_env(env: Any, env_kwargs: dict[str, Any] | None) -> gymnasium.Env:
    if env_kwargs:
        expected = "env_kwargs only with an id"
        raise EnvError(explain("GymSimulator", expected=expected, got=f"an environment and {sorted(env_kwargs)}"))
    if not isinstance(env, gymnasium.Env) or is_pool(env):
        hint = foreign_hint(env)
        if not hint and (callable(env) or hasattr(env, "step")):
            hint = "A function that builds a simulator, of any kind, goes into SerialEnv(make_simulator, num_envs)."
        expected = "an id or a gymnasium.Env"
        got = f"the class {env.__name__}" if isinstance(env, type) else type(env).__name__
        raise EnvError(explain("GymSimulator", expected=expected, got=got, hint=hint))
    return env


def _require_spaces(env: gymnasium.Env) -> None:
    names = ("observation_space", "action_space")
    lacking = [name for name in names if not isinstance(getattr(env, name, None), spaces.Space)]
    if lacking:
        got = f"{type(env.unwrapped).__name__} without {' and '.join(lacking)}"
        hint = "Set both in its __init__, for example self.action_space = gymnasium.spaces.Discrete(2)."
        raise EnvError(explain("GymSimulator", expected="an environment with its two spaces", got=got, hint=hint))


def _unchanged(value: Any) -> Any:
    return value
