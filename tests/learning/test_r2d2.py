"""Recurrent DQN on slices of replay repeats what was shown some steps ago."""

import pytest

from cases.runs import train_seeds
from torchrl.envs.native import RepeatPrevious

pytestmark = [pytest.mark.learn, pytest.mark.timeout(7200)]


def test_three_of_three_seeds_repeat_for_nine_tenths_of_the_best_return(tmp_path):
    best = RepeatPrevious().best_return
    for summary, _ in train_seeds("r2d2", "repeat", 3, tmp_path, "--eval_episodes=100"):
        assert summary["best_eval_return_mean"] >= 0.9 * best  # the best checkpoint, evaluated again on other starts
