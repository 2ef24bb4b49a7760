"""Worlds of jax libraries: each against the bare library, step by step; what a name, an option and a limit do."""

import sys

import pytest
import torch

from cases.bare_jax import LIBRARIES, compare, limit_option
from cases.jax_worlds import like_gymnax
from torchrl.envs import JaxEnv, check_env, jax_world
from torchrl.errors import ConfigError, EnvError, MissingExtraError

pytest.importorskip("jax")


# ---- the form of gymnax, without gymnax ------------------------------------------------------------------------------


@pytest.fixture
def gymnax(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", like_gymnax())


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


# ---- the libraries themselves, where they are installed --------------------------------------------------------------

LIMITS = {"brax inverted_pendulum": 12, "jumanji Snake-v1": 20}
WORLDS = ("gymnax CartPole-v1", "gymnax Breakout-MinAtar", *LIMITS, "pgx 2048")


@pytest.mark.parametrize("case", WORLDS)
def test_each_row_is_the_bare_world_step_by_step(case):
    library, name = case.split()
    pytest.importorskip("brax.envs" if library == "brax" else library)
    limit = LIMITS.get(case)
    env = JaxEnv(jax_world(library, name, **limit_option(library, limit)), 3)
    assert compare(env, LIBRARIES[library](name, limit), 250 if library == "pgx" else 60, [3, 4, 5])
    check_env(env, num_steps=30)


def test_options_of_the_other_libraries():
    pytest.importorskip("craftax")
    with pytest.raises(ConfigError, match="craftax: expected fields of"):
        jax_world("craftax", "Craftax-Classic-Symbolic-v1", max_steps=3)
