"""Velocities that are taken out: which they are, by hand and by the task's id, and what is refused."""

from functools import partial

import gymnasium
import pytest
import torch

from cases.transform_worlds import drift
from torchrl.data.specs import Bounded
from torchrl.envs import CartPole, GymEnv, GymVectorEnv, ParallelEnv, Pendulum, SerialEnv
from torchrl.envs.simulators import FrameSkip, gym_simulator
from torchrl.envs.transforms import (
    CatTensors,
    Compose,
    FrameStack,
    LastReward,
    MaskVelocity,
    ObservationNorm,
    OneHotObservation,
    StepCounter,
    TransformedEnv,
)
from torchrl.errors import ConfigError, SpecError

POSITIONS = {  # what stays
    "CartPole-v0": [0, 2],
    "CartPole-v1": [0, 2],
    "Pendulum-v1": [0, 1],
    "MountainCar-v0": [0],
    "MountainCarContinuous-v0": [0],
    "Acrobot-v1": [0, 1, 2, 3],
    "LunarLander-v3": [0, 1, 4, 6, 7],
    "LunarLanderContinuous-v3": [0, 1, 4, 6, 7],
}


@pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date")
@pytest.mark.parametrize(("task", "stays"), POSITIONS.items())
def test_the_velocities_of_known_tasks_go(task, stays):
    pytest.importorskip("Box2D" if "Lunar" in task else "gymnasium")
    env, full = TransformedEnv(GymEnv(task, num_envs=2), MaskVelocity()), GymEnv(task, num_envs=2)
    spec, whole = env.observation_spec["observation"], full.observation_spec["observation"]
    assert spec == Bounded(whole.low[..., stays], whole.high[..., stays], (2, len(stays)))
    for one in (env, full):
        one.set_seed(3)
    batch, expected = env.rollout(5), full.rollout(5)
    for key in ("observation", ("next", "observation")):
        assert torch.equal(batch[key], expected[key][..., stays])
    env.close(), full.close()


def test_the_features_named_go_by_hand():
    env = TransformedEnv(CartPole(2), Compose(ObservationNorm(1.0, 2.0), MaskVelocity([0, 1, 3])))
    below = CartPole(2).reset(seed=1)["observation"]
    assert torch.equal(env.reset(seed=1)["observation"], ((below - 1) / 2)[:, [2]])


ROWS = {
    "native CartPole": lambda: CartPole(2),
    "native Pendulum": lambda: Pendulum(2),
    "below another transform": lambda: TransformedEnv(CartPole(2), StepCounter()),
    "a wrapper": lambda: SerialEnv(lambda: FrameSkip(gym_simulator("CartPole-v1"), 2), 2),
    "gymnasium's own": lambda: SerialEnv(partial(gymnasium.make, "CartPole-v1"), 2),
    "in processes": lambda: ParallelEnv(partial(gym_simulator, "CartPole-v1"), 2, num_workers=2),
    "a vector environment": lambda: GymVectorEnv(
        gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    ),
}


@pytest.mark.parametrize("make_env", ROWS.values(), ids=ROWS.keys())
def test_the_task_is_known_to_every_back_end(make_env):
    env = TransformedEnv(make_env(), Compose(LastReward(), MaskVelocity()))
    assert env.task in ("CartPole-v1", "Pendulum-v1")
    assert env.reset()["observation"].shape == (2, 2)
    env.close()


@pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date")
def test_rows_of_several_tasks_have_none():
    kwargs = {"max_episode_steps": 9}
    rows = [partial(gym_simulator, name, **kwargs) for name in ("CartPole-v0", "CartPole-v1")]
    for env in (SerialEnv(rows), ParallelEnv(rows, num_workers=2)):
        assert env.task == ""
        env.close()


@pytest.mark.parametrize(
    ("make_env", "transform", "error", "message"),
    [
        (drift, MaskVelocity, ConfigError, r"does not tell its task. Write MaskVelocity\(indices="),
        (
            partial(GymEnv, "Taxi-v4"),
            lambda: Compose(OneHotObservation(), CatTensors(), MaskVelocity()),
            ConfigError,
            "got the task 'Taxi-v4'. Write MaskVelocity",
        ),
        (partial(GymEnv, "Taxi-v4"), lambda: MaskVelocity([0]), SpecError, "expected a vector of numbers"),
        (
            CartPole,
            lambda: Compose(FrameStack(2), MaskVelocity()),
            SpecError,
            "expected the 4 features of CartPole-v1, got 8. Put MaskVelocity.. below",
        ),
        (CartPole, lambda: MaskVelocity([4]), SpecError, "some of the features 0 to 3, and others that stay"),
        (CartPole, lambda: MaskVelocity([0, 1, 2, 3]), SpecError, "and others that stay"),
    ],
)
def test_what_has_no_known_velocities_is_refused_with_the_line_to_write(make_env, transform, error, message):
    env = make_env(2) if make_env in (drift, CartPole) else make_env(num_envs=2)
    with pytest.raises(error, match=message):
        TransformedEnv(env, transform())


@pytest.mark.parametrize("indices", [[], [1, 1], [-1], [1.0], "13", 3, [True]])
def test_indices_that_are_none_are_refused(indices):
    with pytest.raises(ConfigError, match="MaskVelocity: expected indices of features"):
        MaskVelocity(indices)


def test_two_frames_tell_the_velocity_again():
    env = TransformedEnv(CartPole(2), Compose(MaskVelocity(), FrameStack(2), LastReward(), CatTensors()))
    assert env.observation_spec["observation"].shape == (2, 5)
