"""A2C reaches known scores."""

import pytest

from cases.runs import train_seeds

pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]


def test_cartpole_is_solved_by_three_of_three_seeds(tmp_path):
    for summary, _ in train_seeds("a2c", "cartpole", 3, tmp_path, "--eval_episodes=100"):
        assert summary["frames"] <= 500_000
        assert summary["best_eval_return_mean"] >= 475  # the best checkpoint, evaluated again on other starts
