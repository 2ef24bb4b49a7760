"""What a worker does for single rows: options of their own, and rows that wait."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from fakes import CountingEnv, CountingSimulator
from torchrl.envs.vector.buffers import allocate
from torchrl.envs.vector.gym_vector_worker import VectorWorker
from torchrl.envs.vector.worker import SimulatorWorker
from torchrl.errors import EnvError


class Told(CountingSimulator):
    """Remembers the options of every reset."""

    def __init__(self, length=3):
        super().__init__(length)
        self.told = []

    def reset(self, *, seed=None, options=None):
        self.told.append(options)
        return super().reset(seed=seed, options=options)


def worker_of(*simulators):
    return SimulatorWorker(simulators, allocate(simulators[0].observation_space, len(simulators)))


def actions(worker):
    return np.zeros(len(worker.simulators), np.int64)


def columns(worker, *keys):
    return [worker.buffers.next[key][:, 0].tolist() for key in keys]


def test_options_are_for_all_rows_or_one_for_each_that_restarts():
    worker = worker_of(Told(), Told(), Told())
    worker.restart([0, 1, 2], None, {"level": 1})
    worker.restart([2, 0], None, [{"level": 2}, None])
    worker.restart([1], [7])
    assert [simulator.told for simulator in worker.simulators] == [
        [{"level": 1}, None],
        [{"level": 1}, None],
        [{"level": 1}, {"level": 2}],
    ]


def test_a_frozen_row_repeats_its_last_observation_until_it_restarts():
    worker = worker_of(CountingSimulator(9), CountingSimulator(9))
    worker.restart([0, 1], [0, 0])
    worker.restart([1])  # episode 1, whose reward is 1
    worker.advance(actions(worker))
    worker.freeze([1])
    for step in (2, 3):
        assert not worker.advance(actions(worker))
        assert columns(worker, "observation", "reward") == [[step, 1], [0, 0]]
        assert columns(worker, "episode_length", "episode_return") == [[step, 1], [0, 1]]
    assert worker.root["observation"].tolist() == [[3], [1]]
    assert [simulator.num_steps for simulator in worker.simulators] == [3, 1]
    worker.restart([1])
    worker.advance(actions(worker))
    assert columns(worker, "observation", "reward", "episode_length") == [[4, 1], [0, 2], [4, 1]]


def test_a_row_may_be_frozen_before_its_first_step():
    worker = worker_of(CountingSimulator(9), CountingSimulator(9))
    worker.restart([0, 1])
    worker.advance(actions(worker))
    worker.restart([0])
    worker.freeze([0])
    worker.advance(actions(worker))
    assert columns(worker, "observation") == [[0, 2]]


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_a_frozen_row_that_had_ended_waits_for_no_restart(ending):
    worker = worker_of(CountingSimulator(2, ending=ending), CountingSimulator(3, ending=ending))
    worker.restart([0, 1])
    worker.advance(actions(worker))
    assert worker.advance(actions(worker)) and worker.ended() == [0]
    with pytest.raises(EnvError, match=r"rows \[0\]"):
        worker.advance(actions(worker))
    worker.freeze([0])
    assert worker.ended() == []
    assert worker.advance(actions(worker)) and worker.ended() == [1]
    assert columns(worker, "observation", "done", "terminated", "truncated") == [
        [2, 3],
        [False, True],
        [False, ending == "terminated"],
        [False, ending == "truncated"],
    ]
    with pytest.raises(EnvError, match=r"rows \[1\]"):
        worker.advance(actions(worker))


@pytest.mark.parametrize("form", ["dict", "tuple"])
def test_a_frozen_row_repeats_every_part_of_its_observation(form):
    worker = worker_of(CountingEnv(9, form=form), CountingEnv(9, form=form))
    worker.restart([0, 1], [0, 0])
    worker.restart([1])
    worker.advance(actions(worker))
    worker.freeze([1])
    worker.advance(actions(worker))
    outcome = worker.buffers.next
    index, episode = (outcome["deep"]["index"], outcome["episode"]) if form == "dict" else (outcome["0"], outcome["1"])
    assert index.tolist() == [[2], [1]] and episode.tolist() == [0, 1]


def test_a_state_keeps_which_rows_are_frozen():
    worker = worker_of(CountingSimulator(9), CountingSimulator(2))
    worker.restart([0, 1])
    worker.advance(actions(worker))
    worker.advance(actions(worker))
    worker.freeze([1])
    state = worker.get_state()
    other = worker_of(CountingSimulator(9), CountingSimulator(2))
    other.restart([0, 1])
    other.freeze([0])
    other.set_state(state)
    for one in (worker, other):
        one.advance(actions(one))
        assert columns(one, "observation", "episode_length", "done") == [[3, 2], [3, 2], [False, False]]
        one.restart([1])
        one.advance(actions(one))
        assert columns(one, "observation") == [[4, 1]]


def vector_worker():
    vector_env = SyncVectorEnv([lambda: CountingEnv(9)] * 2, autoreset_mode=AutoresetMode.DISABLED)
    return VectorWorker(vector_env, AutoresetMode.DISABLED, (), allocate(vector_env.single_observation_space, 2))


def test_a_vector_environment_takes_options_that_are_alike():
    worker = vector_worker()
    worker.restart([0, 1], None, [{"at": np.arange(2)}, {"at": np.arange(2)}])
    worker.restart([0, 1], None, [None, None])
    with pytest.raises(EnvError, match="GymVectorEnv: expected the same options in every row"):
        worker.restart([0, 1], None, [{"at": np.arange(2)}, {"at": np.ones(2)}])
