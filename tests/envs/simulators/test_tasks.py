"""The id of the task that simulators are of."""

import gymnasium
import pytest

from fakes import CountingSimulator
from torchrl.envs.simulators import FrameSkip, gym_simulator
from torchrl.envs.simulators.tasks import task_of


@pytest.mark.parametrize(
    ("simulators", "task"),
    [
        ([gymnasium.make("CartPole-v1"), gym_simulator("CartPole-v1")], "CartPole-v1"),
        ([FrameSkip(gym_simulator("gymnasium:Pendulum-v1"), 2)], "Pendulum-v1"),
        ([gymnasium.make("CartPole-v1"), gymnasium.make("Pendulum-v1")], ""),
        ([gymnasium.make("CartPole-v1"), CountingSimulator()], ""),
        ([CountingSimulator()], ""),
        ([object()], ""),
    ],
)
def test_it_is_the_one_id_of_all_of_them(simulators, task):
    assert task_of(simulators) == task
