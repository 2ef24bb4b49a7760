"""Find the id of the task that some simulators are of, so that what is known of a task can be looked up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gymnasium.envs.registration import EnvSpec


def task_of(simulators: Iterable[Any]) -> str:
    """Return the id under which gymnasium registered the task of all ``simulators``; empty where there is no such id.

    >>> import gymnasium
    >>> task_of([gymnasium.make("CartPole-v1"), gymnasium.make("CartPole-v1")])
    'CartPole-v1'
    """
    specs = [getattr(simulator, "spec", None) for simulator in simulators]
    ids = {spec.id if isinstance(spec, EnvSpec) else "" for spec in specs}
    return ids.pop() if len(ids) == 1 else ""
