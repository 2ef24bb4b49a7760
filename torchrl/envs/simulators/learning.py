"""Finds gymnasium's wrappers that normalise what a simulator shows: an evaluation cannot share their statistics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gymnasium.wrappers import NormalizeObservation, NormalizeReward


def learning_wrapper(simulators: Iterable[Any]) -> str:
    """Name the first gymnasium wrapper around some simulators that normalises and still learns; empty without one."""
    for simulator in simulators:
        layer = simulator
        while layer is not None:
            if isinstance(layer, (NormalizeObservation, NormalizeReward)) and layer.update_running_mean:
                return type(layer).__name__
            held = getattr(layer, "__dict__", {})
            layer = held.get("simulator") or held.get("env")
    return ""
