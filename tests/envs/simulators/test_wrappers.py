"""What drives a simulator, with every number written by hand."""

import numpy as np
import pytest
from gymnasium import spaces

from fakes import ActionEchoSimulator, CountingSimulator, assert_continues
from torchrl.envs import SerialEnv, check_env
from torchrl.envs.simulators import FrameSkip, GymSimulator, NoopReset, RandomTruncation, TimeLimit
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


class Blinking:
    """Shows two pictures in one array that it writes again, a number beside, and ends after five steps."""

    observation_space = spaces.Dict(
        picture=spaces.Box(0, 255, (2,), np.uint8), pair=spaces.Tuple([spaces.Box(-9.0, 9.0, (), np.float32)])
    )
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.picture = np.zeros(2, np.uint8)

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self.observed(), {}

    def observed(self):
        self.picture[:] = (200 + self.count, 7) if self.count % 2 else (10, 100 + self.count)
        return {"picture": self.picture, "pair": (np.array(-self.count, np.float32),)}

    def step(self, action):
        self.count += 1
        return self.observed(), 1.0, self.count == 5, False, {}


class TestPooledFrames:
    @pytest.mark.parametrize(
        ("options", "picture", "number"),
        [
            ({}, [10, 104], -4),  # of the fourth frame
            ({"pool": "last", "num_pooled": 3}, [10, 104], -4),
            ({"pool": "max"}, [203, 104], -3),  # of the third and the fourth
            ({"pool": "max", "num_pooled": 9}, [203, 104], -1),  # of all four
            ({"pool": "mean"}, [106, 56], -3.5),  # 106.5 and 55.5, rounded to even
            ({"pool": "mean", "num_pooled": 3}, [74, 71], -3),  # (10 + 203 + 10) / 3 and (102 + 7 + 104) / 3
            ({"pool": "max", "num_pooled": 1}, [10, 104], -4),
        ],
    )
    def test_the_last_observations_become_one(self, options, picture, number):
        simulator = FrameSkip(Blinking(), 4, **options)
        simulator.reset()
        observation, reward, *_ = simulator.step(0)
        assert observation["picture"].tolist() == picture and observation["picture"].dtype == np.uint8
        assert observation["pair"][0] == number and reward == 4.0
        assert simulator.observation_space.contains(observation)
        observation, reward, terminated, *_ = simulator.step(0)  # the fifth ends it: of that frame alone
        assert observation["picture"].tolist() == [205, 7] and terminated and reward == 1.0

    def test_what_cannot_be_pooled_is_refused(self):
        with pytest.raises(ConfigError, match="pool to be one of last, max, mean, got 'sum'"):
            FrameSkip(Blinking(), 4, pool="sum")
        with pytest.raises(ConfigError, match="num_pooled"):
            FrameSkip(Blinking(), 4, pool="max", num_pooled=0)
        with pytest.raises(ConfigError, match=r"observations in a Box to be pooled, got Discrete.*pool='last'"):
            FrameSkip(GymSimulator("FrozenLake-v1"), 2, pool="max")


class TestTimeLimit:
    @pytest.mark.parametrize(
        ("below", "last"),
        [
            (CountingSimulator(100), [(False, False), (False, True)]),
            (CountingSimulator(3), [(False, False), (True, True)]),  # the task is over at the limit, too
            (CountingSimulator(2, ending="truncated"), [(False, True)]),  # before the limit
        ],
    )
    def test_the_last_step_is_truncated_in_every_episode_unless_it_ended_before(self, below, last):
        simulator = TimeLimit(below, 3)
        for _ in range(2):
            simulator.reset()
            assert [simulator.step(0)[2:4] for _ in (0, *last)] == [(False, False), *last]

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


class TestRandomStart:
    def test_actions_are_drawn_from_the_seed_and_each_anew(self):
        taken = []

        class Told(ActionEchoSimulator):
            def step(self, action):
                taken.append(action.tolist())
                return super().step(action)

        runs = []
        for seed in (0, 0, 1):
            taken.clear()
            NoopReset(Told(1, length=100), 6, "random").reset(seed=seed)
            runs.append(list(taken))
        assert runs[0] == runs[1] != runs[2]
        assert 1 <= len(runs[0]) <= 6 and len({one[0] for run in runs[1:] for one in run}) == len(runs[1]) + len(
            runs[2]
        )

    def test_a_state_goes_on(self):
        def make():
            return NoopReset(GymSimulator("CartPole-v1"), 5, "random")

        assert_continues(make)


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


