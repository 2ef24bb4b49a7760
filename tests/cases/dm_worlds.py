"""Worlds of dm_env held against the library that they come from, step by step, over endings."""

import numpy as np
import torch
from tensordict import TensorDictBase

from torchrl.envs import DMControlEnv
from torchrl.envs.simulators import DMControlSimulator

SEED, EPISODE = 7, 300  # steps of an episode, so that a thousand steps see endings


def load_task(domain, task, num_steps=EPISODE):
    """Build a task of the suite by the suite itself, with a time limit of so many steps; it is seeded."""
    from dm_control import suite

    env = suite.load(domain, task, task_kwargs={"random": np.random.RandomState(0)})
    limit = {"time_limit": num_steps * env.control_timestep()}
    env = suite.load(domain, task, task_kwargs={"random": np.random.RandomState(0), **limit})
    env.task.random.seed(SEED)
    return env, limit


def compare_with_the_suite(domain, task, num_steps, num_steps_of_episode=EPISODE):
    """Step a task through `DMControlEnv` and by the suite; return how many endings there were."""
    theirs, limit = load_task(domain, task, num_steps_of_episode)
    env = DMControlEnv(domain, task, task_kwargs=limit)
    return compare(env, env.reset(seed=[SEED]), theirs, num_steps)


def compare(env, root, theirs, num_steps):
    """Step an env of one row and a dm_env that stand alike; each observation, reward and flag must be the same.

    Returns:
        How many endings there were: terminated, truncated.
    """
    generator = torch.Generator().manual_seed(0)
    endings = [0, 0]
    timestep = theirs.reset()
    assert timestep.reward is None and timestep.discount is None
    for _ in range(num_steps):
        assert_same(root, timestep.observation, env.observation_spec)
        action = env.action_spec.rand(generator=generator)
        transition, root = env.step_and_reset(root.set("action", action))
        timestep = theirs.step(as_theirs(theirs.action_spec(), action))
        outcome = transition["next"]
        assert_same(outcome, timestep.observation, env.observation_spec)  # the true last one also where it ends
        assert outcome["reward"].item() == np.float32(timestep.reward)
        flags = outcome["terminated"].item(), outcome["truncated"].item()
        assert flags == (timestep.last() and timestep.discount == 0, timestep.last() and timestep.discount != 0)
        if timestep.last():
            endings = [count + flag for count, flag in zip(endings, flags, strict=True)]
            timestep = theirs.reset()
    return tuple(endings)


def as_theirs(spec, action):
    """Return an action in the form that the world's own spec has."""
    return int(action) if hasattr(spec, "num_values") else action.numpy().reshape(spec.shape)


def assert_same(tensordict: TensorDictBase, observation, spec):
    """Hold the tensors of one row against an observation of dm_env, in single precision, bit for bit."""
    for key, leaf in spec.leaves():
        value = observation
        for name in key if isinstance(key, tuple) else (key,):
            if hasattr(value, "_asdict"):
                value = value._asdict()
            value = value[int(name)] if isinstance(value, (list, tuple)) else value[name] if named(value) else value
        value = np.asarray(value)
        numpy_dtype = torch.empty(0, dtype=leaf.dtype).numpy().dtype
        assert np.array_equal(tensordict[key].numpy(), value.astype(numpy_dtype).reshape(leaf.shape)), key


def named(value):
    """Answer whether an observation is a dict of parts, and not one array."""
    return hasattr(value, "keys")


def bsuite_world(name):
    """Load a configuration of bsuite, and give it a generator where it draws nothing, since seeds are refused then."""
    import bsuite

    world = bsuite.load_from_id(name)
    try:
        DMControlSimulator(world).require_ability("seeds")
    except Exception:
        world.random_state = np.random.RandomState(0)
    return world


def jumanji_world(name):
    """Build an environment of jumanji in its own adapter, which takes a key in the place of a seed."""
    import jax
    import jumanji
    from jumanji.wrappers import JumanjiToDMEnvWrapper

    class Seeded(JumanjiToDMEnvWrapper):
        def seed(self, seed):
            self._key = jax.random.PRNGKey(seed)

    return Seeded(jumanji.make(name))
