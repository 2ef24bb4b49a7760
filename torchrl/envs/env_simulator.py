"""An adapter that makes an env of batch size ``[]`` a simulator, so that serial and parallel envs can step it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import Space, spaces
from tensordict import TensorDict, TensorDictBase

from torchrl.data.specs import Composite, MultiOneHot, OneHot, TensorSpec
from torchrl.envs.conversions import space_from_spec
from torchrl.envs.driving import leave_env, take_env
from torchrl.envs.simulators.base import Action, Observation, Simulator, State
from torchrl.errors import EnvError, explain

if TYPE_CHECKING:
    from torchrl.envs.base import Env

_TENSOR = {"tensor", "device"}  # keys of what a tensor becomes in a state


class EnvSimulator(Simulator):
    """Wrap an ``Env`` of batch size ``[]`` as a simulator, one world in numpy; see :meth:`Env.as_simulator`.

    The spaces are converted from the environment's specs: a one-hot vector becomes the number of the choice. Entries
    that are no observations (a policy's state, parameters of the row) are left out.

    Args:
        env: of batch size ``[]``; only the simulator may use it from now on.

    Raises:
        EnvError: something else steps the environment.
    """

    def __init__(self, env: Env) -> None:
        take_env("as_simulator", env, self)
        self.env = env
        self.observation_space = space_from_spec(env.observation_spec)
        self.action_space = space_from_spec(env.action_spec)
        self._root: TensorDict | None = None

    @torch.no_grad()
    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; see :meth:`Simulator.reset`."""
        self._root = self.env.reset(seed=None if seed is None else [seed], options=options)
        return self._observe(self._root), {}

    @torch.no_grad()
    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict]:
        """Advance by one step; see :meth:`Simulator.step`.

        Raises:
            EnvError: the environment was not reset before.
        """
        if self._root is None:
            raise EnvError(explain("EnvSimulator.step", expected="reset() first", got="a step without an episode"))
        acted = self._root.copy().set("action", _to_tensor(self.env.action_spec, self.action_space, action))
        transition, self._root, _ = self.env.advance(acted)
        outcome = transition.get("next")
        reward, terminated, truncated = [outcome.get(key).item() for key in ("reward", "terminated", "truncated")]
        return self._observe(outcome), reward, terminated, truncated, {}

    def require_ability(self, ability: str) -> None:
        """Raise an error if the environment's resets do not take ``ability``; see :meth:`Simulator.require_ability`."""
        if ability == "seeds":
            self.env.require_seeds()
        else:
            self.env.require_options([{}])

    def render(self) -> np.ndarray:
        """Return a picture of the present state; see :meth:`Simulator.render`."""
        return self.env.render().cpu().numpy()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()
        leave_env(self.env, self)

    def step_limit(self) -> float:
        """Return the environment's step limit; see :meth:`Simulator.step_limit`."""
        return self.env.step_limit

    def get_state(self) -> State:
        """Return the environment's state with tensors as numpy arrays.

        Raises:
            EnvError: the environment has no state to save.
        """
        return {"env": _to_plain(self.env.state_dict())}

    def set_state(self, state: State) -> None:
        """Continue from what :meth:`get_state` returned.

        Raises:
            EnvError: the environment cannot restore a state.
        """
        self._root = self.env.load_state_dict(_from_plain(state["env"]))

    def _observe(self, tensordict: TensorDictBase) -> Observation:
        return _to_numpy(self.env.observation_spec, self.observation_space, tensordict)


def _to_numpy(spec: TensorSpec, space: Space, value: torch.Tensor | TensorDictBase) -> Observation:
    """Convert the tensors of one row to new numpy values of its space."""
    if isinstance(spec, Composite):
        parts = dict(zip(spec.keys(), _parts(space), strict=True))
        values = {key: _to_numpy(spec[key], part, value.get(key)) for key, part in parts.items()}
        return values if isinstance(space, spaces.Dict) else tuple(values.values())
    if isinstance(spec, OneHot):
        return np.int64(value.long().argmax(-1).item())
    if isinstance(spec, MultiOneHot):
        return np.array([group.long().argmax(-1).item() for group in value.split(_groups(space))])
    return value.detach().cpu().numpy().copy()


def _to_tensor(spec: TensorSpec, space: Space, value: Action) -> torch.Tensor | TensorDictBase:
    """Convert a numpy value of a space to the tensors of one row."""
    if isinstance(space, spaces.OneOf):
        chosen, part = value
        key = str(int(chosen))
        index = torch.as_tensor(int(chosen), dtype=spec["index"].dtype)
        return spec.zero().set("index", index).set(key, _to_tensor(spec[key], space[int(chosen)], part))
    if isinstance(spec, Composite):
        values = value.values() if isinstance(space, spaces.Dict) else value
        parts = zip(spec.keys(), _parts(space), values, strict=True)
        return TensorDict({key: _to_tensor(spec[key], part, one) for key, part, one in parts}, batch_size=[])
    tensor = torch.from_numpy(np.array(value))
    if isinstance(spec, MultiOneHot):
        groups = [spec.shape[-1]] if isinstance(spec, OneHot) else _groups(space)
        pairs = zip(tensor.flatten(), groups, strict=True)
        tensor = torch.cat([torch.nn.functional.one_hot(index, num) for index, num in pairs])
    return tensor.to(spec.device, spec.dtype)


def _parts(space: spaces.Dict | spaces.Tuple) -> list[Space]:
    return list(space.values()) if isinstance(space, spaces.Dict) else list(space.spaces)


def _groups(space: spaces.MultiDiscrete) -> list[int]:
    return space.nvec.ravel().tolist()


def _to_plain(state: Any) -> Any:
    """Replace the tensors in a nested state by numpy arrays, marked with their device, for :func:`_from_plain`."""
    if isinstance(state, torch.Tensor):
        return {"tensor": state.detach().cpu().numpy().copy(), "device": str(state.device)}
    if isinstance(state, dict):
        return {key: _to_plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_to_plain(value) for value in state]
    return state


def _from_plain(state: Any) -> Any:
    if isinstance(state, dict):
        if state.keys() == _TENSOR:
            return torch.from_numpy(state["tensor"].copy()).to(state["device"])
        return {key: _from_plain(value) for key, value in state.items()}
    return [_from_plain(value) for value in state] if isinstance(state, list) else state
