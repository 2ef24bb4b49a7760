import pytest
import torch
from tensordict import TensorDict

from fakes import CountingSimulator
from torchrl.collectors import Collector
from torchrl.envs import SerialEnv
from torchrl.errors import ConfigError, KeyMissing
from torchrl.functional import discounted_return
from torchrl.objectives import DiscountedReturn, Loss, Reward2Go, next_values

MASK = ("collector", "mask")


def series(rewards, terminated=(), truncated=(), is_init=()):
    """One lane; flags are given by the rows at which they are set."""
    length = len(rewards)

    def flags(at):
        flag = torch.zeros(1, length, 1, dtype=torch.bool)
        flag[0, list(at)] = True
        return flag

    after = {"terminated": flags(terminated), "truncated": flags(truncated)}
    after["reward"] = torch.tensor(rewards).reshape(1, length, 1)
    return TensorDict({"is_init": flags(is_init), "next": after}, batch_size=[1, length])


class TestDiscountedReturn:
    def test_without_a_critic_by_hand(self):
        """Three episodes: over, cut by a time limit, and running over the edge, which has no return."""
        batch = series([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], terminated=[1], truncated=[4], is_init=[0, 2, 5])
        DiscountedReturn(gamma=0.5)(batch)
        assert batch["value_target"].flatten().tolist() == [2.0, 2.0, 12.0, 16.0, 16.0, 0.0]
        assert torch.equal(batch["advantage"], batch["value_target"]) and "state_value" not in batch
        assert batch[MASK].tolist() == [[True, True, True, True, True, False]]

    def test_a_reset_in_mid_episode_leaves_no_return(self):
        batch = series([1.0, 2.0, 4.0, 8.0], terminated=[3], is_init=[0, 2])
        DiscountedReturn(gamma=0.5)(batch)
        assert batch["value_target"].flatten().tolist() == [0.0, 0.0, 8.0, 8.0]
        assert batch[MASK].tolist() == [[False, False, True, True]]

    def test_a_batch_in_which_nothing_ends(self):
        batch = DiscountedReturn(standardize=True)(series([1.0, 2.0]))
        assert not batch[MASK].any() and (batch["advantage"] == 0).all()

    def test_masks_only_narrow(self):
        """What was excluded before stays so, though its episode ends; the mask that came is not written to."""
        batch = series([1.0, 2.0, 4.0, 8.0], terminated=[3])
        batch[MASK] = mask = torch.tensor([[True, False, True, True]])
        DiscountedReturn(gamma=0.5)(batch)
        assert batch[MASK].tolist() == [[False, False, True, True]]
        assert mask.tolist() == [[True, False, True, True]]

    def test_other_facts_of_the_collector_stay(self):
        batch = series([1.0, 2.0], terminated=[0])
        batch["collector", "traj_ids"] = torch.tensor([[3, 4]])
        DiscountedReturn()(batch)
        assert batch["collector", "traj_ids"].tolist() == [[3, 4]] and MASK in batch.keys(True)

    def test_with_a_critic_it_is_the_pure_function_with_values_at_the_ends(self, make_critic, make_series):
        batch, critic = make_series(3, 20), make_critic()
        value, next_value = next_values(critic, batch)
        DiscountedReturn(critic, gamma=0.9)(batch)
        names = ("reward", "terminated", "truncated")
        expected = discounted_return(**{name: batch["next", name] for name in names}, gamma=0.9, next_value=next_value)
        torch.testing.assert_close(batch["value_target"], expected)
        torch.testing.assert_close(batch["advantage"], expected - value)
        torch.testing.assert_close(batch["state_value"], value)
        assert MASK not in batch.keys(True)

    def test_a_loss_sees_whole_returns_only(self, make_series):
        batch = DiscountedReturn()(make_series(3, 20))
        mask = batch[MASK]
        assert 0 < mask.sum() < 60
        torch.testing.assert_close(MeanAdvantage()(batch)["loss_mean"], batch["value_target"][mask].mean())


class MeanAdvantage(Loss):
    """The least that a loss can be."""

    def __init__(self):
        super().__init__(in_keys=["advantage"], trained=[])

    def terms(self, rows):
        return {"loss_mean": rows["advantage"].mean()}


class TestReward2Go:
    def test_by_hand(self):
        batch = series([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], terminated=[1], truncated=[4], is_init=[0, 2, 5])
        assert Reward2Go(0.5)(batch) is batch
        assert batch["reward_to_go"].flatten().tolist() == [2.0, 2.0, 12.0, 16.0, 16.0, 0.0]
        assert batch[MASK].tolist() == [[True, True, True, True, True, False]]

    def test_as_postproc_of_a_collector(self):
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

    def test_several_rewards_under_another_key(self):
        batch = series([1.0, 2.0, 4.0], terminated=[2])
        batch["next", "reward"] = torch.cat([batch["next", "reward"], torch.ones(1, 3, 1)], dim=-1)
        Reward2Go(torch.tensor([1.0, 0.5]), out_key=("returns", "whole"))(batch)
        assert batch["returns", "whole"].tolist() == [[[7.0, 1.75], [6.0, 1.5], [4.0, 1.0]]]

    def test_rows_that_were_masked_reach_nothing(self):
        batch = series([1.0, float("nan"), 4.0, 8.0], terminated=[3])
        batch[MASK] = torch.tensor([[True, False, True, True]])
        Reward2Go(0.5)(batch)
        assert batch["reward_to_go"].flatten().tolist() == [0.0, 0.0, 8.0, 8.0]

    def test_mistakes(self):
        with pytest.raises(ConfigError, match="Reward2Go.*gamma between 0 and 1, got 2"):
            Reward2Go(2)
        with pytest.raises(KeyMissing, match="reward"):
            Reward2Go(1.0)(series([1.0]).exclude(("next", "reward")))
