"""Convert gymnasium spaces and dm_env specs to specs of this library, and back; ``values`` converts the values.

Simulators have spaces and numpy values, environments have specs and tensors. What the conversion changes:

- Specs count choices from 0. Only the space knows another start: so ``encode`` and ``decode`` take the space, and a
  spec becomes a space that starts at 0.
- ``float64`` becomes ``float32``, ``uint16`` and ``uint32`` become ``int32`` and ``int64``, choices become ``int64``.
- A ``Tuple`` has the keys ``"0"``, ``"1"``, …; a ``OneOf`` has them and ``"index"``. So a ``Dict`` with these keys
  comes back as a ``Tuple`` or a ``OneOf``.

All functions take the space of one simulator; only the specs that they make may have batch dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from torchrl.data.specs import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    TensorSpec,
    Unbounded,
)
from torchrl.data.specs.base import Shape
from torchrl.errors import SpecError, explain
from torchrl.extras import require

# Double precision becomes single here, once; unsigned integers that torch hardly supports become wider ones.
_DTYPES = {
    "bool": torch.bool,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float32,
    "uint8": torch.uint8,
    "uint16": torch.int32,
    "uint32": torch.int64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
}
_REFUSED = {
    spaces.Text: "Turn the text into numbers in a wrapper of the simulator: a Box of token indices of fixed length.",
    spaces.Graph: "Pad nodes and edges to a fixed number in a wrapper of the simulator: a Dict of Boxes.",
    spaces.Sequence: "Pad it to a fixed length in a wrapper of the simulator: a Dict of a Box and a mask.",
}


def spec_from_space(space: spaces.Space, batch_size: Shape = (), *, one_hot: bool = False) -> TensorSpec:
    """Convert a gymnasium space of one simulator to the spec of the tensors of a batch of such simulators.

    A ``Box`` becomes ``Bounded``, or ``Unbounded`` if it is of floats without a finite bound, or a ``Categorical`` of 2
    if it is of bools, ``[*B, *shape]``; a ``Discrete`` becomes ``Categorical``, ``[*B]``; a ``MultiDiscrete`` becomes
    ``MultiCategorical`` and a ``MultiBinary`` becomes ``Binary``, ``[*B, *shape]``; a ``Dict``, ``Tuple`` or ``OneOf``
    becomes a ``Composite``.

    >>> spec = spec_from_space(spaces.Dict(legs=spaces.Box(-1, 1, (4,)), gait=spaces.Discrete(3)), batch_size=[8])
    >>> spec["legs"].shape, spec["gait"].shape, spec["gait"].n
    (torch.Size([8, 4]), torch.Size([8]), 3)

    Args:
        space: of one simulator. Choices are described as counted from 0, wherever they start.
        batch_size: of the environment.
        one_hot: write choices as one-hot vectors: ``Discrete`` becomes ``OneHot``, ``[*B, n]``, ``MultiDiscrete``
            becomes ``MultiOneHot``, ``[*B, sum(nvec)]``.

    Raises:
        SpecError: a space of another kind, named, or a dtype without counterpart.
    """
    return _spec_from_space(space, tuple(batch_size), one_hot, ())


def _spec_from_space(
    space: spaces.Space, batch_size: tuple[int, ...], one_hot: bool, path: tuple[str, ...]
) -> TensorSpec:
    if isinstance(space, (spaces.Dict, spaces.Tuple, spaces.OneOf)):
        parts = parts_of(space).items()
        return Composite(
            {key: _spec_from_space(part, batch_size, one_hot, (*path, key)) for key, part in parts}, batch_size
        )
    if isinstance(space, spaces.Box):
        return _spec_from_box(space, batch_size)
    if isinstance(space, spaces.Discrete):
        n = int(space.n)
        return OneHot(n, (*batch_size, n)) if one_hot else Categorical(n, batch_size)
    if isinstance(space, spaces.MultiDiscrete):
        nvec = space.nvec.astype(np.int64)
        if one_hot:
            return MultiOneHot(nvec.ravel().tolist(), (*batch_size, int(nvec.sum())))
        return MultiCategorical(nvec, (*batch_size, *space.shape))
    if isinstance(space, spaces.MultiBinary):
        return Binary((*batch_size, *space.shape))
    hints = [hint for kind, hint in _REFUSED.items() if isinstance(space, kind)]
    hint = hints[0] if hints else "Wrap the simulator so that it presents one of these."
    who = "spec_from_space"
    if path:
        name = "/".join(path)
        who = f"{who}, {name!r}"
        hint = f"{hint} Or leave it out: GymEnv(..., leave_out=[{name!r}]), or --leave_out {name}."
    expected = "a Box, Discrete, MultiDiscrete, MultiBinary, or a Dict, Tuple or OneOf of such"
    raise SpecError(explain(who, expected=expected, got=space, hint=hint))


def space_from_spec(spec: TensorSpec) -> spaces.Space:
    """Convert the spec of one row to a gymnasium space: the inverse of :func:`spec_from_space`.

    Every choice starts at 0. Where gymnasium has no exact match the space is wider: ``Binary`` of any dtype becomes
    ``MultiBinary``, an integer spec without bounds gets the bounds of its dtype.

    >>> space_from_spec(Categorical(3)), space_from_spec(MultiOneHot([2, 3]))
    (Discrete(3), MultiDiscrete([2 3]))

    Args:
        spec: of one row; take one of a batch first: ``spec[0]``.

    Raises:
        SpecError: one-hot vectors with further dimensions, or a dtype that numpy does not have.
    """
    if isinstance(spec, Composite):
        return _space_from_composite(spec)
    if isinstance(spec, MultiOneHot):
        if spec.ndim > 1:
            expected = f"one-hot vectors of one row, [{spec.shape[-1]}]"
            hint = "Take one of a batch: spec[0]."
            raise SpecError(explain("space_from_spec", expected=expected, got=list(spec.shape), hint=hint))
        return spaces.Discrete(spec.n) if isinstance(spec, OneHot) else spaces.MultiDiscrete(spec.nvec)
    if isinstance(spec, Binary):
        return spaces.MultiBinary(spec.shape[0] if spec.ndim == 1 else tuple(spec.shape))
    if isinstance(spec, Categorical) and spec.dtype == torch.bool:
        return spaces.Box(0, 1, tuple(spec.shape), np.bool_)
    if isinstance(spec, (Categorical, MultiCategorical)):
        nvec = np.full(spec.shape, spec.n) if isinstance(spec, Categorical) else spec.nvec.cpu().numpy()
        return spaces.MultiDiscrete(nvec) if nvec.ndim else spaces.Discrete(int(nvec))
    if isinstance(spec, Bounded):
        dtype = numpy_dtype(spec.dtype)
        return spaces.Box(spec.low.cpu().numpy(), spec.high.cpu().numpy(), tuple(spec.shape), dtype)
    if isinstance(spec, Unbounded):
        dtype = numpy_dtype(spec.dtype)
        return spaces.Box(*_range(dtype), tuple(spec.shape), dtype)
    raise SpecError(explain("space_from_spec", expected="a spec", got=type(spec).__name__))


def spec_from_dm_env(source: Any, batch_size: Shape = (), *, one_hot: bool = False) -> TensorSpec:
    """Convert dm_env specs of one simulator to the spec of the tensors of a batch of such simulators.

    ``DiscreteArray`` is converted as ``Discrete`` in :func:`spec_from_space`, ``BoundedArray`` and ``Array`` as
    ``Box``; a dict becomes a ``Composite``, a list or tuple one with the keys ``"0"``, ``"1"``, ….

    >>> from dm_env import specs  # doctest: +SKIP
    >>> spec_from_dm_env(specs.DiscreteArray(3)).n  # doctest: +SKIP
    3

    Args:
        source: a spec of ``dm_env.specs``, or a nest of such.
        batch_size: of the environment.
        one_hot: write choices as one-hot vectors instead of indices.

    Raises:
        SpecError: a spec of another kind, or a dtype without counterpart.
        MissingExtraError: dm_env is not installed.
    """
    return spec_from_space(_space_from_dm_env("spec_from_dm_env", source), batch_size, one_hot=one_hot)


def dm_env_from_spec(spec: TensorSpec) -> Any:
    """Convert the spec of one row to dm_env specs: the inverse of :func:`spec_from_dm_env`.

    dm_env has no match for several choices at once, which become a ``BoundedArray`` of integers, nor for a ``OneOf``,
    which becomes a dict.

    >>> dm_env_from_spec(Categorical(3)).num_values  # doctest: +SKIP
    3

    Args:
        spec: of one row; take one of a batch first: ``spec[0]``.

    Raises:
        SpecError: as :func:`space_from_spec`.
        MissingExtraError: dm_env is not installed.
    """
    return _dm_env_from_space(space_from_spec(spec), _dm_env_specs("dm_env_from_spec"))


def parts_of(space: spaces.Dict | spaces.Tuple | spaces.OneOf) -> dict[str, spaces.Space]:
    """Return the sub-spaces of a space by name: of a tuple ``"0"``, ``"1"``, …; of a ``OneOf`` also ``"index"``."""
    if isinstance(space, spaces.Dict):
        return dict(space.items())
    parts = {str(at): part for at, part in enumerate(space.spaces)}
    return {"index": spaces.Discrete(len(parts)), **parts} if isinstance(space, spaces.OneOf) else parts


def _space_from_composite(spec: Composite) -> spaces.Space:
    parts = {key: space_from_spec(part) for key, part in spec.items()}
    index = parts.get("index")
    numbered = [parts.get(str(at)) for at in range(len(parts) - (index is not None))]
    if parts and None not in numbered:
        if index is None:
            return spaces.Tuple(numbered)
        if numbered and index == spaces.Discrete(len(numbered)):
            return spaces.OneOf(numbered)
    return spaces.Dict(list(parts.items()))  # pairs keep their order, a dict would be sorted


def _spec_from_box(space: spaces.Box, batch_size: tuple[int, ...]) -> TensorSpec:
    shape = (*batch_size, *space.shape)
    dtype = _DTYPES.get(space.dtype.name)
    if dtype is None:
        raise SpecError(explain("spec_from_space", expected=f"a dtype of {', '.join(_DTYPES)}", got=space))
    if dtype == torch.bool:
        return Categorical(2, shape, torch.bool)
    with np.errstate(over="ignore"):  # double precision bounds may be infinite in single precision
        low, high = (bound.astype(numpy_dtype(dtype)) for bound in (space.low, space.high))
    if dtype.is_floating_point and np.isneginf(low).all() and np.isposinf(high).all():
        return Unbounded(shape, dtype)
    return Bounded(low, high, shape, dtype)


def numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """Return the numpy dtype that corresponds to a torch dtype.

    Raises:
        SpecError: numpy has no such dtype.
    """
    try:
        return torch.empty(0, dtype=dtype).numpy().dtype
    except TypeError as error:
        raise SpecError(explain("space_from_spec", expected="a dtype that numpy has", got=dtype)) from error


def _range(dtype: np.dtype) -> tuple[Any, Any]:
    """Return the smallest and largest value of a dtype."""
    if dtype.kind == "f":
        return -np.inf, np.inf
    return (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def _dm_env_specs(who: str) -> Any:
    return require("dm_env.specs", extra="dm_control", purpose=who)


def as_space(who: str, source: Any) -> spaces.Space:
    """Return the given gymnasium space, or a space made from the given dm_env specs.

    Raises:
        SpecError: ``source`` is a spec of this library, which does not tell where choices start, or something else.
        MissingExtraError: it is no gymnasium space, and dm_env is not installed.
    """
    if isinstance(source, spaces.Space):
        return source
    if isinstance(source, TensorSpec):
        hint = "Where choices start, and what is a tuple, the spec does not know. space_from_spec() makes a space."
        expected = "the space of the simulator"
        raise SpecError(explain(who, expected=expected, got=f"a {type(source).__name__}", hint=hint))
    return _space_from_dm_env(who, source)


def _space_from_dm_env(who: str, source: Any) -> spaces.Space:
    if isinstance(source, Mapping):
        return spaces.Dict([(key, _space_from_dm_env(who, part)) for key, part in source.items()])
    if isinstance(source, (list, tuple)):
        return spaces.Tuple([_space_from_dm_env(who, part) for part in source])
    specs = _dm_env_specs(who)
    if isinstance(source, specs.DiscreteArray):
        fits = source.num_values <= np.iinfo(source.dtype).max  # gymnasium writes the number itself in this dtype
        return spaces.Discrete(source.num_values, dtype=source.dtype if fits else np.int64)
    if not isinstance(source, specs.Array) or source.dtype.name not in _DTYPES:
        expected = "an Array, BoundedArray or DiscreteArray of numbers, or a dict or list of such"
        raise SpecError(explain(who, expected=expected, got=source))
    bounds = _range(source.dtype)
    if isinstance(source, specs.BoundedArray) and source.dtype.kind != "b":
        bounds = source.minimum, source.maximum
    low, high = (np.broadcast_to(bound, source.shape).astype(source.dtype) for bound in bounds)
    return spaces.Box(low, high, source.shape, source.dtype)


def _dm_env_from_space(space: spaces.Space, specs: Any) -> Any:
    if isinstance(space, spaces.Tuple):
        return [_dm_env_from_space(part, specs) for part in space.spaces]
    if isinstance(space, (spaces.Dict, spaces.OneOf)):
        return {key: _dm_env_from_space(part, specs) for key, part in parts_of(space).items()}
    if isinstance(space, spaces.Discrete):
        return specs.DiscreteArray(int(space.n), space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return specs.BoundedArray(space.shape, space.dtype, 0, space.nvec - 1)
    if isinstance(space, spaces.MultiBinary):
        return specs.BoundedArray(space.shape, space.dtype, 0, 1)
    low, high = _range(space.dtype)
    if (space.low == low).all() and (space.high == high).all():
        return specs.Array(space.shape, space.dtype)
    return specs.BoundedArray(space.shape, space.dtype, space.low, space.high)
