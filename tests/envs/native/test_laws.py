"""What holds for every native env: the contract, and what it has in common with gymnasium's."""

import gymnasium
import numpy as np
import pytest

from cases.devices import DEVICES
from torchrl.envs import Acrobot, CartPole, MountainCar, MountainCarContinuous, Pendulum, check_env, spec_from_space
from torchrl.envs.native.named import KINDS
from torchrl.errors import ConfigError

NATIVE = [
    (Acrobot, "Acrobot-v1"),
    (CartPole, "CartPole-v1"),
    (MountainCar, "MountainCar-v0"),
    (MountainCarContinuous, "MountainCarContinuous-v0"),
    (Pendulum, "Pendulum-v1"),
]


# ChainMDP and NarrowPath start at one place, where an episode may end, too.
@pytest.mark.filterwarnings("ignore:.*All episodes start alike")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_two_dimensions_keeps_the_contract(kind, device):
    env = kind((2, 3), max_episode_steps=15, device=device)
    check_env(env, num_steps=40)
    assert env.device.type == device == env.reset()["observation"].device.type


@pytest.mark.parametrize(("kind", "name"), NATIVE)
def test_its_specs_and_time_limit_are_those_of_gymnasium(kind, name):
    reference, env = gymnasium.make(name), kind(3)
    assert env.task == name and env.action_spec == spec_from_space(reference.action_space, [3])
    assert env.max_episode_steps == reference.spec.max_episode_steps and env.batch_size == (3,)
    spec = env.observation_spec["observation"]
    np.testing.assert_allclose(spec.high[0].numpy(), reference.observation_space.high, rtol=1e-6)
    np.testing.assert_allclose(spec.low[0].numpy(), reference.observation_space.low, rtol=1e-6)


@pytest.mark.parametrize("num_envs", [0, -1, 2.0, True, (2, 0), "3"])
def test_batch_sizes_that_are_none_are_refused(num_envs):
    with pytest.raises(ConfigError, match="num_envs: expected positive integers, or None"):
        CartPole(num_envs)
