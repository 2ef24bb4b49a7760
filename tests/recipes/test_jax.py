"""Worlds in jax by flags: built as one batch, trained, and what is refused."""

import sys

import pytest

from cases.jax_worlds import by_turns, like_gymnax
from torchrl.envs import JaxEnv
from torchrl.errors import ConfigError
from torchrl.recipes import envs

pytest.importorskip("jax")

WALK = ["--env_library=gymnax", "--env_name=Walk-v0"]


@pytest.fixture(autouse=True)
def gymnax(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", like_gymnax())


def test_flags_build_it_as_one_batch(make_env):
    env = make_env(*WALK, "--env_kwargs", "goal=9", "start=1", "--max_episode_steps=30", num_envs=5)
    assert type(env) is JaxEnv and env.batch_size == (5,) and env.step_limit == 30
    assert env.reset()["observation"].tolist() == [[1.0]] * 5


def test_it_trains(make_agent):
    flags = ["--num_envs=2", "--frames_per_batch=16", "--total_frames=16", "--num_cells", "8"]
    agent = make_agent("ppo", *WALK, *flags, "--eval_episodes=1")
    agent.train()
    assert agent.frames == 16


def test_a_mask_of_legal_actions_is_no_number_of_the_networks(make_agent, monkeypatch):
    monkeypatch.setattr(envs, "jax_world", lambda *arguments, **options: by_turns())
    flags = ["--num_envs=2", "--frames_per_batch=16", "--total_frames=16", "--num_cells", "8", "--eval_episodes=1"]
    agent = make_agent("ppo", *WALK, *flags)
    assert agent.collector.env.observation_spec["observation"].shape == (2, 1)
    agent.train()
    batch = agent.collector.collect()
    assert (batch["next", "reward"] == 1).all()  # no action was illegal


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env_workers=2"], "--env_workers: expected none for gymnax, whose rows are one batch of tensors"),
        (["--from_pixels"], "--from_pixels: expected none for gymnax"),
        (["--frame_skip=2"], "--frame_skip: expected none for gymnax"),
    ],
)
def test_what_a_batch_does_not_take_is_refused(make_env, flags, message):
    with pytest.raises(ConfigError, match=message):
        make_env(*WALK, *flags)
