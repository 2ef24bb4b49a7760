import pytest
import torch

from cases.padding import poisoned
from torchrl.errors import KeyMissing, SpecError
from torchrl.objectives import GAE, next_values


def double_evaluation(critic, batch):
    """What ``next_values`` saves: the critic once on every row and once on every successor."""
    value = critic(batch.select("observation"))["state_value"]
    next_value = critic(batch["next"].select("observation"))["state_value"]
    return value.detach(), next_value.detach()


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
        got_value, got_next = next_values(critic, poisoned(batch, mask))
        torch.testing.assert_close(got_value[mask], value[mask])
        torch.testing.assert_close(got_next[mask], next_value[mask])
        assert (got_value[~mask] == 0).all() and (got_next[~mask] == 0).all()
        assert critic.rows == 9 + 3  # 9 valid rows; before each of two masked ones, and at the edge of the second row

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

    def test_values_of_two_rewards(self, make_critic, make_series):
        batch, critic = make_series(2, 6), make_critic(torch.nn.Linear(4, 2))
        expected = double_evaluation(critic, batch)
        torch.testing.assert_close(next_values(critic, batch, num_rewards=2), expected)


@pytest.mark.parametrize(
    "reorder", [lambda b: b.reshape(-1), lambda b: b.transpose(0, 1), lambda b: b[:, [2, 0, 1, 3]]]
)
def test_a_batch_that_is_out_of_order_is_refused(reorder, make_critic, make_series):
    batch = make_series(3, 4, ending=0.0)
    batch["is_init"].fill_(False)
    batch["collector", "traj_ids"] = torch.tensor([[0] * 4, [1, 1, 2, 2], [3] * 4])
    batch["next", "terminated"][1, 1] = True
    estimator = GAE(make_critic())
    estimator(batch.clone())
    with pytest.raises(SpecError, match="rows follow each other in time.*before any reshape"):
        estimator(reorder(batch.clone()))
