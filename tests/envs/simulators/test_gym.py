"""Gymnasium environments as simulators: overhead, spaces, errors, and states that continue bit for bit."""

import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from fakes import CountingEnv, assert_continues
from torchrl.envs import SerialEnv
from torchrl.envs.simulators import GymSimulator, SimulatorWrapper
from torchrl.errors import EnvError, MissingExtraError

CLASSIC = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"]
TABLES = ["FrozenLake-v1", "Taxi-v4"]
MUJOCO = ["HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5", "InvertedPendulum-v5"]


class Shifted(gymnasium.Env):
    """Choices are 3, 4, 5; it observes the last one."""

    action_space = spaces.Discrete(3, start=3)
    observation_space = spaces.Discrete(3, start=3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 3, {"options": options}

    def step(self, action):
        return int(action), 0.0, action == 4, action == 5, {}


class ShiftedDict(Shifted):
    observation_space = spaces.Dict({"choice": Shifted.observation_space, "rest": spaces.Box(0, 1)})

    def reset(self, *, seed=None, options=None):
        return {"choice": 3, "rest": np.ones(1)}, {}

    def step(self, action):
        return {"choice": action, "rest": np.zeros(1)}, 0.0, False, False, {}


def test_step_and_reset_are_the_environments_own():
    simulator = GymSimulator("CartPole-v1")
    assert simulator.step == simulator.env.step
    assert simulator.reset == simulator.env.reset
    assert isinstance(simulator.env, gymnasium.wrappers.TimeLimit)


def test_arguments_reach_the_environment():
    simulator = GymSimulator("CartPole-v1", {"max_episode_steps": 2})
    simulator.reset(seed=0)
    assert [simulator.step(0)[3] for _ in range(2)] == [False, True]


def test_an_environment_can_be_given():
    env = gymnasium.make("Pendulum-v1")
    simulator = GymSimulator(env)
    assert simulator.env is env
    assert simulator.action_space is env.action_space


def test_choices_are_presented_from_zero():
    simulator = GymSimulator(Shifted())
    assert simulator.action_space == simulator.observation_space == spaces.Discrete(3)
    assert simulator.reset(options={"a": 1}) == (0, {"options": {"a": 1}})
    results = [simulator.step(choice) for choice in range(3)]
    assert [result[0] for result in results] == [0, 1, 2]
    assert [result[2:4] for result in results] == [(False, False), (True, False), (False, True)]


class WithoutSpaces(gymnasium.Env):
    """Forgot what it observes and takes."""

    def reset(self, *, seed=None, options=None):
        return 0, {}


def test_an_environment_without_spaces_says_what_to_set():
    with pytest.raises(EnvError, match="WithoutSpaces without observation_space and action_space.*__init__"):
        GymSimulator(WithoutSpaces())
    env = WithoutSpaces()
    env.observation_space, env.action_space = spaces.Discrete(2), 2
    with pytest.raises(EnvError, match="WithoutSpaces without action_space"):
        GymSimulator(gymnasium.Wrapper(env))


def test_a_registered_environment_without_spaces_is_refused_alike(monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec("NoSpaces-v0", entry_point=WithoutSpaces)
    monkeypatch.setitem(gymnasium.registry, "NoSpaces-v0", spec)
    for env_kwargs in ({}, {"disable_env_checker": True}):
        with pytest.raises(EnvError, match="an environment with its two spaces"):
            GymSimulator("NoSpaces-v0", env_kwargs)


@pytest.mark.parametrize("ending", ["terminated", "truncated", "both"])
def test_automatic_reset_is_harmless_since_a_reset_comes_before(ending):
    def make():
        return CountingEnv([1, 3, 2], ending=ending)

    def run(make):
        env = SerialEnv(make, 2)
        env.set_seed(0)
        return env.rollout(14)

    kept = run(lambda: GymSimulator(gymnasium.wrappers.Autoreset(make())))
    plain = run(lambda: GymSimulator(make()))
    assert plain["next", "done"].sum() > 8
    for key, value in plain.items(include_nested=True, leaves_only=True):
        assert torch.equal(value, kept[key]), key


def test_choices_inside_a_dict_are_presented_from_zero():
    simulator = GymSimulator(ShiftedDict())
    assert simulator.observation_space["choice"] == spaces.Discrete(3)
    observation, _ = simulator.reset()
    assert (observation["choice"], observation["rest"].tolist()) == (0, [1.0])
    assert simulator.step(2)[0]["choice"] == 2


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPol-v1", 'Did you mean "CartPole-v1"'),
        ("CartPole-v7", 'Did you mean "CartPole-v1".*gymnasium says'),
        ("halfcheetah-v5", 'Did you mean "HalfCheetah-v5"'),
        ("NoSuchPackage/Pong-v5", "Import the package"),
        ("???", "module:id"),
    ],
)
def test_an_unknown_id_names_the_nearest(env_id, message):
    with pytest.raises(EnvError, match=message):
        GymSimulator(env_id)


@pytest.fixture
def without_module(monkeypatch):
    def hide(module, *importers):
        for name in list(sys.modules):
            if name.startswith(importers):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)

    return hide


