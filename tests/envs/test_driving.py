"""One environment, one driver: a second is refused by name, a hand is noticed, and who is gone lets go."""

import copy
import gc
import warnings

import gymnasium
import pytest
import torch

from cases.torch_worlds import Counter
from fakes import CountingEnv, CountingSimulator
from torchrl.agents import Evaluator
from torchrl.collectors import Collector, EpisodeCollector, rollout
from torchrl.envs import GymEnv, GymVectorEnv, SerialEnv, TransformedEnv
from torchrl.envs.transforms import StepCounter
from torchrl.errors import EnvError


def counting(length=9, num_envs=2):
    return SerialEnv(lambda: CountingSimulator(length=length), num_envs)


DRIVERS = {
    "Collector": lambda env: Collector(env, frames_per_batch=4),
    "EpisodeCollector": lambda env: EpisodeCollector(env, num_episodes=2, finished="restart"),
    "rollout": lambda env: rollout(env, n_steps=2),
    "Evaluator": lambda env: Evaluator(env, num_episodes=2),
}


@pytest.mark.parametrize("second", DRIVERS)
@pytest.mark.parametrize("first", DRIVERS)
def test_a_second_driver_is_refused_and_both_are_named(first, second):
    env = counting()
    driver = DRIVERS[first](env)
    message = f"{second}: expected an environment that nothing else steps, got a SerialEnv that {first} steps"
    with pytest.raises(EnvError, match=message):
        DRIVERS[second](env)
    del driver
    DRIVERS[second](env)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_that_is_closed_or_deleted_lets_go(name):
    env = counting()
    driver = DRIVERS[name](env)
    (driver.shutdown if hasattr(driver, "shutdown") else driver.close)()
    again = DRIVERS[name](env)
    del again
    circle = [DRIVERS[name](env)]
    circle.append(circle)
    del circle
    DRIVERS[name](env)


def test_a_transformed_environment_is_the_one_below():
    env = counting()
    one, other = TransformedEnv(env, StepCounter()), TransformedEnv(env, StepCounter(out_key="steps"))
    collector = Collector(TransformedEnv(one, StepCounter(out_key="more")), frames_per_batch=4)
    for taken in (env, one, other):
        with pytest.raises(EnvError, match="Evaluator: .* that Collector steps"):
            Evaluator(taken)
    with pytest.raises(EnvError, match="TransformedEnv: .* that Collector steps"):
        TransformedEnv(env, StepCounter())
    del collector
    Evaluator(other)


def test_a_simulator_in_two_environments_has_one_driver():
    world = CountingEnv()
    collector = Collector(GymEnv(world), frames_per_batch=4)
    with pytest.raises(EnvError, match="Evaluator: .* that Collector steps"):
        Evaluator(GymEnv(gymnasium.wrappers.TimeLimit(world, 5)))
    vector = gymnasium.vector.SyncVectorEnv([CountingEnv])
    evaluator = Evaluator(GymVectorEnv(vector))
    with pytest.raises(EnvError, match="rollout: .* that Evaluator steps"):
        rollout(GymVectorEnv(gymnasium.wrappers.vector.RecordEpisodeStatistics(vector)), n_steps=2)
    del collector, evaluator
    collector = Collector(GymEnv(world), frames_per_batch=4)
    with pytest.raises(EnvError, match="Evaluator: .* that Collector steps"):
        Evaluator(GymVectorEnv(gymnasium.vector.SyncVectorEnv([lambda: gymnasium.wrappers.TimeLimit(world, 5)])))
    del collector


def test_simulators_written_in_torch_are_driven_as_simulators_are():
    serial = SerialEnv(lambda: Counter(batch_size=()), 2)
    env = TransformedEnv(serial, StepCounter())
    collector = Collector(env, frames_per_batch=4)
    assert collector.collect().shape == (2, 2)
    with pytest.raises(EnvError, match="Evaluator: .* that Collector steps"):
        Evaluator(serial)
    one = Counter(batch_size=()).as_simulator()
    collector = Collector(SerialEnv(lambda: one, 1), frames_per_batch=4)
    with pytest.raises(EnvError, match="Evaluator: .* that Collector steps"):
        Evaluator(SerialEnv(lambda: one, 1))


