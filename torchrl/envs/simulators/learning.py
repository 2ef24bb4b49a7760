"""Whether worlds learn from what they show, as in gymnasium's normalising wrappers: an evaluation cannot share that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gymnasium.wrappers import NormalizeObservation, NormalizeReward


def learning_wrapper(simulators: Iterable[Any]) -> str:
    """Name the wrapper by which one of some worlds learns; empty where none does, as far as one can see."""
    for simulator in simulators:
        layer = simulator
        while layer is not None:
            if isinstance(layer, (NormalizeObservation, NormalizeReward)) and layer.update_running_mean:
                return type(layer).__name__
            held = getattr(layer, "__dict__", {})
            layer = held.get("simulator") or held.get("env")
    return ""
