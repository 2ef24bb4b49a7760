"""A TensorDict-centric, modular reinforcement-learning library. Other public names live in the subpackages."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchrl.deploy import load_policy as load_policy

__version__ = "0.1.0"

_HOMES = {"load_policy": "deploy"}  # loaded on first use: torchrl.envs.simulators is imported without torch
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
