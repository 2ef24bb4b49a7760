"""Algorithms with replay reach known scores: `make learn`; curves and commands are kept in docs/results.md."""

from importlib.metadata import version
from statistics import mean

import pytest

from cases.runs import success_rate, train, train_seeds

pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]
HUNDRED = "--eval_episodes=100"  # from fixed start seeds that chose no checkpoint


def best_of(runs):
    return [summary["best_eval_return_mean"] for summary, _ in runs]


@pytest.mark.parametrize("config", ["cartpole", "cartpole_rainbow"])
def test_dqn_solves_cartpole_with_four_of_five_seeds(config, tmp_path):
    runs = train_seeds("dqn", config, 5, tmp_path, HUNDRED)
    assert all(summary["frames"] <= 50_304 for summary, _ in runs)  # 50,000 rounded up to whole batches
    assert sum(value >= 475 for value in best_of(runs)) >= 4


def test_dqn_lands_within_100000_frames(tmp_path):
    runs = train_seeds("dqn", "lunarlander", 3, tmp_path, HUNDRED)
    assert all(summary["frames"] <= 100_000 for summary, _ in runs)
    assert mean(best_of(runs)) >= 100


@pytest.mark.parametrize(("algorithm", "frames"), [("sac", 20_000), ("td3", 20_000), ("ddpg", 20_000), ("redq", 5_000)])
def test_pendulum_is_swung_up(algorithm, frames, tmp_path):
    runs = train_seeds(algorithm, "pendulum", 3, tmp_path, HUNDRED)
    assert all(summary["frames"] <= frames for summary, _ in runs)
    assert mean(summary["eval_return_mean"] for summary, _ in runs) >= -175


def test_sac_of_choices_solves_cartpole_with_two_of_three_seeds(tmp_path):
    runs = train_seeds("sac", "cartpole", 3, tmp_path, HUNDRED)
    assert all(summary["frames"] <= 50_000 for summary, _ in runs)
    assert sum(value >= 450 for value in best_of(runs)) >= 2


def test_sac_runs_the_halfcheetah_within_200000_frames(tmp_path):
    summary, _ = train("sac", "halfcheetah", 0, tmp_path / "0", HUNDRED)
    assert summary["frames"] <= 200_000 and summary["eval_return_mean"] >= 4000


def test_noise_that_depends_on_the_state_swings_the_pendulum_up(tmp_path):
    runs = train_seeds("sac", "pendulum", 3, tmp_path, HUNDRED, "--gsde", "--gsde_every=8")
    assert mean(summary["eval_return_mean"] for summary, _ in runs) >= -175


def test_dqn_swings_the_acrobot_up_within_100000_frames(tmp_path):
    runs = train_seeds("dqn", "acrobot", 3, tmp_path, HUNDRED)
    assert all(summary["frames"] <= 100_000 for summary, _ in runs)
    assert mean(summary["eval_return_mean"] for summary, _ in runs) >= -90


def test_dqn_learns_from_pictures(tmp_path):
    summary, _ = train("dqn", "cartpole_pixels", 0, tmp_path / "0", HUNDRED)
    assert summary["eval_return_mean"] >= 60  # 20 at the beginning


def test_hindsight_reaches_the_goal_in_nine_of_ten_episodes(tmp_path):
    """An episode is a success if its last step is at the goal, where the reward is 0."""
    pytest.importorskip("gymnasium_robotics")
    if tuple(map(int, version("mujoco").split(".")[:2])) >= (3, 12):
        pytest.skip("gymnasium-robotics 1.4.2 builds its arms with mujoco below 3.12")
    train("sac", "fetch_reach", 0, tmp_path / "0", HUNDRED)
    (folder,) = (tmp_path / "0" / "sac_logging").iterdir()
    assert success_rate(folder) >= 0.9
