"""Recognise environments of other libraries that are no simulators, for advice in errors. Imports no such library."""

from __future__ import annotations

from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv


def is_pool(given: object) -> bool:
    """Answer whether an object is a batch made by EnvPool, which derives from ``gymnasium.Env`` all the same."""
    return "envpool" in _libraries(given)


def foreign_hint(given: object) -> str:
    """Return advice, for an error message, on an object that is no simulator; empty for unknown kinds."""
    if isinstance(given, VectorEnv):
        return "A vector environment is a batch already: GymVectorEnv(vector_env)."
    if isinstance(given, EnvSpec):
        return f'Write its id: GymEnv("{given.id}").'
    if hasattr(given, "as_simulator"):
        return "It is an environment of this library already, and can be used as it is."
    if is_pool(given):
        return "An EnvPool is a batch already: EnvPoolEnv(name, num_envs) builds it."
    if hasattr(given, "possible_agents") or hasattr(given, "agent_selection") or "pettingzoo" in _libraries(given):
        return "It has several agents: present it to one of them as a gymnasium.Env, in which the others act."
    if "gym" in _libraries(given) or "gym" in _libraries(getattr(given, "action_space", None)):
        return (
            "It is of the old gym: pip install shimmy[gym-v26] (or gym-v21), and write "
            'gymnasium.make("GymV26Environment-v0", env=env), or GymV21Environment-v0.'
        )
    if hasattr(given, "action_spec") and hasattr(given, "observation_spec"):
        return "A dm_env goes into DMControlEnv(env), or DMControlSimulator(env)."
    return ""


def _libraries(given: object) -> set[str]:
    return {kind.__module__.split(".")[0] for kind in type(given).__mro__}
