import torch
from tensordict import TensorDict

from torchrl.functional import discounted_return
from torchrl.objectives import DiscountedReturn, Loss, next_values

MASK = ("collector", "mask")


def series(rewards, terminated=(), truncated=(), is_init=()):
    """One row; flags are given by the rows at which they are set."""
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