class TestRandomTruncation:
    @staticmethod
    def length(simulator, limit=100):
        """Steps until the episode ends; None if it outlives the limit."""
        for at in range(1, limit + 1):
            *_, terminated, truncated, _ = simulator.step(0)
            if terminated or truncated:
                return at
        return None

    def first_length(self, seed, max_steps=4):
        simulator = RandomTruncation(CountingSimulator(1000), max_steps)
        simulator.reset(seed=seed)
        return self.length(simulator)

    def test_the_first_episode_ends_after_one_to_max_steps_with_equal_chance(self):
        lengths = [self.first_length(seed) for seed in range(400)]
        assert set(lengths) == {1, 2, 3, 4}
        assert np.bincount(lengths)[1:].min() > 70

    def test_the_seed_decides_and_max_steps_of_one_leaves_no_choice(self):
        assert [self.first_length(seed, 1000) for seed in range(9)] == [self.first_length(s, 1000) for s in range(9)]
        assert self.first_length(3, 1) == 1

    @pytest.mark.parametrize(("length", "is_over"), [(100, False), (1, True)])
    def test_it_is_a_truncation_and_a_termination_only_where_the_task_is_over_too(self, length, is_over):
        simulator = RandomTruncation(CountingSimulator(length), 1)
        simulator.reset(seed=0)
        assert simulator.step(0)[:4] == (1, 0.0, is_over, True)

    def test_later_episodes_are_left_alone(self):
        simulator = RandomTruncation(CountingSimulator([7, 7, 9]), 2)
        simulator.reset(seed=0)
        assert self.length(simulator) <= 2
        lengths = []
        for _ in range(2):
            simulator.reset()
            lengths.append(self.length(simulator))
        assert lengths == [7, 9]

    def test_a_first_episode_that_ends_by_itself_was_the_first_one(self):
        seed = next(seed for seed in range(99) if self.first_length(seed, 9) > 3)
        simulator = RandomTruncation(CountingSimulator([2, 50]), 9)
        simulator.reset(seed=seed)
        assert self.length(simulator) == 2
        simulator.reset()
        assert self.length(simulator) == 50

    def test_a_reset_before_the_first_step_does_not_use_it_up(self):
        simulator = RandomTruncation(CountingSimulator(1000), 50)
        simulator.reset(seed=5)
        simulator.reset()
        assert self.length(simulator) == self.first_length(5, 50)

    def test_a_reset_with_a_seed_begins_anew(self):
        simulator = RandomTruncation(CountingSimulator(1000), 50)
        for _ in range(2):
            simulator.reset(seed=5)
            assert self.length(simulator) == self.first_length(5, 50)
            simulator.reset()
            assert self.length(simulator) is None

    def test_without_a_seed_it_happens_all_the_same(self):
        simulator = RandomTruncation(CountingSimulator(1000), 5)
        simulator.reset()
        assert self.length(simulator) <= 5

    def test_rows_of_one_env_end_apart(self):
        env = SerialEnv(lambda: RandomTruncation(CountingSimulator(40), 40), 8)
        env.set_seed(0)
        done = env.rollout(200)["next", "done"].squeeze(-1)
        first = done.int().argmax(1).tolist()
        assert len(set(first)) > 4
        for row, start in zip(done, first, strict=True):  # after that, all last 40 steps
            assert row.nonzero().squeeze(-1).tolist() == list(range(start, 200, 40))

    def test_the_count_and_the_step_are_part_of_the_state(self):
        first, second = (RandomTruncation(CountingSimulator(1000), 50) for _ in range(2))
        seed = next(seed for seed in range(99) if self.first_length(seed, 50) > 10)
        first.reset(seed=seed)
        first.step(0)
        second.set_state(first.get_state())
        assert self.length(second) == self.first_length(seed, 50) - 1
        first.reset()
        second.set_state(first.get_state())
        assert self.length(second) is None

    def test_it_continues_bit_for_bit(self):
        assert_continues(lambda: RandomTruncation(GymSimulator("CartPole-v1"), 60))

    def test_a_seed_repeats_the_run(self):
        check_env(SerialEnv(lambda: RandomTruncation(GymSimulator("CartPole-v1"), 20), 3), num_steps=60)


@pytest.mark.parametrize("wrapper", [FrameSkip, TimeLimit, NoopReset, RandomTruncation])
def test_a_count_below_one_is_refused(wrapper):
    with pytest.raises(ConfigError, match=f"{wrapper.__name__}: expected .* >= 1, got 0"):
        wrapper(CountingSimulator(), 0)


def test_a_stack_of_all_continues_bit_for_bit():
    def make():
        return TimeLimit(NoopReset(FrameSkip(GymSimulator("CartPole-v1"), 2), 3), 10)

    assert_continues(make)
