"""Find gymnasium wrappers that normalise by running statistics, which an evaluation cannot share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gymnasium.wrappers import NormalizeObservation, NormalizeReward


def learning_wrapper(simulators: Iterable[Any]) -> str:
    """Return the class name of the first normalising gymnasium wrapper around some simulators that still updates.

    Return an empty text if there is none: a wrapper whose ``update_running_mean`` is false does not count.
    """
    for simulator in simulators:
        layer = simulator
        while layer is not None:
            if isinstance(layer, (NormalizeObservation, NormalizeReward)) and layer.update_running_mean:
                return type(layer).__name__
            held = getattr(layer, "__dict__", {})
            layer = held.get("simulator") or held.get("env")
    return ""
