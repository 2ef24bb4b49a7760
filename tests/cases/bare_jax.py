"""Worlds of jax libraries without this package: reset and step by their own calls, and a comparison with them."""

import importlib

import numpy as np


def gymnax_like(env, params, limit_name, limit):
    if limit is not None:
        params = params.replace(**{limit_name: limit})

    def step(key, state, action):
        observation, state, reward, done, _ = env.step_env(key, state, action, params)
        time = getattr(state, "time", None)
        time = state.timestep if time is None else time
        return state, observation, reward, done | (time >= getattr(params, limit_name))

    return lambda key: env.reset_env(key, params)[::-1], step


def gymnax(name, limit):
    env, params = importlib.import_module("gymnax").make(name)
    return gymnax_like(env, params, "max_steps_in_episode", limit)


def craftax(name, limit):
    env = importlib.import_module("craftax.craftax_env").make_craftax_env_from_name(name, auto_reset=False)
    return gymnax_like(env, env.default_params, "max_timesteps", limit)


def one_state(env):
    def reset(key):
        state = env.reset(key)
        return state, state.obs

    def step(key, state, action):
        state = env.step(state, action)
        return state, state.obs, state.reward, state.done > 0

    return reset, step


def brax(name, limit):
    return one_state(importlib.import_module("brax.envs").create(name, episode_length=limit, auto_reset=False))


def playground(name, limit):
    registry = importlib.import_module("mujoco_playground").registry
    wrapper = importlib.import_module("mujoco_playground._src.wrapper").brax_training
    return one_state(wrapper.EpisodeWrapper(registry.load(name, config_overrides={"impl": "jax"}), limit, 1))


def jumanji(name, limit):
    env = importlib.import_module("jumanji").make(name, **({} if limit is None else {"time_limit": limit}))

    def reset(key):
        state, timestep = env.reset(key)
        return state, timestep.observation

    def step(key, state, action):
        state, timestep = env.step(state, action)
        return state, timestep.observation, timestep.reward.sum(), timestep.last()

    return reset, step


def pgx(name, limit):
    """Return games for one player: the others would draw from keys."""
    random = importlib.import_module("jax").random
    env = importlib.import_module("pgx").make(name)

    def reset(key):
        state = env.init(random.split(key)[0])
        return state, state.observation

    def step(key, state, action):
        state = env.step(state, action, random.split(key)[0])
        return state, state.observation, state.rewards[0], state.terminated

    return reset, step


LIBRARIES = {each.__name__: each for each in (gymnax, craftax, brax, playground, jumanji, pgx)}


def limit_option(library, limit):
    """Return the option of jax_world that limits episodes as the bare world is limited."""
    return {} if limit is None else {"time_limit" if library == "jumanji" else "max_episode_steps": limit}


def compare(env, bare, num_steps, seeds, rtol=1e-3, atol=1e-4):
    """Step an env at random and each of its rows alone in the bare world; return how many episodes ended.

    Rounding differs between a compiled batch and a compiled row, so numbers are close and not equal.
    """
    jax = importlib.import_module("jax")
    reset, step = (jax.jit(function) for function in bare)
    env.set_seed(seeds)
    root = env.reset()
    steps, roots = [], [root.clone()]
    for _ in range(num_steps):
        transition, root = env.step_and_reset(env.act_at_random(root))
        steps.append(transition.clone())
        roots.append(root.clone())
    num_endings = 0
    for row, seed in enumerate(seeds):
        key, used = jax.random.split(jax.random.PRNGKey(seed))
        state, observation = reset(used)
        for time, transition in enumerate(steps):
            assert_close(roots[time][row], observation, rtol, atol)
            key, used = jax.random.split(key)
            state, observation, reward, ended = step(used, state, transition["action"][row].numpy())
            outcome = transition["next"][row]
            assert_close(outcome, observation, rtol, atol)
            np.testing.assert_allclose(outcome["reward"].item(), float(reward), rtol, atol)
            assert outcome["done"].item() == bool(ended), (row, time)
            if ended:
                num_endings += 1
                key, used = jax.random.split(key)
                state, observation = reset(used)
    return num_endings


def assert_close(row, observation, rtol, atol):
    if hasattr(observation, "_asdict"):
        observation = observation._asdict()
    elif hasattr(observation, "__dataclass_fields__"):
        observation = {name: getattr(observation, name) for name in observation.__dataclass_fields__}
    parts = observation if isinstance(observation, dict) else {"observation": observation}
    for key, part in parts.items():
        if isinstance(part, dict) or hasattr(part, "_asdict") or hasattr(part, "__dataclass_fields__"):
            assert_close(row[key], part, rtol, atol)
        else:
            np.testing.assert_allclose(row[key].numpy(), np.asarray(part), rtol=rtol, atol=atol)
