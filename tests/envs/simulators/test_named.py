"""Simulators by name: what stands around them, in which order, and that a batch of them is the Env of the same name."""

import inspect
import pickle
import subprocess
import sys
from functools import partial

import gymnasium
import numpy as np
import pytest

from torchrl.envs import DMControlEnv, GymEnv, ToyEnv
from torchrl.envs.simulators import (
    FrameSkip,
    GymSimulator,
    Matching,
    NoopReset,
    RandomTruncation,
    TimeLimit,
    dm_control_simulator,
    gym_simulator,
    toy_simulator,
)
from torchrl.errors import ConfigError, EnvError


def layers(simulator):
    found = [type(simulator)]
    while hasattr(simulator, "simulator"):
        simulator = simulator.simulator
        found.append(type(simulator))
    return found


def test_a_name_alone_is_the_simulator_alone():
    assert layers(gym_simulator("CartPole-v1")) == [GymSimulator]
    assert layers(toy_simulator("Matching")) == [Matching]


def test_wrappers_stand_in_the_documented_order():
    lag = partial(RandomTruncation, max_steps=9)
    simulator = gym_simulator("CartPole-v1", frame_skip=2, max_noops=3, max_episode_steps=7, wrappers=[lag])
    assert layers(simulator) == [RandomTruncation, TimeLimit, NoopReset, FrameSkip, GymSimulator]
    assert simulator.max_steps == 9 and simulator.simulator.max_steps == 7


def test_frames_are_agent_steps():
    simulator = gym_simulator("Pendulum-v1", frame_skip=4, max_episode_steps=3)
    simulator.reset(seed=0)
    plain = gymnasium.make("Pendulum-v1")
    plain.reset(seed=0)
    for is_last in (False, False, True):
        _, reward, terminated, truncated, _ = simulator.step(np.zeros(1, np.float32))
        assert reward == pytest.approx(sum(plain.step(np.zeros(1, np.float32))[1] for _ in range(4)))
        assert (terminated, truncated) == (False, is_last)


def test_a_toy_has_its_arguments():
    simulator = toy_simulator("Matching", toy_kwargs={"nvec": [2, 5], "num_steps": 7}, max_episode_steps=2)
    assert simulator.action_space.nvec.tolist() == [2, 5] and layers(simulator) == [TimeLimit, Matching]


def test_a_task_of_the_suite_ends_in_time():
    pytest.importorskip("dm_control")
    simulator = dm_control_simulator("cheetah", "run", frame_skip=2, max_episode_steps=2)
    simulator.reset(seed=0)
    ends = [simulator.step(simulator.action_space.sample())[3] for _ in range(2)]
    assert ends == [False, True]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (partial(gym_simulator, "CartPol-v1"), EnvError, "CartPole-v1"),
        (partial(gym_simulator, "CartPole-v1", info_defaults={"x": 0.0}), ConfigError, "info_keys"),
        (partial(gym_simulator, "CartPole-v1", frame_skip=0), ConfigError, "num_frames >= 1"),
        (
            partial(gym_simulator, "CartPole-v1", from_pixels=True, env_kwargs={"render_mode": "human"}),
            ConfigError,
            "rgb_array",
        ),
        (partial(toy_simulator, "matching"), EnvError, 'Did you mean "Matching"'),
    ],
)
def test_mistakes_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("env", "simulator"), [(GymEnv, gym_simulator), (DMControlEnv, dm_control_simulator), (ToyEnv, toy_simulator)]
)
def test_a_batch_takes_the_arguments_of_its_simulators_and_num_envs(env, simulator):
    def arguments(of):
        found = {name: (one.kind, one.default) for name, one in inspect.signature(of).parameters.items()}
        found.pop("num_envs", None)
        return list(found.items())

    assert arguments(env) == arguments(simulator)
    assert "num_envs" in inspect.signature(env).parameters


def test_every_argument_reaches_the_simulators_of_a_batch():
    options = {"frame_skip": 3, "max_noops": 2, "max_episode_steps": 7, "env_kwargs": {"render_mode": "rgb_array"}}
    (simulator,) = GymEnv("CartPole-v1", **options).simulators
    assert layers(simulator) == layers(gym_simulator("CartPole-v1", **options))
    assert simulator.simulator.simulator.num_frames == 3
    (toy,) = ToyEnv("Matching", frame_skip=2, toy_kwargs={"num_steps": 5}).simulators
    assert layers(toy) == [FrameSkip, Matching] and toy.simulator.num_steps == 5


def test_a_factory_goes_to_a_process_that_knows_no_torch():
    factory = pickle.dumps(partial(gym_simulator, "CartPole-v1", frame_skip=2))
    script = (
        "import pickle, sys\n"
        f"simulator = pickle.loads({factory!r})()\n"
        "print(simulator.num_frames, simulator.reset(seed=0)[0].shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "2 (4,) False", done.stderr
