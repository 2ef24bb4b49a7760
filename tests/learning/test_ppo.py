"""PPO reaches known scores: `make learn`, minutes to an hour; curves and commands are kept in docs/results.md."""

from statistics import mean

import pytest

from cases.runs import train, train_seeds

pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]
HUNDRED = "--eval_episodes=100"  # from fixed start seeds that chose no checkpoint


def test_cartpole_is_solved_by_five_of_five_seeds(tmp_path):
    for summary, _ in train_seeds("ppo", "cartpole", 5, tmp_path):
        assert summary["frames"] <= 100_352  # 100,000 rounded up to whole batches
        assert summary["eval_return_mean"] >= 475
        assert summary["collect_seconds"] + summary["optimise_seconds"] < 60


def test_halfcheetah_reaches_3000_within_a_million_frames(tmp_path):
    runs = train_seeds("ppo", "halfcheetah", 3, tmp_path)
    assert mean(summary["eval_return_mean"] for summary, _ in runs) >= 3000


def test_dm_control_cheetah_rises_within_a_million_frames(tmp_path):
    summary, table = train("ppo", "cheetah", 0, tmp_path / "0")
    returns = [value for value in table["train/episode_return"] if value == value]
    early, late = mean(returns[:10]), mean(returns[-10:])
    assert late > 4 * early and summary["eval_return_mean"] > 100


@pytest.mark.parametrize(
    ("config", "score", "frames"),
    [
        ("acrobot", -85, 1_000_000),
        ("lunarlander", 200, 1_000_000),
        ("pendulum", -185, 300_000),
        ("matching", 15, 50_000),
    ],
)
def test_three_seeds_reach_a_mean_return(config, score, frames, tmp_path):
    runs = train_seeds("ppo", config, 3, tmp_path, HUNDRED)
    assert all(summary["frames"] <= frames for summary, _ in runs)
    assert mean(summary["eval_return_mean"] for summary, _ in runs) >= score


def test_the_adaptive_penalty_solves_cartpole_too(tmp_path):
    summary, _ = train("ppo", "cartpole", 0, tmp_path / "0", "--objective=kl_penalty")
    assert summary["best_eval_return_mean"] >= 475
