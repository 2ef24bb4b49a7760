"""REINFORCE reaches a known score."""

import pytest

from cases.runs import train_seeds

pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]


def test_cartpole_is_learned_by_two_of_three_seeds(tmp_path):
    runs = train_seeds("reinforce", "cartpole", 3, tmp_path, "--eval_episodes=100")
    assert all(summary["frames"] <= 500_000 for summary, _ in runs)
    assert sum(summary["eval_return_mean"] >= 450 for summary, _ in runs) >= 2
