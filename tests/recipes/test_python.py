"""Worlds by a function's name, in the commands: built by flags, in processes, and evaluated from a saved run."""

import pytest

from cases.examples import load, settings_of
from torchrl.data.specs import Bounded, Categorical
from torchrl.recipes.envs import task_name

WORLDS = """
import gymnasium
from gymnasium import spaces


class Counting(gymnasium.Env):
    observation_space = spaces.Box(0, 9, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, length=3, whole=False):
        self.length = length
        if whole:
            self.action_space = spaces.Box(0, 3, (2,), int)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0.0
        return [0.0], {}

    def step(self, action):
        self.count += 1
        return [self.count], 1.0, self.count >= self.length, False, {}
"""
FLAGS = ["--env_library=python", "--env_name=worlds.py:Counting"]


@pytest.fixture(autouse=True)
def worlds(tmp_path, monkeypatch):
    (tmp_path / "worlds.py").write_text(WORLDS)
    monkeypatch.chdir(tmp_path)


def test_flags_build_it_with_its_arguments(make_env):
    env = make_env(*FLAGS, "--env_kwargs", "length=2")
    assert env.action_spec == Categorical(2, (2,)) and env.observation_spec["observation"].shape == (2, 1)
    assert env.rollout(4)["next", "terminated"][0].flatten().tolist() == [False, True, False, True]
    assert task_name(settings_of("ppo", *FLAGS).environment) == "worlds.py_Counting"


def test_whole_numbers_are_not_clipped(make_env):
    env = make_env(*FLAGS, "--env_kwargs", "whole=true")
    assert type(env.action_spec) is Bounded and not env.action_spec.dtype.is_floating_point


@pytest.mark.usefixtures("leaves_nothing")
def test_a_run_in_processes_is_trained_and_evaluated(tmp_path, capsys):
    tiny = ["--num_envs=2", "--num_cells", "8", "--frames_per_batch=16", "--minibatch_size=8", "--num_epochs=1"]
    quiet = ["--folder=runs", "--loggers", "--no-progress_bar", "--eval_episodes=2"]
    load("ppo").main([*FLAGS, *tiny, *quiet, "--total_frames=32", "--num_workers=2"])
    (run,) = (tmp_path / "runs").iterdir()
    load("ppo").main([f"--evaluate={run}"])
    assert "return 3.0" in capsys.readouterr().out.splitlines()[-1]
