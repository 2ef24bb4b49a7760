"""Find the gymnasium id of simulators' task, by which facts about known tasks are looked up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gymnasium.envs.registration import EnvSpec


def task_of(simulators: Iterable[Any]) -> str:
    """Return the gymnasium id that all ``simulators`` were made from; empty if they have none or different ones.

    >>> import gymnasium
    >>> task_of([gymnasium.make("CartPole-v1"), gymnasium.make("CartPole-v1")])
    'CartPole-v1'
    """
    specs = [getattr(simulator, "spec", None) for simulator in simulators]
    ids = {spec.id if isinstance(spec, EnvSpec) else "" for spec in specs}
    return ids.pop() if len(ids) == 1 else ""
