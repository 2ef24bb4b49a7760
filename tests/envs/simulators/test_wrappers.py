"""What drives a simulator, with every number written by hand."""

import numpy as np
import pytest

from fakes import ActionEchoSimulator, CountingSimulator, assert_continues
from torchrl.envs.simulators import FrameSkip, GymSimulator, NoopReset, TimeLimit
from torchrl.errors import ConfigError, EnvError


class TestFrameSkip:
    def test_rewards_are_summed_and_the_last_observation_is_returned(self):
        simulator = FrameSkip(ActionEchoSimulator(1), 3)
        simulator.reset()
        observation, reward, *flags, _ = simulator.step(np.array([0.5], np.float32))
        assert (observation.tolist(), reward, flags) == ([0.5], 1.5, [False, False])

    @pytest.mark.parametrize("ending", [("terminated", [True, False]), ("truncated", [False, True])])
    def test_it_stops_at_an_ending(self, ending):
        simulator = FrameSkip(CountingSimulator(5, ending=ending[0]), 3)
        simulator.reset(seed=0)
        simulator.reset()  # episode 1, whose reward is 1
        assert simulator.step(0)[:4] == (3, 3.0, False, False)
        observation, reward, *flags, _ = simulator.step(0)
        assert (observation, reward, flags) == (5, 2.0, ending[1])


class TestTimeLimit:
    def test_the_last_step_is_truncated_in_every_episode(self):
        simulator = TimeLimit(CountingSimulator(100), 3)
        for _ in range(2):
            simulator.reset()
            assert [simulator.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]

    def test_an_end_of_the_task_at_the_limit_is_both(self):
        simulator = TimeLimit(CountingSimulator(3), 3)
        simulator.reset()
        assert [simulator.step(0)[2:4] for _ in range(3)][-1] == (True, True)

    def test_an_earlier_ending_is_left_alone(self):
        simulator = TimeLimit(CountingSimulator(2, ending="truncated"), 3)
        simulator.reset()
        assert [simulator.step(0)[2:4] for _ in range(2)] == [(False, False), (False, True)]

    def test_it_counts_agent_steps_around_a_frame_skip(self):
        simulator = TimeLimit(FrameSkip(CountingSimulator(100), 4), 2)
        simulator.reset()
        assert [simulator.step(0)[3] for _ in range(2)] == [False, True]

    def test_the_count_is_part_of_the_state(self):
        first, second = (TimeLimit(CountingSimulator(100), 3) for _ in range(2))
        first.reset()
        first.step(0)
        second.set_state(first.get_state())
        assert [second.step(0)[3] for _ in range(2)] == [False, True]


class TestNoopReset:
    def test_episodes_begin_after_one_to_max_steps(self):
        simulator = NoopReset(CountingSimulator(100), 4)
        simulator.reset(seed=0)
        starts = [int(simulator.reset()[0].item()) for _ in range(300)]
        assert set(starts) == {1, 2, 3, 4}
        assert np.bincount(starts)[1:].min() > 50

    def test_a_seed_fixes_the_number(self):
        def starts(seed):
            simulator = NoopReset(CountingSimulator(100), 50)
            first = simulator.reset(seed=seed)
            return [int(observation.item()) for observation, _ in [first, *(simulator.reset() for _ in range(5))]]

        assert starts(1) == starts(1)
        assert starts(1) != starts(2)

    def test_the_action_is_the_given_one(self):
        echo = ActionEchoSimulator(2)
        action = np.array([0.25, -0.25], np.float32)
        observation, _ = NoopReset(echo, 3, action).reset(seed=0)
        assert observation.tolist() == [0.25, -0.25]

    def test_an_episode_that_ends_meanwhile_is_started_again(self):
        inner = CountingSimulator([1, 1, 100])
        observation, _ = NoopReset(inner, 1).reset(seed=0)
        assert (int(observation.item()), inner.episode) == (1, 2)

    def test_the_seed_is_given_once(self):
        class Recording(CountingSimulator):
            seeds = []

            def reset(self, *, seed=None, options=None):
                self.seeds.append(seed)
                return super().reset(seed=seed, options=options)

        NoopReset(Recording([1, 1, 100]), 1).reset(seed=5)
        assert Recording.seeds == [5, None, None]

    def test_it_gives_up_after_ten_trials(self):
        inner = CountingSimulator(1)
        with pytest.raises(EnvError, match="within 10 trials.*Lower max_noops"):
            NoopReset(inner, 3).reset(seed=0)
        assert inner.episode == 9

    def test_the_generator_is_part_of_the_state(self):
        first, second = (NoopReset(CountingSimulator(100), 50) for _ in range(2))
        first.reset(seed=0)
        second.set_state(first.get_state())
        assert [first.reset()[0].item() for _ in range(5)] == [second.reset()[0].item() for _ in range(5)]

    def test_the_action_must_be_allowed(self):
        with pytest.raises(ConfigError, match="a noop_action in Discrete"):
            NoopReset(CountingSimulator(), 3, 2)
        with pytest.raises(ConfigError, match="a noop_action in Box"):
            NoopReset(ActionEchoSimulator(), 3, 5)

    def test_a_number_stands_for_every_entry_of_a_box(self):
        simulator = NoopReset(ActionEchoSimulator(2), 1, 0.5)
        assert simulator.reset(seed=0)[0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("wrapper", [FrameSkip, TimeLimit, NoopReset])
def test_a_count_below_one_is_refused(wrapper):
    with pytest.raises(ConfigError, match=f"{wrapper.__name__}: expected .* >= 1, got 0"):
        wrapper(CountingSimulator(), 0)


def test_a_stack_of_all_continues_bit_for_bit():
    def make():
        return TimeLimit(NoopReset(FrameSkip(GymSimulator("CartPole-v1"), 2), 3), 10)

    assert_continues(make)
