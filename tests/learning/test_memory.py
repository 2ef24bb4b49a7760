"""Policies with memory solve what none without memory can: see docs/results.md for curves and commands."""

import pytest

from cases.runs import train, train_seeds

pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]


def test_cartpole_without_velocities_is_solved_by_an_lstm(tmp_path):
    for summary, _ in train_seeds("ppo", "cartpole_memory", 3, tmp_path):
        assert summary["frames"] <= 300_032  # 300,000 rounded up to whole batches
        assert summary["best_eval_return_mean"] >= 450


def test_and_not_without(tmp_path):
    summary, table = train("ppo", "cartpole_memory", 0, tmp_path / "0", "--memory=none")
    assert summary["best_eval_return_mean"] < 200
    assert max(table["eval/return_mean"]) < 200


@pytest.mark.parametrize("flags", [["--memory=lstm"], ["--memory=transformer", "--orthogonal_init"]])
def test_the_sign_of_a_t_maze_is_remembered(flags, tmp_path):
    for summary, _ in train_seeds("ppo", "tmaze", 3, tmp_path, *flags):
        assert summary["best_eval_return_mean"] >= 0.95 * 4 + 0.05 * -0.1  # 95 % turn to the right side
