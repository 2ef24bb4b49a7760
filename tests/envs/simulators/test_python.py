"""Simulators by functions named as text: from a module, from a file, what they may return, and what is refused."""

import sys
from functools import partial

import numpy as np
import pytest

from torchrl.envs import SerialEnv, check_env
from torchrl.envs.simulators import DMControlSimulator, FrameSkip, GymSimulator, Matching, TimeLimit, python_simulator
from torchrl.envs.simulators.python import find_function
from torchrl.errors import EnvError

WORLDS = """
import dm_env
import gymnasium
import numpy as np

import helping_module

made = []


def gym(name="CartPole-v1"):
    made.append(name)
    return gymnasium.make(name)


def matching(nvec):
    from torchrl.envs.simulators import Matching

    return Matching(nvec=nvec)


class Ones(dm_env.Environment):
    def __init__(self, number):
        self.number = number

    def observation_spec(self):
        return dm_env.specs.Array((self.number,), float)

    def action_spec(self):
        return dm_env.specs.DiscreteArray(2)

    def reset(self):
        return dm_env.restart(np.ones(self.number))

    def step(self, action):
        return dm_env.termination(1.0, np.ones(self.number))


def wrong():
    return helping_module.ANSWER


def failing():
    raise ValueError("no such level")
"""


@pytest.fixture
def worlds(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "worlds.py").write_text(WORLDS)
    (tmp_path / "helping_module.py").write_text("ANSWER = 42\n")
    monkeypatch.chdir(tmp_path)
    return "worlds.py"


def test_a_function_of_a_file_is_found_from_the_present_folder(worlds):
    simulator = python_simulator(f"{worlds}:gym", frame_skip=2, max_episode_steps=7)
    layers = [TimeLimit, FrameSkip, GymSimulator]
    for layer in layers:
        assert type(simulator) is layer
        simulator = getattr(simulator, "simulator", simulator)
    assert python_simulator(f"{worlds}:gym", env_kwargs={"name": "Acrobot-v1"}).observation_space.shape == (6,)
    found = find_function(f"{worlds}:gym")
    assert found.__globals__["made"] == ["CartPole-v1", "Acrobot-v1"]  # the file ran once


def test_a_module_is_imported_and_a_dm_env_presented(worlds):
    assert isinstance(python_simulator("torchrl.envs.simulators:Matching"), Matching)
    simulator = python_simulator(f"{worlds}:Ones", env_kwargs={"number": 3})
    assert isinstance(simulator, DMControlSimulator) and simulator.reset()[0].tolist() == [1.0, 1.0, 1.0]


def test_rows_of_it_are_an_env(worlds):
    make = partial(python_simulator, f"{worlds}:matching", env_kwargs={"nvec": [2, 3]})
    check_env(SerialEnv(make, 2), num_steps=20)
    root = SerialEnv(partial(python_simulator, f"{worlds}:gym"), 2).reset(seed=[1, 2])
    assert np.allclose(root["observation"][0], GymSimulator("CartPole-v1").reset(seed=1)[0])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("worlds.py", EnvError, "expected module:function or file.py:function, got 'worlds.py'. For example"),
        ("wordls.py:gym", EnvError, "expected a file, got .*wordls.py"),
        ("worlds.py:gim", EnvError, "expected a function of worlds.py, got 'gim'. Did you mean 'gym'"),
        ("worlds.py:made", EnvError, "expected a function of worlds.py, got 'made'"),
        ("no_module.deeper:gym", EnvError, "expected an installed module, got 'no_module.deeper'.*deeper.py:function"),
        ("worlds.py:wrong", EnvError, "expected a gymnasium.Env, .*got int, returned by worlds.py:wrong"),
        ("worlds.py:failing", ValueError, "no such level"),
    ],
)
def test_what_is_no_world_is_refused(name, error, message, worlds):
    with pytest.raises(error, match=message):
        python_simulator(name)


def test_a_file_that_fails_is_read_again(worlds, tmp_path):
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    for _ in range(2):  # the error is the file's own, not that of a half-read module
        with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
            python_simulator("broken.py:make")
