"""Worlds of jax libraries: each against the bare library, step by step; what a name, an option and a limit do."""

import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from torchrl.envs import JaxEnv, check_env, jax_world
from torchrl.errors import ConfigError, EnvError, MissingExtraError

jax = pytest.importorskip("jax")
jnp = jax.numpy


# ---- the form of gymnax, without gymnax ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    max_steps_in_episode: int = 3
    goal: int = 5

    replace = replace


class Walk:
    """Walks along a line, and calls the limit an ending like the goal, as gymnax 0.0.9 does."""

    def __init__(self, start=0):
        self.start = start

    def reset_env(self, key, params):
        return jnp.full(1, self.start, float), (jnp.asarray(self.start), jnp.asarray(0))

    def step_env(self, key, state, action, params):
        place, time = state[0] + action, state[1] + 1
        done = (place >= params.goal) | (time >= params.max_steps_in_episode)
        return jnp.full(1, place, float), (place, time), jnp.asarray(1.0), done, {}

    def action_space(self, params):
        return SimpleNamespace(n=3)


@pytest.fixture
def gymnax(monkeypatch):
    fake = SimpleNamespace(registered_envs=["Walk-v0"], make=lambda name, **options: (Walk(**options), Params()))
    monkeypatch.setitem(sys.modules, "gymnax", fake)


def test_a_limit_inside_done_truncates(gymnax):
    world = jax_world("gymnax", "Walk-v0")
    assert world.max_episode_steps == 3 and world.task == "Walk-v0"
    env = JaxEnv(world, 2)
    root = env.reset()
    for _ in range(3):
        transition, root = env.step_and_reset(root.set("action", torch.tensor([0, 2])))
    last = transition["next"]
    assert last["observation"].flatten().tolist() == [0, 6] and root["observation"].flatten().tolist() == [0, 0]
    assert last["terminated"].flatten().tolist() == [False, True]
    assert last["truncated"].flatten().tolist() == [True, True]


def test_options_are_those_of_the_world_or_of_its_parameters(gymnax):
    env = JaxEnv(jax_world("gymnax", "Walk-v0", max_episode_steps=8, goal=4, start=1), 1)
    assert env.step_limit == 8
    batch = env.rollout(3, lambda root: root.set("action", torch.ones(1, dtype=torch.int64)))["next"]
    assert batch["observation"].flatten().tolist() == [2, 3, 4] and batch["done"].flatten().tolist() == [0, 0, 1]
    with pytest.raises(TypeError, match="sstart"):
        jax_world("gymnax", "Walk-v0", sstart=1)


def test_a_name_that_does_not_exist(gymnax):
    with pytest.raises(EnvError, match='gymnax: expected one of Walk-v0, got .Walk-v1.. Did you mean "Walk-v0"'):
        jax_world("gymnax", "Walk-v1")
    with pytest.raises(
        EnvError, match="jax_world: expected one of gymnax, brax, playground, jumanji, craftax, pgx, got"
    ):
        jax_world("gimnax", "Walk-v0")


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pgx", None)
    with pytest.raises(MissingExtraError, match='jax_world needs the module "pgx"'):
        jax_world("pgx", "2048")


# ---- the libraries themselves ----------------------------------------------------------------------------------------

# From a library and a name to reset(key) -> (state, observation) and step(key, state, action) -> (state, observation,
# reward, ended) of its own, jitted, and never reset inside.


def bare_gymnax(name):
    env, params = sys.modules["gymnax"].make(name)

    def step(key, state, action):
        observation, state, reward, done, _ = env.step_env(key, state, action, params)
        return state, observation, reward, done | (state.time >= params.max_steps_in_episode)

    return lambda key: env.reset_env(key, params)[::-1], step


def bare_brax(name):
    env = sys.modules["brax.envs"].create(name, episode_length=12, auto_reset=False)

    def reset(key):
        state = env.reset(key)
        return state, state.obs

    def step(key, state, action):
        state = env.step(state, action)
        return state, state.obs, state.reward, state.done > 0

    return reset, step


def bare_jumanji(name):
    env = sys.modules["jumanji"].make(name, **OPTIONS["jumanji"])

    def reset(key):
        state, timestep = env.reset(key)
        return state, timestep.observation

    def step(key, state, action):
        state, timestep = env.step(state, action)
        return state, timestep.observation, timestep.reward, timestep.last()

    return reset, step


def bare_pgx(name):
    env = sys.modules["pgx"].make(name)

    def reset(key):
        state = env.init(jax.random.split(key)[0])
        return state, state.observation

    def step(key, state, action):
        state = env.step(state, action, jax.random.split(key)[0])
        return state, state.observation, state.rewards[0], state.terminated

    return reset, step


OPTIONS = {"brax": {"max_episode_steps": 12}, "jumanji": {"time_limit": 20}}
BARE = {
    "gymnax CartPole-v1": bare_gymnax,
    "gymnax Breakout-MinAtar": bare_gymnax,
    "brax inverted_pendulum": bare_brax,
    "jumanji Snake-v1": bare_jumanji,
    "pgx 2048": bare_pgx,
}


@pytest.mark.parametrize("case", BARE)
def test_each_row_is_the_bare_world_step_by_step(case, monkeypatch):
    library, name = case.split()
    pytest.importorskip("brax.envs" if library == "brax" else library)
    env = JaxEnv(jax_world(library, name, **OPTIONS.get(library, {})), 3)
    reset, step = (jax.jit(function) for function in BARE[case](name))
    env.set_seed([3, 4, 5])
    root, steps, roots = env.reset(), [], []
    roots.append(root.clone())
    for _ in range(250 if library == "pgx" else 60):
        transition, root = env.step_and_reset(env.act_at_random(root))
        steps.append(transition.clone())
        roots.append(root.clone())
    num_endings = 0
    for row, seed in enumerate((3, 4, 5)):
        key, used = jax.random.split(jax.random.PRNGKey(seed))
        state, observation = reset(used)
        for time, transition in enumerate(steps):
            assert_same(roots[time][row], observation)
            key, used = jax.random.split(key)
            state, observation, reward, ended = step(used, state, transition["action"][row].numpy())
            outcome = transition["next"][row]
            assert_same(outcome, observation)
            assert outcome["reward"].item() == pytest.approx(float(reward), abs=1e-6)
            assert outcome["done"].item() == bool(ended)
            if ended:
                num_endings += 1
                key, used = jax.random.split(key)
                state, observation = reset(used)
    assert num_endings
    check_env(env, num_steps=30)


def assert_same(row, observation):
    parts = observation._asdict() if hasattr(observation, "_asdict") else {"observation": observation}
    for key, part in parts.items():
        # Rounding differs between a compiled batch and a compiled row.
        np.testing.assert_allclose(row[key].numpy(), np.asarray(part), rtol=1e-3, atol=1e-4)


def test_options_of_the_other_libraries():
    pytest.importorskip("craftax")
    with pytest.raises(ConfigError, match="craftax: expected fields of"):
        jax_world("craftax", "Craftax-Classic-Symbolic-v1", max_steps=3)
