"""Gymnasium spaces as specs. Simulators speak of spaces, environments of specs; this is the border."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from torchrl.data.specs import Bounded, Categorical, Composite, TensorSpec, Unbounded
from torchrl.data.specs.base import Shape
from torchrl.errors import SpecError, explain

# Double precision becomes single here, once; unsigned integers that torch hardly supports become wider ones.
_DTYPES = {
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


def spec_from_space(space: spaces.Space, batch_size: Shape = ()) -> TensorSpec:
    """Describe the tensors that a batch of worlds with this space gives or takes.

    A ``Box`` becomes ``Bounded`` or, without finite bounds, ``Unbounded``, ``[*batch_size, *space.shape]``; float64
    becomes float32. A ``Discrete`` becomes ``Categorical``, ``[*batch_size]``. A ``Dict`` becomes a ``Composite``.

    Args:
        space: of one world.
        batch_size: of the environment.

    Raises:
        SpecError: another kind of space, a ``Discrete`` that does not start at 0, or a dtype without counterpart.
    """
    if isinstance(space, spaces.Box):
        return _spec_from_box(space, batch_size)
    if isinstance(space, spaces.Discrete):
        if space.start != 0:
            hint = "GymSimulator presents such a space as one that does."
            raise SpecError(explain("spec_from_space", expected="a Discrete that starts at 0", got=space, hint=hint))
        return Categorical(int(space.n), batch_size)
    if isinstance(space, spaces.Dict):
        return Composite({key: spec_from_space(part, batch_size) for key, part in space.items()}, batch_size)
    hint = "Wrap the simulator so that it presents one of these."
    raise SpecError(explain("spec_from_space", expected="a Box, a Discrete or a Dict of such", got=space, hint=hint))


def _spec_from_box(space: spaces.Box, batch_size: Shape) -> TensorSpec:
    shape = (*batch_size, *space.shape)
    if space.dtype == np.bool_:
        return Categorical(2, shape, torch.bool)
    dtype = _DTYPES.get(space.dtype.name)
    if dtype is None:
        raise SpecError(explain("spec_from_space", expected=f"a dtype of {', '.join(_DTYPES)}", got=space))
    with np.errstate(over="ignore"):  # double precision bounds may be infinite in single precision
        low, high = (bound.astype(_numpy_dtype(dtype)) for bound in (space.low, space.high))
    if dtype.is_floating_point and np.isneginf(low).all() and np.isposinf(high).all():
        return Unbounded(shape, dtype)
    return Bounded(low, high, shape, dtype)


def _numpy_dtype(dtype: torch.dtype) -> np.dtype:
    return torch.empty(0, dtype=dtype).numpy().dtype
