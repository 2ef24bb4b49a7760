"""Worlds of other libraries that are no simulators: what to write in their place. Imports none of these libraries."""

from __future__ import annotations

from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv


def is_pool(world: object) -> bool:
    """Answer whether this is a pool that EnvPool made; it derives from ``gymnasium.Env``, though it is a batch."""
    return "envpool" in _libraries(world)


def foreign_hint(world: object) -> str:
    """Say what to do with a world of another library; empty where nothing is known of it."""
    if isinstance(world, VectorEnv):
        return "A vector environment is a batch already: GymVectorEnv(vector_env)."
    if isinstance(world, EnvSpec):
        return f'Write its id: GymEnv("{world.id}").'
    if hasattr(world, "as_simulator"):
        return "It is an environment of this library already, and can be used as it is."
    if is_pool(world):
        return "An EnvPool is a batch already: EnvPoolEnv(name, num_envs) builds it."
    if hasattr(world, "possible_agents") or hasattr(world, "agent_selection") or "pettingzoo" in _libraries(world):
        return "It has several agents: present it to one of them as a gymnasium.Env, in which the others act."
    if "gym" in _libraries(world) or "gym" in _libraries(getattr(world, "action_space", None)):
        return (
            "It is of the old gym: pip install shimmy[gym-v26] (or gym-v21), and write "
            'gymnasium.make("GymV26Environment-v0", env=env), or GymV21Environment-v0.'
        )
    if hasattr(world, "action_spec") and hasattr(world, "observation_spec"):
        return "A dm_env goes into DMControlEnv(env), or DMControlSimulator(env)."
    return ""


def _libraries(world: object) -> set[str]:
    return {kind.__module__.split(".")[0] for kind in type(world).__mro__}
