"""Policies of options reach known scores."""

import pytest

from cases.runs import train_seeds
from torchrl.envs import FourRooms

pytestmark = [pytest.mark.learn, pytest.mark.timeout(1800)]


def test_four_rooms_are_crossed_almost_by_the_shortest_ways_by_three_of_three_seeds(tmp_path):
    for summary, _ in train_seeds("hierarchical", "four_rooms", 3, tmp_path, "--eval_episodes=100"):
        assert summary["frames"] == 100_352
        assert summary["best_eval_return_mean"] >= FourRooms().best_return - 1


def test_cartpole_is_solved_by_two_options_and_three_of_three_seeds(tmp_path):
    for summary, _ in train_seeds("hierarchical", "cartpole", 3, tmp_path, "--eval_episodes=100"):
        assert summary["frames"] == 100_096
        assert summary["best_eval_return_mean"] >= 475  # the best checkpoint, evaluated again on other starts
