"""Convert and check one simulator's values to tensors and back; ``conversions`` converts their spaces to specs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict, TensorDictBase
from torch.nn.functional import one_hot as as_one_hot

from torchrl.data.specs import MultiOneHot
from torchrl.envs.conversions import as_space, numpy_dtype, parts_of, spec_from_space
from torchrl.errors import SpecError, explain


def encode(space: Any, value: Any, *, one_hot: bool = False) -> torch.Tensor | TensorDict:
    """Convert a value of a gymnasium space to a tensor that fits ``spec_from_space(space, one_hot=one_hot)``.

    Choices are counted from 0. The parts of a ``OneOf`` that were not chosen are zero.

    >>> encode(spaces.Discrete(3, start=5), 6)  # the second choice
    tensor(1)
    >>> encode(spaces.Discrete(3, start=5), 6, one_hot=True).tolist()
    [0, 1, 0]

    Args:
        space: a gymnasium space or specs of dm_env, of one simulator.
        value: numpy or Python, in this space: arrays, numbers, lists of such, dicts and tuples as the space has them.
        one_hot: write choices as one-hot vectors instead of indices.

    Returns:
        A new tensor or TensorDict.

    Raises:
        SpecError: the value is not in the space; the message names the part.
    """
    return _encode(as_space("encode", space), value, one_hot, "value")


def decode(space: Any, tensor: torch.Tensor | TensorDictBase, *, one_hot: bool = False) -> Any:
    """Convert a tensor to a value of a simulator's space: the inverse of :func:`encode`.

    Choices start where the space starts, dtypes are the space's, and a number that rounding to float32 has moved just
    beyond a bound is moved back onto it.

    >>> int(decode(spaces.Discrete(3, start=5), torch.tensor(1)))
    6

    Args:
        space: a gymnasium space or specs of dm_env, of one simulator.
        tensor: fits ``spec_from_space(space, one_hot=one_hot)``, on any device.
        one_hot: whether choices are written as one-hot vectors.

    Returns:
        A new numpy array or number, or a dict or tuple of such.

    Raises:
        SpecError: the spec does not contain the tensor.
    """
    space = as_space("decode", space)
    if isinstance(tensor, (torch.Tensor, TensorDictBase)):
        tensor = tensor.detach().cpu()
    spec_from_space(space, one_hot=one_hot).assert_contains(tensor)
    return _decode(space, tensor, one_hot)


def _encode(space: spaces.Space, value: Any, one_hot: bool, name: str) -> torch.Tensor | TensorDict:
    if isinstance(space, spaces.OneOf):
        return _encode_one_of(space, value, one_hot, name)
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        kind = Mapping if isinstance(space, spaces.Dict) else (tuple, list)
        parts = parts_of(space)
        _require(isinstance(value, kind) and len(value) == len(parts), name, space, value)
        given = value if isinstance(value, Mapping) else dict(zip(parts, value, strict=True))
        _require(given.keys() == parts.keys(), name, space, value)
        return TensorDict({key: _encode(part, given[key], one_hot, f"{name}.{key}") for key, part in parts.items()}, [])
    spec = spec_from_space(space, one_hot=one_hot)  # refuses what has no tensor
    if isinstance(space, spaces.Box):
        return torch.from_numpy(_array_in_box(space, value, name, numpy_dtype(spec.dtype)))
    numbers = _array(value, "iub", name, space)
    low, nvec = _choices(space)
    _require(((numbers >= low) & (numbers <= low + (nvec - 1))).all(), name, space, value)
    index = torch.from_numpy(np.asarray(numbers.astype(np.int64) - low))
    if isinstance(spec, MultiOneHot):
        pairs = zip(index.flatten(), spec.nvec, strict=True)
        return torch.cat([as_one_hot(part, n) for part, n in pairs]).to(spec.dtype)
    return index.to(spec.dtype)


def _encode_one_of(space: spaces.OneOf, value: Any, one_hot: bool, name: str) -> TensorDict:
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2
    _require(is_pair, name, space, value)
    chosen, part = value
    index = _encode(spaces.Discrete(len(space)), chosen, one_hot, f"{name}.index")
    encoded = spec_from_space(space, one_hot=one_hot).zero().set("index", index)
    key = str(int(chosen))
    return encoded.set(key, _encode(space[int(chosen)], part, one_hot, f"{name}.{key}"))


def _array_in_box(space: spaces.Box, value: Any, name: str, dtype: np.dtype) -> np.ndarray:
    numbers = _array(value, {"f": "fiub", "b": "b"}.get(space.dtype.kind, "iu"), name, space)
    with np.errstate(over="ignore"):
        if (
            space.dtype.kind == "f"
        ):  # bounds have this precision; integers must not wrap around before they are compared
            numbers = numbers.astype(space.dtype)
        _require(((numbers >= space.low) & (numbers <= space.high)).all(), name, space, value)
        return numbers.astype(dtype)


def _choices(space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) -> tuple[Any, Any]:
    """Return the start and the number of choices of a discrete space, as int64 to avoid overflow."""
    if isinstance(space, spaces.MultiBinary):
        return np.int64(0), np.int64(2)
    n = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return np.asarray(space.start, np.int64), np.asarray(n, np.int64)


def _array(value: Any, kinds: str, name: str, space: spaces.Space) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    _require(array.dtype.kind in kinds and array.shape == space.shape, name, space, value)
    return array


def _require(holds: bool | np.bool_, name: str, space: spaces.Space, value: Any) -> None:
    if not holds:
        large = isinstance(value, np.ndarray) and value.size > 16
        got = f"{value.dtype} {list(value.shape)}, not all of it in the space" if large else repr(value)
        raise SpecError(explain(name, expected=f"a value of {space}", got=got))


def _decode(space: spaces.Space, tensor: torch.Tensor | TensorDictBase, one_hot: bool) -> Any:
    if isinstance(space, spaces.OneOf):
        chosen = int(_decode(spaces.Discrete(len(space)), tensor["index"], one_hot))
        return np.int64(chosen), _decode(space[chosen], tensor[str(chosen)], one_hot)
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = {key: _decode(part, tensor[key], one_hot) for key, part in parts_of(space).items()}
        return parts if isinstance(space, spaces.Dict) else tuple(parts.values())
    if isinstance(space, spaces.Box):
        numbers = tensor.numpy().astype(space.dtype)
        return np.asarray(np.clip(numbers, space.low, space.high)) if space.dtype.kind == "f" else numbers
    if one_hot and not isinstance(space, spaces.MultiBinary):
        groups = _choices(space)[1].ravel().tolist()
        tensor = torch.stack([part.argmax() for part in tensor.split(groups)]).reshape(space.shape)
    numbers = np.asarray(tensor.numpy() + _choices(space)[0]).astype(space.dtype)
    return numbers[()] if isinstance(space, spaces.Discrete) else numbers
