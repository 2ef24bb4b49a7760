"""Save and restore the whole state of a MuJoCo simulation as plain arrays, for the gymnasium and dm_control adapters.

``mj_getState`` alone does not continue bit for bit: derived quantities lag one step behind the positions after
``mj_step`` and tasks read them before the next one, and tasks move targets by editing the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from torchrl.envs.simulators.base import State
from torchrl.errors import EnvError, explain
from torchrl.extras import require

# Geometry and pictures: many megabytes that no task edits.
BULK = ("bvh_", "flex", "mesh_", "names", "oct_", "paths", "skin_", "tex_", "text_", "tuple_")


def get_physics(model: Any, data: Any) -> State:
    """Return the whole state of a MuJoCo simulation as plain arrays, enough to continue bit for bit.

    Args:
        model: ``mujoco.MjModel``.
        data: ``mujoco.MjData`` of that model.
    """
    mujoco = _mujoco()
    signature = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(model, signature))
    mujoco.mj_getState(model, data, integration, signature)
    model_fields, data_fields = _fields(model), _fields(data, _buffer(data))
    return {
        "layout": _layout(model_fields, data_fields),
        "integration": integration,
        "options": {name: np.array(value) for name, value in _options(model)},
        "model": _pack(model_fields),
        "data": _pack(data_fields),
    }


def set_physics(model: Any, data: Any, state: State) -> None:
    """Restore a MuJoCo simulation to what :func:`get_physics` of an equal model returned.

    Raises:
        EnvError: the state is of another model or another version of MuJoCo.
    """
    mujoco = _mujoco()
    model_fields, data_fields = _fields(model), _fields(data, _buffer(data))
    if state["layout"] != _layout(model_fields, data_fields):
        raise EnvError(explain("set_state", expected="a state of this MuJoCo model and version", got="another's"))
    _unpack(model_fields, state["model"])
    for name, value in _options(model):
        setattr(model.opt, name, state["options"][name] if np.ndim(value) else state["options"][name].item())
    mujoco.mj_setState(model, data, state["integration"], mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(model, data)  # fills what has no fixed size, contacts and constraints, and moves the rest on
    _unpack(data_fields, state["data"])


def _mujoco() -> Any:
    return require("mujoco", extra="mujoco", purpose="the state of a MuJoCo simulation")


def _buffer(data: Any) -> range:
    """Return the range of memory addresses of MjData's fixed buffer, which begins with qpos."""
    start = data.qpos.ctypes.data
    return range(start, start + data.nbuffer)


def _fields(struct: Any, addresses: range | None = None) -> dict[str, np.ndarray]:
    return {
        name: field
        for name, field in _arrays(struct)
        if not name.startswith(BULK) and (addresses is None or field.ctypes.data in addresses)
    }


def _arrays(struct: Any) -> Iterator[tuple[str, np.ndarray]]:
    for name in dir(struct):
        if not name.startswith("_"):
            field = getattr(struct, name)
            if isinstance(field, np.ndarray) and field.dtype.kind in "biuf" and field.size and field.flags.writeable:
                yield name, field


def _options(model: Any) -> Iterator[tuple[str, Any]]:
    for name in dir(model.opt):
        value = getattr(model.opt, name)
        if not name.startswith("_") and isinstance(value, (bool, int, float, np.ndarray)):
            yield name, value


def _layout(*groups: dict[str, np.ndarray]) -> str:
    lines = [f"{name} {field.dtype.str} {field.shape}" for fields in groups for name, field in fields.items()]
    return hashlib.sha256("\n".join([_mujoco().__version__, *lines]).encode()).hexdigest()


def _pack(fields: dict[str, np.ndarray]) -> np.ndarray:
    pieces = [np.ascontiguousarray(field).reshape(-1).view(np.uint8) for field in fields.values()]
    return np.concatenate([np.empty(0, np.uint8), *pieces])


def _unpack(fields: dict[str, np.ndarray], packed: np.ndarray) -> None:
    start = 0
    for field in fields.values():
        piece = packed[start : start + field.nbytes]
        field[...] = np.frombuffer(piece.tobytes(), field.dtype).reshape(field.shape)
        start += field.nbytes
