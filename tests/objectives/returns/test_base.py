import pytest
import torch
from tensordict import TensorDict

from torchrl.errors import KeyMissing, SpecError
from torchrl.objectives import GAE, TD0, next_values

ESTIMATORS = [GAE, TD0]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
WRITTEN = ("state_value", "advantage", "value_target")


def double_evaluation(critic, batch):
    """What ``next_values`` saves: the critic once on every row and once on every successor."""
    value = critic(batch.select("observation"))["state_value"]
    next_value = critic(batch["next"].select("observation"))["state_value"]
    return value.detach(), next_value.detach()


def masked(batch, mask):
    """Add a mask, and put NaN wherever it is false."""
    batch = batch.clone()
    for key in ("observation", ("next", "observation"), ("next", "reward")):
        batch[key][~mask] = float("nan")
    batch["collector", "mask"] = mask
    return batch


class TestNextValues:
    @pytest.mark.parametrize("shape", [(1,), (7,), (3, 1), (3, 40), (2, 3, 5)])
    @pytest.mark.parametrize("without", [[], ["is_init"]])
    def test_equals_the_double_evaluation_with_far_fewer_rows(self, make_critic, make_series, shape, without):
        batch, critic = make_series(*shape).exclude(*without), make_critic()
        expected = double_evaluation(critic, batch)
        critic.rows = 0
        got = next_values(critic, batch)
        torch.testing.assert_close(got, expected)
        alone = batch["next", "done"].clone()
        alone[..., -1, :] = True
        assert critic.rows == batch.numel() + alone.sum()
        assert not any(value.requires_grad for value in got)

    def test_reset_in_mid_episode_sets_no_flag(self, make_critic, make_series):
        """A user resets after row 1: the successor of row 1 is not row 2, whose ``is_init`` alone tells so."""
        batch, critic = make_series(1, 5, ending=0.0), make_critic()
        batch["next", "observation"][0, 1] = 7.0
        batch["is_init"][0, 2] = True
        expected = double_evaluation(critic, batch)
        critic.rows = 0
        torch.testing.assert_close(next_values(critic, batch), expected)
        assert critic.rows == 5 + 2

    def test_masked_rows(self, make_critic, make_series):
        """Rows before a masked one are evaluated at their own successor; masked rows are not shown to the critic."""
        batch, critic = make_series(2, 6, ending=0.0), make_critic()
        value, next_value = double_evaluation(critic, batch)
        critic.rows = 0
        mask = torch.tensor([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 1]], dtype=torch.bool)
        got_value, got_next = next_values(critic, masked(batch, mask))
        torch.testing.assert_close(got_value[mask], value[mask])
        torch.testing.assert_close(got_next[mask], next_value[mask])
        assert (got_value[~mask] == 0).all() and (got_next[~mask] == 0).all()
        assert critic.rows == 9 + 3  # 9 valid rows; before each of two masked ones, and at the edge of the second lane

    def test_reads_the_keys_of_the_critic_and_writes_nothing(self, make_critic, make_series):
        batch = make_series(2, 4)
        expected = next_values(make := make_critic(), batch)
        renamed = batch.clone()
        for place in (renamed, renamed["next"]):
            place["sensors", "joints"] = place.pop("observation")
        kept = renamed.clone()
        critic = make_critic(make.network, in_keys=[("sensors", "joints")], out_keys=[("values", "state")])
        torch.testing.assert_close(next_values(critic, renamed), expected)
        assert (renamed == kept).all() and set(renamed.keys(True)) == set(kept.keys(True))

    @pytest.mark.parametrize(
        "key", ["observation", ("next", "observation"), ("next", "terminated"), ("next", "truncated")]
    )
    def test_missing_key(self, make_critic, make_series, key):
        batch = make_series(2, 4).exclude(key)
        with pytest.raises(KeyMissing) as error:
            next_values(make_critic(), batch)
        assert repr(key) in str(error.value)

    def test_mistakes_in_shape(self, make_critic, make_series):
        with pytest.raises(SpecError, match="time last"):
            next_values(make_critic(), make_series(4)[0])
        with pytest.raises(SpecError, match=r"\[2, 4, 1\] from the critic, got \[2, 4, 3\]"):
            next_values(make_critic(torch.nn.Linear(4, 3)), make_series(2, 4))


