"""Toy simulators: what they show, what they pay, and what random and right play return."""

import numpy as np
import pytest

from fakes import assert_continues
from torchrl.envs.simulators import Matching
from torchrl.errors import ConfigError, EnvError


def shown(observation, nvec):
    """Read the targets off an observation, group by group."""
    return np.array([np.argmax(group) for group in np.split(observation, np.cumsum(nvec)[:-1])])


@pytest.mark.parametrize("nvec", [[3, 4, 2], [2], [1, 5]])
def test_an_observation_is_one_hot_in_every_group(nvec):
    world = Matching(nvec)
    observation, info = world.reset(seed=0)
    assert info == {}
    seen = set()
    for _ in range(16):
        assert observation.dtype == np.float32 and world.observation_space.contains(observation)
        assert [group.sum() for group in np.split(observation, np.cumsum(nvec)[:-1])] == [1] * len(nvec)
        seen.add(tuple(shown(observation, nvec)))
        observation, *_ = world.step(shown(observation, nvec))
    assert len(seen) > 1  # the targets are drawn anew at every step


def test_the_reward_is_the_fraction_of_matches_and_time_is_up_after_the_last_step():
    world = Matching([3, 4, 2], num_steps=4)
    observation, _ = world.reset(seed=3)
    rewards, flags = [], []
    for wrong in ([], [1], [0, 2], [0, 1, 2]):
        action = shown(observation, [3, 4, 2])
        for entry in wrong:
            action[entry] = (action[entry] + 1) % [3, 4, 2][entry]
        observation, reward, *ending, _ = world.step(action)
        rewards.append(reward)
        flags.append(ending)
    assert rewards == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert flags == [[False, False]] * 3 + [[False, True]]
    with pytest.raises(EnvError, match=r"reset\(\) first"):
        world.step(action)


def test_random_play_returns_what_the_docstring_says():
    world = Matching([3, 4, 2])
    world.action_space.seed(0)
    returns = []
    for episode in range(400):
        world.reset(seed=0 if episode == 0 else None)
        returns.append(sum(world.step(world.action_space.sample())[1] for _ in range(16)))
    expected = 16 * (1 / 3 + 1 / 4 + 1 / 2) / 3
    variance = 16 * (2 / 9 + 3 / 16 + 1 / 4) / 9
    assert abs(np.mean(returns) - expected) < 4 * np.sqrt(variance / 400)
    assert np.var(returns) == pytest.approx(variance, rel=0.3)


def test_every_target_is_drawn_equally_often():
    world = Matching([3, 4], num_steps=3000)
    observation, _ = world.reset(seed=1)
    counts = observation.copy()
    for _ in range(2999):
        counts += world.step(np.zeros(2))[0]
    assert np.abs(counts / 3000 - np.array([1 / 3] * 3 + [1 / 4] * 4)).max() < 0.04


def test_a_seed_repeats_an_episode_and_others_differ():
    def targets(world, seed):
        first, _ = world.reset(seed=seed)
        return np.array([first, *(world.step(np.zeros(3))[0] for _ in range(16))])

    world = Matching()
    assert np.array_equal(targets(world, 5), targets(Matching(), 5))
    assert not np.array_equal(targets(world, 5), targets(world, 6))
    assert not np.array_equal(targets(world, 5), targets(world, None))


def test_the_state_continues_bit_for_bit():
    assert_continues(Matching)


@pytest.mark.parametrize("state", [Matching([2, 2]).get_state(), {}])
def test_the_state_of_another_simulator_is_refused(state):
    with pytest.raises(EnvError, match="a state with nvec"):
        Matching().set_state(state)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Matching([]), "one number >= 1 per entry"),
        (lambda: Matching([3, 0]), r"one number >= 1 per entry, got \[3, 0\]"),
        (lambda: Matching(num_steps=0), "num_steps >= 1"),
    ],
)
def test_a_simulator_without_choices_or_steps_is_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_options_are_refused():
    with pytest.raises(EnvError, match="no options"):
        Matching().reset(options={"targets": [0, 0, 0]})
