"""Simulators that are a batch already. Whole rollouts of theirs are held against the autoreset law."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from cases.batch_worlds import Gathered, Walks
from fakes import CountingEnv, CountingSimulator
from torchrl.agents import Evaluator
from torchrl.collectors import Collector
from torchrl.envs import BatchEnv, GymEnv, SerialEnv
from torchrl.envs.simulators import BatchArrays, BatchSimulator
from torchrl.errors import ConfigError, EnvError, SpecError


class Counts(BatchSimulator):
    """Each row counts its steps; row k ends at its (k + 2)-th, every second episode by time."""

    observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, num_envs=2, **members):
        self.num_envs, self.episode = num_envs, np.zeros(num_envs, int)
        vars(self).update(members)

    def reset(self, rows, *, seeds=None, options=None):
        self.given = (rows.tolist(), seeds, options)
        self.arrays.observations[rows] = 0

    def step(self, actions):
        arrays = self.arrays
        arrays.observations += 1
        arrays.rewards[:] = actions
        ended = arrays.observations[:, 0] == np.arange(self.num_envs) + 2
        arrays.truncated[:] = ended & (self.episode % 2 == 1)
        arrays.terminated[:] = ended & (self.episode % 2 == 0)
        self.episode += ended
        if self.autoreset == "same_step":
            if arrays.last_observations is not None:
                arrays.last_observations[ended] = arrays.observations[ended]
            arrays.observations[ended] = 0


def left(root):
    return root.set("action", torch.ones(root.batch_size, dtype=torch.int64))


@pytest.mark.parametrize("autoreset", ["disabled", "same_step"])
def test_steps_written_by_hand(autoreset):
    batch = BatchEnv(Counts(autoreset=autoreset)).rollout(5, left)
    assert batch["observation"].squeeze(-1).tolist() == [[0, 1, 0, 1, 0], [0, 1, 2, 0, 1]]
    assert batch["next", "observation"].squeeze(-1).tolist() == [[1, 2, 1, 2, 1], [1, 2, 3, 1, 2]]
    assert batch["next", "terminated"][0].squeeze(-1).tolist() == [False, True, False, False, False]
    assert batch["next", "truncated"][0].squeeze(-1).tolist() == [False, False, False, True, False]
    assert batch["next", "reward"].eq(1).all()


def test_what_a_reset_is_given():
    counts = Counts(3)
    env = BatchEnv(counts)
    env.reset(seed=[4, 5, 6])
    assert counts.given == ([True] * 3, [4, 5, 6], None)
    env.reset(torch.tensor([False, True, False]), seed=[None, 7, None], options={"hard": 1})
    assert counts.given == ([False, True, False], [None, 7, None], {"hard": 1})


def test_rows_that_the_simulator_restarted_are_not_reset_again():
    gathered = Gathered([CountingEnv] * 2, "same_step")
    env = BatchEnv(gathered)
    env.rollout(12)
    assert gathered.num_resets == 1
    env.reset(torch.tensor([True, False]))
    assert gathered.num_resets == 2


def test_the_same_batch_as_the_simulators_one_by_one():
    env, serial = BatchEnv(Gathered([CountingEnv] * 2)), SerialEnv(CountingSimulator, 2)
    assert (env.rollout(12, left) == serial.rollout(12, left)).all()


def test_a_policy_in_arrays_of_float64_sees_float32():
    env = BatchEnv(Walks(3))
    root = env.reset(seed=1)
    assert root["place"].dtype is torch.float32 and root["time"].dtype is torch.int64
    assert root["place"].unique().numel() == 3


def test_a_seed_repeats_each_row_alone():
    env = BatchEnv(Walks(3))
    first = env.reset(seed=[1, 2, 3])["place"]
    env.rollout(9)
    again = env.reset(torch.tensor([False, True, False]), seed=[None, 2, None])["place"]
    assert again[1] == first[1] and again[0] != first[0]


def test_lost_last_observations_are_refused_or_repeat_the_one_before():
    lost = Gathered([CountingEnv] * 2, "same_step", keeps_last=False)
    with pytest.raises(EnvError, match="expected the true last observation of each episode.*lost_last"):
        BatchEnv(lost)
    batch = BatchEnv(lost, lost_last="repeat").rollout(6, left)
    assert batch["next", "observation"][0].squeeze(-1).tolist() == [1, 2, 3, 4, 4, 1]  # 5 is lost
    with pytest.raises(ConfigError, match="lost_last of refuse, repeat"):
        BatchEnv(lost, lost_last="zero")


def test_a_lost_last_observation_at_a_truncation_is_an_error():
    lost = Gathered([lambda: CountingEnv(2, ending="truncated")] * 2, "same_step", keeps_last=False)
    with pytest.raises(EnvError, match="that time has cut, whose value counts.* in row 0"):
        BatchEnv(lost, lost_last="repeat").rollout(3)


def test_a_reset_of_some_rows_where_only_all_can_restart():
    env = BatchEnv(Counts(autoreset="same_step", restarts_rows=False))
    env.reset()
    assert not env.restarts_rows
    with pytest.raises(EnvError, match="restarts all or none"):
        env.reset(torch.tensor([True, False]))
    with pytest.raises(EnvError, match="rows that can be restarted one by one, or autoreset 'same_step'"):
        BatchEnv(Counts(restarts_rows=False))


def test_a_reset_that_changes_rows_that_go_on_is_refused():
    class Careless(Counts):
        def reset(self, rows, *, seeds=None, options=None):
            self.arrays.observations[:] = 0

    with pytest.raises(EnvError, match=r"Careless.reset: expected rows that go on.*observations\[rows\]"):
        BatchEnv(Careless()).rollout(5)


@pytest.mark.parametrize("method", ["reset", "step"])
def test_results_that_are_returned_are_refused(method):
    world = Counts()
    setattr(world, method, lambda *arguments, **options: (world.arrays.observations, {}))
    with pytest.raises(EnvError, match=f"Counts.{method}: expected results written into the arrays, got a tuple"):
        BatchEnv(world).rollout(2)


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        (Counts(autoreset="next_step"), "autoreset of disabled, same_step.*no transition"),
        (Counts(0), "num_envs of at least 1"),
        (Counts, "got the class Counts.*Build it first"),
        (CountingSimulator(), "without num_envs, autoreset.*SerialEnv"),
        (Counts(observation_space=None), "observation_space of gymnasium"),
        (Counts(observation_space=spaces.Dict(reward=Counts.observation_space)), "under names"),
    ],
)
def test_what_is_no_batch_simulator_is_refused(simulator, message):
    with pytest.raises(EnvError, match=message):
        BatchEnv(simulator)


def own(**changes):
    """A world with arrays of its own, of which some are changed."""
    world = Counts()
    arrays = {"observations": np.zeros((2, 1), np.float32), "rewards": np.zeros(2)}
    arrays |= {name: np.zeros(2, bool) for name in ("terminated", "truncated")}
    arrays |= changes

    def bind(given):
        world.arrays = BatchArrays(**arrays)
        return world.arrays

    world.bind = bind
    return world


def test_arrays_of_its_own_are_read_where_they_are():
    assert BatchEnv(own()).rollout(5, left)["next", "observation"][0].squeeze(-1).tolist() == [1, 2, 1, 2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((2, 2), np.float32)}, r"bind, arrays.observations: expected an array \[2, 1\]"),
        ({"observations": np.zeros((2, 1), np.float64)}, "of float32, got .*float64"),
        ({"observations": {"x": np.zeros((2, 1))}}, r"arrays.observations: .*got dict"),
        ({"terminated": np.zeros(2, np.uint8)}, r"arrays.terminated: .*view\(bool\)"),
        ({"truncated": None}, "the entries"),
    ],
)
def test_arrays_of_its_own_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(SpecError, match=message):
        BatchEnv(own(**changes))


def test_a_bind_that_returns_nothing_is_refused():
    world = Counts()
    world.bind = lambda arrays: None
    with pytest.raises(EnvError, match="bind: expected a BatchArrays, got NoneType"):
        BatchEnv(world)


def test_an_array_cannot_be_put_in_place_of_another():
    world = Counts()
    BatchEnv(world)
    world.arrays.rewards += 1
    with pytest.raises(EnvError, match=r"Write arrays.rewards\[:\] = "):
        world.arrays.rewards = np.ones(2)


def test_any_object_with_the_members_will_do():
    class Duck:
        num_envs, autoreset = 2, "disabled"
        observation_space, action_space = Counts.observation_space, Counts.action_space
        bind, reset = BatchSimulator.bind, Counts.reset

        def step(self, actions):
            self.arrays.observations += 1

    env = BatchEnv(Duck())
    assert env.rollout(4)["next", "observation"][:, -1].tolist() == [[4], [4]]
    assert env.step_limit == float("inf") and env.task == "" and env.restarts_rows
    with pytest.raises(EnvError, match="Duck: expected a simulator with render"):
        env.render()
    with pytest.raises(EnvError, match="Duck: expected a state to save"):
        env.state_dict()
    env.close()


def test_a_misspelt_method_is_refused():
    with pytest.raises(ConfigError, match="'restet'.*Did you mean 'reset'"):
        type("Wrong", (Counts,), {"restet": Counts.reset})


def test_pictures_and_limits_pass_through():
    env = BatchEnv(Walks(3, length=6))
    env.reset()
    assert env.render().shape == (3, 4, 4, 3) and env.step_limit == 6


def test_options_differ_from_row_to_row():
    env = BatchEnv(Counts())
    with pytest.raises(EnvError, match="BatchEnv: expected the same options in every row"):
        env.require_options([{"hard": 1}, {"hard": 2}])


@pytest.mark.parametrize("autoreset", ["disabled", "same_step"])
def test_a_collector_and_an_evaluator_take_it(autoreset):
    batch = Collector(BatchEnv(Walks(4, autoreset)), frames_per_batch=80, seed=0).collect()
    assert batch.batch_size == (4, 20) and batch["next", "done"].any()
    evaluation = Evaluator(BatchEnv(Counts(2, autoreset=autoreset)), num_episodes=4)(left)
    assert evaluation.lengths.tolist() == [2, 3, 2, 3]


def test_rows_alike_gymnasiums_one_by_one():
    """The same seeds and actions give the same steps as gymnasium's environments in a ``SerialEnv``."""
    import gymnasium

    def make():
        return gymnasium.make("CartPole-v1", max_episode_steps=9)

    runs = []
    for env in (BatchEnv(Gathered([make] * 3)), GymEnv("CartPole-v1", num_envs=3, max_episode_steps=9)):
        env.set_seed(2)
        runs.append(env.rollout(25))
    assert (runs[0] == runs[1]).all()
