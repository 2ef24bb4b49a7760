"""Returns-to-go before storage: values by hand, what has no end, masks."""

import pytest
import torch

from cases.padding import MASK
from cases.steps import make_batch
from fakes import CountingSimulator
from torchrl.collectors import Collector
from torchrl.data import MultiStep, Reward2Go
from torchrl.data.replay import ReplayBuffer, TensorStorage
from torchrl.envs import SerialEnv
from torchrl.errors import ConfigError, KeyMissing, SpecError


@pytest.mark.parametrize("ending", ["terminated", "truncated", "done"])
def test_sums_run_to_the_end_and_the_rest_is_masked(ending):
    result = Reward2Go(0.5)(make_batch(2, 5, **{ending: [2]}))
    assert result["reward_to_go"].squeeze(-1).tolist() == [[3, 4, 4, 0, 0]] * 2
    assert result[MASK].tolist() == [[True, True, True, False, False]] * 2


def test_endings_count_without_done():
    for ending in ("terminated", "truncated"):
        batch = make_batch(3, **{ending: [1]}).exclude(("next", "done"))
        assert Reward2Go(1)(batch)["reward_to_go"].flatten().tolist() == [3, 2, 0]


@pytest.mark.parametrize(("gamma", "sums"), [(0, [1, 2, 4, 8]), (1, [15, 14, 12, 8])])
def test_the_extremes_of_gamma(gamma, sums):
    assert Reward2Go(gamma)(make_batch(4, truncated=[3]))["reward_to_go"].flatten().tolist() == sums


def test_a_reset_in_mid_episode_has_no_end():
    result = Reward2Go(1)(make_batch(4, is_init=[2], terminated=[3]))
    assert result["reward_to_go"].flatten().tolist() == [0, 0, 12, 8]
    assert result[MASK].tolist() == [False, False, True, True]
    batch = make_batch(4, terminated=[3]).set(("collector", "traj_ids"), torch.tensor([0, 0, 1, 1]))
    assert Reward2Go(1)(batch)[MASK].tolist() == [False, False, True, True]


def test_a_masked_row_hides_the_end_and_reaches_nothing():
    result = Reward2Go(1)(make_batch(6, terminated=[5], masked=[2]))
    assert result["reward_to_go"].flatten().tolist() == [0, 0, 0, 56, 48, 32]
    assert result[MASK].tolist() == [False, False, False, True, True, True]


def test_two_rewards_with_a_discount_each_under_another_key():
    batch = make_batch(2, 3, 4, truncated=[3])
    batch["next", "reward"] = batch["next", "reward"].repeat_interleave(2, -1)
    result = Reward2Go(torch.tensor([1.0, 0.5]), out_key=("extra", "sum"))(batch)
    assert result["extra", "sum"].shape == (2, 3, 4, 2) and "reward_to_go" not in result.keys()
    assert result["extra", "sum"][0, 0].T.tolist() == [[15, 14, 12, 8], [4, 6, 8, 8]]


def test_the_batch_is_not_written_to():
    batch = make_batch(2, 6, terminated=[1], masked=[4])
    before = batch.clone()
    Reward2Go(0.5)(batch.lock_())
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    assert batch[MASK].all(0).tolist() == [True] * 4 + [False, True]


def test_a_buffer_stores_the_rows_that_have_a_sum():
    buffer = ReplayBuffer(TensorStorage(20), batch_size=8, seed=0)
    buffer.extend(Reward2Go(1)(make_batch(2, 4, terminated=[2])))
    assert len(buffer) == 6
    assert set(buffer.sample()["reward_to_go"].flatten().tolist()) <= {7, 6, 4}


def test_as_postproc_of_a_collector():
    """Episodes of 3 and 5 steps, each of which pays its own number at every step."""
    env = SerialEnv([lambda: CountingSimulator(length=3), lambda: CountingSimulator(length=5, ending="truncated")])
    collector = Collector(env, frames_per_batch=16, total_frames=32, seed=0, postproc=Reward2Go(1.0))
    first, second = collector
    together = torch.cat([first, second], dim=1)
    episode = together["next", "reward"].squeeze(-1)
    step = together["next", "observation"].squeeze(-1)
    left = torch.tensor([[3.0], [5.0]]) - step + 1  # steps from this one to the end of its episode
    mask = together[MASK]
    assert torch.equal(together["reward_to_go"].squeeze(-1)[mask], (episode * left)[mask])
    # What begins after the last ending in a batch runs over its edge; what began in the batch before does not.
    assert mask[:, :8].tolist() == [[True] * 6 + [False] * 2, [True] * 5 + [False] * 3]
    assert mask[:, 8:].tolist() == [[True] * 7 + [False], [True] * 7 + [False]]


def test_mistakes_are_refused():
    with pytest.raises(ConfigError, match="Reward2Go: expected gamma, a number between 0 and 1, got 2"):
        Reward2Go(2)
    with pytest.raises(KeyMissing, match="Reward2Go: expected the key .*truncated"):
        Reward2Go(1)(make_batch(3).exclude(("next", "truncated")))
    with pytest.raises(SpecError, match="Reward2Go: expected single transitions"):
        Reward2Go(1)(MultiStep(2, 0.5)(make_batch(3)))