@each_estimator
class TestEveryEstimator:
    def test_writes_its_keys_and_nothing_else(self, estimator, make_critic, make_series):
        batch = make_series(3, 8)
        kept = batch.clone()
        assert estimator(make_critic())(batch) is batch
        for key in WRITTEN:
            assert batch[key].shape == (3, 8, 1) and not batch[key].requires_grad
        assert (batch.exclude(*WRITTEN) == kept).all()
        assert set(batch.keys(True)) == set(kept.keys(True)) | set(WRITTEN)

    def test_concatenated_trajectories_equal_each_alone(self, estimator, make_critic, make_series):
        """Alone, a trajectory ends with the data; together, its flag is all that tells where it ends."""
        estimator = estimator(make_critic(), gamma=0.9)
        alone = [make_series(1, length, seed=length, ending=0.0).exclude("is_init") for length in (1, 4, 9, 2, 3)]
        flags = [("terminated",), ("truncated",), ("terminated", "truncated"), ("truncated",), ()]
        for batch, ending in zip(alone, flags, strict=True):
            for name in ending:
                batch["next", name][:, -1] = True
        together = estimator(torch.cat(alone, dim=1))
        separate = torch.cat([estimator(batch) for batch in alone], dim=1)
        for key in WRITTEN:
            torch.testing.assert_close(together[key], separate[key])

    def test_reset_in_mid_episode_is_an_edge(self, estimator, make_critic, make_series):
        estimator = estimator(make_critic())
        first, second = make_series(2, 4, seed=1, ending=0.0), make_series(2, 5, seed=2, ending=0.0)
        together = estimator(torch.cat([first, second], dim=1))
        separate = torch.cat([estimator(first), estimator(second)], dim=1)
        for key in WRITTEN:
            torch.testing.assert_close(together[key], separate[key])

    def test_flags_mean_what_the_table_says(self, estimator, make_series):
        """V = 10 everywhere, γ = ½: an ordinary step and a time limit are worth 5 more than the end of a task."""
        critic = TensorDictCritic()
        batch = make_series(4, 1)
        batch["next", "reward"][:] = 1.0
        batch["next", "terminated"] = torch.tensor([0, 1, 0, 1], dtype=torch.bool).reshape(4, 1, 1)
        batch["next", "truncated"] = torch.tensor([0, 0, 1, 1], dtype=torch.bool).reshape(4, 1, 1)
        batch["next", "done"] = batch["next", "terminated"] | batch["next", "truncated"]
        estimator(critic, gamma=0.5)(batch)
        assert batch["value_target"].flatten().tolist() == [6.0, 1.0, 6.0, 1.0]
        assert batch["advantage"].flatten().tolist() == [-4.0, -9.0, -4.0, -9.0]

    def test_masked_rows_reach_nothing(self, estimator, make_critic, make_series):
        estimator = estimator(make_critic())
        batch = make_series(3, 10, ending=0.1)
        mask = torch.ones(3, 10, dtype=torch.bool)
        mask[0, 6:], mask[1, 2:4], mask[2, 0] = False, False, False
        # The reference: the valid stretches as batches of their own, which end with the data.
        stretches = [(0, 0, 6), (1, 0, 2), (1, 4, 10), (2, 1, 10)]
        separate = [estimator(batch[lane : lane + 1, start:stop].clone()) for lane, start, stop in stretches]
        together = estimator(masked(batch, mask))
        for key in WRITTEN:
            for (lane, start, stop), expected in zip(stretches, separate, strict=True):
                torch.testing.assert_close(together[key][lane : lane + 1, start:stop], expected[key])
            assert (together[key][~mask] == 0).all()

    def test_missing_reward(self, estimator, make_critic, make_series):
        with pytest.raises(KeyMissing, match=r"\('next', 'reward'\).*environment"):
            estimator(make_critic())(make_series(2, 3).exclude(("next", "reward")))

    def test_reward_without_the_last_dimension(self, estimator, make_critic, make_series):
        batch = make_series(2, 3)
        batch["next", "reward"] = batch["next", "reward"].squeeze(-1)
        with pytest.raises(SpecError, match=r"reward \[2, 3\]"):
            estimator(make_critic())(batch)


class TensorDictCritic(torch.nn.Module):
    """Values every state at 10."""

    in_keys, out_keys = ["observation"], ["state_value"]

    def forward(self, tensordict):
        return TensorDict({"state_value": torch.full((*tensordict.shape, 1), 10.0)}, tensordict.shape)
