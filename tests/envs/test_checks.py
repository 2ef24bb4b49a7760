"""``check_env`` passes the environments we ship and finds planted mistakes."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from fakes import ActionEchoSimulator, CountingSimulator, FaultySimulator, PlantedError
from torchrl.envs import DMControlEnv, GymEnv, SerialEnv, check_env
from torchrl.errors import EnvError, KeyMissing, SpecError


@pytest.mark.parametrize("num_envs", [None, 1, 3])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0"])
def test_gym_environments_pass(name, num_envs):
    check_env(GymEnv(name, num_envs=num_envs, max_episode_steps=30), num_steps=70)


@pytest.mark.parametrize("num_envs", [None, 2])
def test_dm_control_environments_pass(num_envs):
    pytest.importorskip("dm_control")
    check_env(DMControlEnv("cheetah", "run", num_envs=num_envs, frame_skip=2, max_episode_steps=10), num_steps=25)


def test_the_fakes_pass():
    check_env(SerialEnv([lambda: CountingSimulator(2), lambda: CountingSimulator(3, ending="truncated")]))
    check_env(SerialEnv(lambda: ActionEchoSimulator(length=4), 2))
    check_env(SerialEnv(FaultySimulator, 2))


FAULTS = {
    "observation_shape": (SpecError, r"shape \[2\]"),
    "observation_string": (SpecError, "dtype <U4"),
    "observation_object": (SpecError, "dtype object"),
    "observation_out_of_bounds": (SpecError, "-1"),
    "observation_nan": (SpecError, "NaN"),
    "reward_nan": (SpecError, "NaN"),
    "reward_list": (EnvError, "reward of slot 0: expected a float"),
    "ignores_seed": (EnvError, "the same run twice"),
    "raises_in_reset": (PlantedError, "planted in reset"),
    "raises_in_step": (PlantedError, "planted in step"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_mistakes_are_found_and_named(fault):
    kind, message = FAULTS[fault]
    with pytest.raises(kind, match=message):
        check_env(SerialEnv(lambda: FaultySimulator(fault), 2), num_steps=30)


def test_an_exception_of_a_simulator_says_which_slot():
    env = SerialEnv([lambda: FaultySimulator(length=9), lambda: FaultySimulator("raises_in_step", length=9)])
    root = env.reset()
    with pytest.raises(PlantedError) as caught:
        env.step(root.set("action", torch.zeros(2, dtype=torch.int64)))
    assert caught.value.__notes__ == ["Raised by the simulator of slot 1 in step()."]


class ReusedBuffer(CountingSimulator):
    """Hands out the same array at every step: harmless here, since the border copies it."""

    buffer = np.zeros(1, np.float32)

    def _observation(self):
        self.buffer[:] = self.num_steps
        return self.buffer


def test_a_reused_buffer_of_a_simulator_does_no_harm():
    check_env(SerialEnv(lambda: ReusedBuffer(3)))


class Tampered(SerialEnv):
    """An environment with one mistake at the level of TensorDicts."""

    def __init__(self, fault):
        super().__init__(lambda: CountingSimulator(3), 2)
        self.fault = fault

    def _advance(self, tensordict):
        next_, root, ended = super()._advance(tensordict)
        if self.fault == "done without a flag":
            next_.set("done", torch.ones(2, 1, dtype=torch.bool))
        if self.fault == "done of floats":
            next_.set("done", next_["done"].float())
        if self.fault == "flag of shape [B]":
            next_.set("terminated", next_["terminated"].squeeze(-1).unsqueeze(-1).float())
        if self.fault == "reward of shape [B]":
            next_ = next_.exclude("reward").set("reward", next_["reward"].expand(2, 2))
        if self.fault == "no reward":
            next_ = next_.exclude("reward")
        if self.fault == "terminal observation replaced":
            next_.set("observation", torch.where(next_["done"], 0.0, next_["observation"]))
            root.set("observation", root["observation"] + 1)
        if self.fault == "key not carried":
            root = root.exclude("episode_return")
        return next_, root, ended


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("done without a flag", EnvError, "done = terminated or truncated"),
        ("flag of shape [B]", EnvError, "flag 'terminated'"),
        ("done of floats", EnvError, "flag 'done'"),
        ("reward of shape [B]", SpecError, "reward"),
        ("no reward", KeyMissing, "reward"),
        ("terminal observation replaced", EnvError, "the next root to hold what 'next' held"),
        ("key not carried", KeyMissing, "'episode_return'"),
    ],
)
def test_mistakes_of_an_env_are_found(fault, kind, message):
    with pytest.raises(kind, match=message):
        check_env(Tampered(fault))


def test_an_observation_space_that_lies_about_its_dtype_is_found():
    class Whole(CountingSimulator):
        def __init__(self):
            super().__init__(3)
            self.observation_space = spaces.Box(0, 10, (1,), np.int64)

    with pytest.raises(SpecError, match="dtype float32"):
        check_env(SerialEnv(Whole))


class Old(CountingSimulator):
    """Speaks the interface of old gym."""

    def step(self, action):
        return super().step(action)[:4]


class Older(CountingSimulator):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=options)[0]


def test_results_of_another_interface_are_named():
    with pytest.raises(EnvError, match=r"step of slot 0: expected \(observation, .*got 4 values"):
        check_env(SerialEnv(Old, 2))
    with pytest.raises(EnvError, match=r"reset of slot 0: expected \(observation, info\), got ndarray"):
        check_env(SerialEnv(Older, 2))


def test_what_is_no_env_is_refused_with_the_line_to_write():
    with pytest.raises(EnvError, match=r"GymEnv\(env\)"):
        check_env(CountingSimulator(3))