def test_a_copy_is_another_environment():
    env = counting()
    collector = Collector(env, frames_per_batch=4)
    Evaluator(copy.deepcopy(env))
    del collector


def test_an_environment_that_is_driven_serves_in_no_row_and_stays_open():
    env = Counter(batch_size=())
    collector = Collector(env, frames_per_batch=2)
    with pytest.raises(EnvError, match="SerialEnv: .* that Collector steps"):
        SerialEnv(lambda: env, 2)
    collector.collect()
    del collector
    with pytest.raises(EnvError, match="SerialEnv: .* that as_simulator steps"):
        SerialEnv(lambda: env, 2)


def refused_construction(env):
    with pytest.raises(Exception, match="frames_per_batch"):
        Collector(env, frames_per_batch=3)


def test_a_driver_that_could_not_be_built_takes_nothing():
    env = counting()
    refused_construction(env)
    gc.disable()
    try:
        Evaluator(env)
    finally:
        gc.enable()


HANDS = {
    "reset": lambda env: env.reset(),
    "a part": lambda env: env.reset(torch.tensor([True, False])),
    "rollout": lambda env: env.rollout(2),
    "step": lambda env: env.step(env.act_at_random(env._root())),
    "step_and_reset": lambda env: env.step_and_reset(env.act_at_random(env._root())),
    "freeze": lambda env: env.freeze_(torch.tensor([True, False])),
    "load": lambda env: env.load_state_dict(env.state_dict()),
    "through a transform": lambda env: TransformedEnv.reset(env.seen),
}


@pytest.mark.parametrize("hand", HANDS)
def test_a_hand_between_two_batches_is_noticed_and_new_episodes_begin(hand):
    env = counting()
    env.seen = TransformedEnv(env, StepCounter())
    collector = Collector(env, frames_per_batch=6)
    first = collector.collect()
    HANDS[hand](env)
    with pytest.warns(UserWarning, match="Collector: its environment was reset or stepped by hand"):
        second = collector.collect()
    assert second["observation"].squeeze(-1).tolist() == [[0, 1, 2]] * 2
    assert second["is_init"].squeeze(-1).int().tolist() == [[1, 0, 0]] * 2
    assert second["collector", "traj_ids"].min() > first["collector", "traj_ids"].max()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert collector.collect()["observation"].squeeze(-1).tolist() == [[3, 4, 5]] * 2


def test_the_other_collectors_notice_a_hand_as_well():
    env = counting(3)
    collector = EpisodeCollector(env, num_episodes=1, finished="restart")
    collector.collect()
    env.rollout(1)
    with pytest.warns(UserWarning, match="EpisodeCollector: its environment"):
        assert collector.collect()["observation"].squeeze(-1).tolist() == [[0, 1, 2]]
    env = counting(9)
    stream = rollout(env, n_steps=2)
    next(stream)
    env.rollout(1)
    with pytest.warns(UserWarning, match="rollout: its environment"):
        batch, last = next(stream)
    assert batch["observation"].squeeze(-1).tolist() == [[0, 1]] * 2
    assert last["observation"].flatten().tolist() == [2, 2]


def test_what_a_hand_moved_is_not_saved_as_if_it_stood_there():
    env = counting()
    collector = Collector(env, frames_per_batch=6)
    collector.collect()
    env.rollout(1)
    with pytest.warns(UserWarning, match="by hand"):
        state = collector.state_dict()
    other = Collector(counting(), frames_per_batch=6)
    other.load_state_dict(state)
    assert other.collect()["observation"].squeeze(-1).tolist() == [[0, 1, 2]] * 2


def test_a_collector_that_resets_or_goes_on_by_itself_is_no_hand():
    collector = Collector(counting(), frames_per_batch=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collector.collect()
        collector.load_state_dict(collector.state_dict())
        assert collector.collect()["observation"].squeeze(-1).tolist() == [[3, 4, 5]] * 2
        collector.reset()
        assert collector.collect()["observation"].squeeze(-1).tolist() == [[0, 1, 2]] * 2
