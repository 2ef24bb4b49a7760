"""Convert the policy's actions (tensors) to numpy batches for the simulators, and check their shapes and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from tensordict import TensorDictBase

from torchrl.data.specs import Categorical, TensorSpec
from torchrl.data.specs.base import LeafSpec
from torchrl.envs.vector.buffers import border_dtype
from torchrl.errors import KeyMissing, SpecError, explain

Action = torch.Tensor | TensorDictBase
Reader = Callable[[Action], Any]


def action_reader(space: Space, spec: TensorSpec, name: str = "action") -> Reader:
    """Return a function that checks a batch of the policy's actions and converts it to numpy arrays.

    Its results are nested like ``space``, with an array ``[num_envs, ...]`` at each leaf: a Dict gives a dict, a Tuple
    a tuple, a OneOf ``(indices, tuple of the parts)``. Arrays share the tensors' memory where the dtypes agree.
    It raises SpecError for a leaf of another shape, dtype or device, KeyMissing for a missing leaf.

    Args:
        space: the action space of one simulator.
        spec: ``env.action_spec``, of the whole batch; batch size ``[]`` is treated as one row.
        name: the action's name in messages.
    """
    if isinstance(space, spaces.Dict):
        return partial(_read_dict, name, _readers(space.spaces, spec, name))
    if isinstance(space, spaces.Tuple):
        return partial(_read_tuple, name, _readers(dict(enumerate(space.spaces)), spec, name))
    if isinstance(space, spaces.OneOf):
        index = _leaf_reader(spaces.Discrete(len(space)), spec["index"], len(spec.shape), f"{name}.index")
        return partial(_read_choice, name, index, _readers(dict(enumerate(space.spaces)), spec, name))
    return _leaf_reader(space, spec, _num_batch_dims(space, spec), name)


def _readers(parts: dict, spec: TensorSpec, name: str) -> dict[str, Reader]:
    return {str(key): action_reader(part, spec[str(key)], f"{name}.{key}") for key, part in parts.items()}


def _num_batch_dims(space: Space, spec: TensorSpec) -> int:
    return len(spec.shape) - len(space.shape)


def _leaf_reader(space: Space, spec: LeafSpec, num_batch_dims: int, name: str) -> Reader:
    shape, dtype = spec.shape, spec.dtype
    as_array = torch.Tensor.numpy  # refuses a TensorDict

    def read(action: torch.Tensor) -> np.ndarray:
        if action.shape != shape or action.dtype is not dtype:
            raise _misfit(action, spec, name)
        try:
            return as_array(action.detach())
        except TypeError as error:
            raise _misfit(action, spec, name) from error

    fits = np.can_cast(border_dtype(space), space.dtype)
    if num_batch_dims and fits:
        return read
    if fits:
        return lambda action: read(action)[None]
    return lambda action: read(action).reshape(-1, *space.shape).astype(space.dtype)


def _read_dict(name: str, readers: dict[str, Reader], action: TensorDictBase) -> dict:
    return {key: reader(_part(action, key, name)) for key, reader in readers.items()}


def _read_tuple(name: str, readers: dict[str, Reader], action: TensorDictBase) -> tuple:
    return tuple([reader(_part(action, key, name)) for key, reader in readers.items()])


def _read_choice(name: str, index: Reader, readers: dict[str, Reader], action: TensorDictBase) -> tuple:
    return index(_part(action, "index", name)), _read_tuple(name, readers, action)


def _part(action: Action, key: str, name: str) -> Action:
    if not isinstance(action, TensorDictBase):
        hint = f'Write the parts: tensordict["action", "{key}"] = ….' if name == "action" else ""
        raise SpecError(explain(name, expected=f"a TensorDict with {key!r}", got=type(action).__name__, hint=hint))
    value = action.get(key, None)
    if value is None:
        raise KeyMissing(explain(name, expected=f"a TensorDict with {key!r}", got=f"the keys {sorted(action.keys())}"))
    return value


def _misfit(action: Action, spec: LeafSpec, name: str) -> SpecError:
    expected = f"shape {list(spec.shape)} and {spec.dtype}"
    if not isinstance(action, torch.Tensor):
        got = f"a {type(action).__name__} with the keys {sorted(action.keys())}"
        return SpecError(explain(name, expected=f"a tensor of {expected}", got=got))
    got = f"shape {list(action.shape)} and {action.dtype}"
    if action.device.type != "cpu":
        return SpecError(explain(name, expected=f"{expected} on the CPU", got=f"{got} on {action.device}"))
    hint = "A discrete action is an int64 index, not one-hot." if isinstance(spec, Categorical) else ""
    return SpecError(explain(name, expected=expected, got=got, hint=hint))