@pytest.mark.parametrize(
    ("module", "importer", "env_id", "words"),
    [
        ("mujoco", "gymnasium.envs.mujoco", "HalfCheetah-v5", r"\.\[mujoco\]"),  # an extra of ours
        ("Box2D", "gymnasium.envs.box2d", "LunarLander-v3", "box2d"),  # what gymnasium says
    ],
)
def test_a_missing_package_is_named(without_module, module, importer, env_id, words):
    without_module(module, importer)
    with pytest.raises(MissingExtraError, match=f'"{env_id}".*{words}'):
        GymSimulator(env_id)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GymSimulator(gymnasium.make_vec("CartPole-v1", 2)), "vector environment is a batch"),
        (lambda: GymSimulator(3), "gymnasium.Env, got int"),
        (lambda: GymSimulator(gymnasium.make("CartPole-v1"), {"x": 1}), r"only with an id.*\['x'\]"),
    ],
)
def test_what_is_not_one_environment_is_refused(build, message):
    with pytest.raises(EnvError, match=message):
        build()


@pytest.mark.parametrize("env_id", CLASSIC + TABLES + ["Blackjack-v1"])
def test_the_state_continues_bit_for_bit(env_id):
    assert_continues(lambda: GymSimulator(env_id), steps=100)


@pytest.mark.parametrize("env_id", MUJOCO)
def test_the_state_of_mujoco_continues_bit_for_bit(env_id):
    pytest.importorskip("mujoco")
    assert_continues(lambda: GymSimulator(env_id), steps=100)


def test_the_time_limit_is_part_of_the_state():
    first, second = (GymSimulator("Pendulum-v1", {"max_episode_steps": 5}) for _ in range(2))
    first.reset(seed=0)
    for _ in range(3):
        first.step(np.zeros(1, np.float32))
    second.set_state(first.get_state())
    assert [second.step(np.zeros(1, np.float32))[3] for _ in range(2)] == [False, True]


def test_the_state_of_wrappers_with_frames_continues():
    def make():
        return GymSimulator(gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 3))

    assert_continues(make)


class Opaque(Shifted):
    def __init__(self):
        self.world = object()


def test_a_simulator_that_cannot_be_captured_says_so():
    with pytest.raises(EnvError, match="Opaque.world of type object.*new episodes"):
        GymSimulator(Opaque()).get_state()
    with pytest.raises(EnvError, match="new episodes"):
        SimulatorWrapper(gymnasium.make("CartPole-v1")).get_state()


def test_the_state_of_another_environment_is_refused():
    state = GymSimulator("CartPole-v1").get_state()
    with pytest.raises(EnvError, match="PendulumEnv.*CartPoleEnv"):
        GymSimulator("Pendulum-v1").set_state(state)
    with pytest.raises(EnvError, match="got one of"):
        GymSimulator("Pendulum-v1").set_state({})


def test_a_used_generator_is_not_shared_between_simulators():
    first, second = GymSimulator("CartPole-v1"), GymSimulator("CartPole-v1")
    first.reset(seed=0)
    second.set_state(first.get_state())
    assert first.reset()[0].tolist() == second.reset()[0].tolist()
    first.reset()
    assert first.reset()[0].tolist() != second.reset()[0].tolist()


def test_pictures_come_from_the_environment():
    simulator = GymSimulator(CountingEnv())
    simulator.reset()
    simulator.step(0)
    assert np.array_equal(simulator.render(), np.ones((2, 3, 3), np.uint8))


def test_an_environment_that_was_not_made_to_return_pictures_says_how_to_make_it():
    simulator = GymSimulator("Pendulum-v1")
    simulator.reset()
    with (
        pytest.warns(UserWarning, match="render mode"),
        pytest.raises(EnvError, match="render_mode.*rgb_array.*GymEnv"),
    ):
        simulator.render()
    with pytest.raises(gymnasium.error.ResetNeeded):  # gymnasium's own message is clear
        GymSimulator("Pendulum-v1", {"render_mode": "rgb_array"}).render()


def test_a_missing_package_that_draws_names_the_extra(without_module):
    without_module("pygame")
    simulator = GymSimulator("CartPole-v1", {"render_mode": "rgb_array"})
    simulator.reset()
    with pytest.raises(MissingExtraError, match=r'"CartPole-v1".*\.\[classic-control\].*pygame'):
        simulator.render()


class Unlit(Shifted):
    """Draws with MuJoCo where there is no OpenGL."""

    mujoco_renderer = None

    def render(self):
        raise RuntimeError("no OpenGL platform library")


def test_mujoco_without_opengl_says_what_to_set():
    with pytest.raises(EnvError, match="no OpenGL platform library.*MUJOCO_GL=egl"):
        GymSimulator(Unlit()).render()


def test_other_exceptions_while_drawing_are_the_environments_own():
    class Broken(Shifted):
        def render(self):
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="^planted$"):
        GymSimulator(Broken()).render()


def test_close():
    class Closing(Shifted):
        is_closed = False

        def close(self):
            self.is_closed = True

    simulator = GymSimulator(Closing())
    simulator.close()
    assert simulator.env.is_closed


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "message"),
    [
        ("CartPole-v1", {"wind": True}, r'arguments that "CartPole-v1" takes, got \[\'wind\'\]'),
        (
            "FrozenLake-v1",
            {"map_name": "8x9", "render_mode": "rgb_array"},
            'values that "FrozenLake-v1" takes, got .*8x9.*KeyError',
        ),
    ],
)
def test_what_the_environment_does_not_take_is_refused(env_id, env_kwargs, message):
    with pytest.raises(EnvError, match=f"env_kwargs: expected {message}"):
        GymSimulator(env_id, env_kwargs)
