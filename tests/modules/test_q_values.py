import pytest
import torch
from torch import nn

from cases.fixed_network import Fixed, rows
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import (
    MLP,
    DistributionalQValueActor,
    QuantileQValueActor,
    QValueActor,
    ValueEnsemble,
    ValueOperator,
)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_the_best_action_is_taken(shape):
    actor = QValueActor(Fixed(1.0, 3.0, 2.0))
    out = actor(root := rows(*shape))
    assert out is root
    assert torch.equal(out["action"], torch.full(shape, 1))
    assert torch.equal(out["action_value"], torch.tensor([1.0, 3.0, 2.0]).expand(*shape, 3))
    assert (actor.in_keys, actor.out_keys) == (["observation"], ["action_value", "action"])


def test_one_hot_actions():
    out = QValueActor(Fixed(1.0, 3.0, 2.0), one_hot=True)(rows(2))
    assert out["action"].tolist() == [[0, 1, 0]] * 2 and out["action"].dtype == torch.int64


def test_illegal_actions_are_not_taken():
    actor = QValueActor(Fixed(1.0, 3.0, 2.0), mask_key="action_mask")
    mask = torch.tensor([[True, True, True], [True, False, True], [True, False, False]])
    assert actor(rows(3, action_mask=mask))["action"].tolist() == [1, 2, 0]
    assert actor(rows(3, action_mask=mask.to(torch.int8)))["action"].tolist() == [1, 2, 0]
    with pytest.raises(SpecError, match=r"QValueActor.*0 and 1 in any dtype, got -1 at \[0, 0\], int8"):
        actor(rows(3, action_mask=-mask.to(torch.int8)))
    assert actor.in_keys == ["observation", "action_mask"]
    with pytest.raises(SpecError, match=r"QValueActor: expected a mask that allows something.*none in row \[1\]"):
        actor(rows(2, action_mask=torch.tensor([[True] * 3, [False] * 3])))
    with pytest.raises(KeyMissing, match=r"QValueActor\(mask_key=...\): expected the key 'action_mask'"):
        actor(rows(2))


def test_a_distribution_is_judged_by_its_mean():
    """Atoms 0, 2, 4; the first action puts ½ on the ends (mean 2), the second all in the middle but a little above."""
    low = -30.0
    logits = ((0.0, low, 0.0), (low, 1.0, 0.0))
    actor = DistributionalQValueActor(Fixed(*logits), low=0.0, high=4.0)
    out = actor(rows(2))
    middle = torch.tensor([1.0, 0.0]).softmax(0) @ torch.tensor([2.0, 4.0])
    torch.testing.assert_close(out["action_value"], torch.stack([torch.tensor(2.0), middle]).expand(2, 2))
    assert out["action"].tolist() == [1, 1]


@pytest.mark.parametrize("options", [{"low": 1.0, "high": 1.0}, {"low": 0.0, "high": float("inf")}])
def test_a_support_without_room_is_refused(options):
    with pytest.raises(ConfigError, match="DistributionalQValueActor: expected finite values, low below high"):
        DistributionalQValueActor(Fixed((0.0,)), **options)


def test_quantiles_are_judged_by_their_mean():
    out = QuantileQValueActor(Fixed((0.0, 4.0), (2.5, 2.5)))(rows(2))
    assert out["action_value"].tolist() == [[2.0, 2.5]] * 2 and out["action"].tolist() == [1, 1]


class TestChosen:
    outputs = torch.arange(6.0).reshape(2, 3)

    def test_the_value_of_an_action(self):
        actor = QValueActor(nn.Identity())
        assert actor.select(self.outputs, torch.tensor([2, 0])).tolist() == [[2.0], [3.0]]

    def test_of_a_one_hot_action(self):
        actor = QValueActor(nn.Identity(), one_hot=True)
        assert actor.select(self.outputs, torch.tensor([[0, 0, 1], [1, 0, 0]])).tolist() == [[2.0], [3.0]]
        assert actor.select(self.outputs, torch.tensor([2, 0])).tolist() == [[2.0], [3.0]]

    def test_the_distribution_of_an_action(self):
        actor = QuantileQValueActor(nn.Identity())
        outputs = torch.arange(12.0).reshape(2, 3, 2)
        assert actor.select(outputs, torch.tensor([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]

    def test_over_two_batch_dimensions(self):
        actor = QuantileQValueActor(nn.Identity())
        outputs = torch.arange(12.0).reshape(1, 2, 3, 2)
        assert actor.select(outputs, torch.tensor([[2, 0]])).tolist() == [[[4.0, 5.0], [6.0, 7.0]]]

    @pytest.mark.parametrize("action", [torch.tensor([[1], [0]]), torch.tensor([1])])
    def test_other_shapes_are_refused(self, action):
        with pytest.raises(SpecError, match=r"QValueActor: expected an action of shape \[2\]"):
            QValueActor(nn.Identity()).select(self.outputs, action)


class TestValueEnsemble:
    def test_critics_of_state_and_action_stand_side_by_side(self):
        critic = ValueEnsemble(lambda: MLP(6, 1, num_cells=(8,)), 3)
        batch = rows(5, action=torch.randn(5, 2))
        out = critic(batch)["state_action_value"]
        assert out.shape == (5, 3)
        for index in range(3):
            member = ValueOperator(critic.module.member(index), in_keys=["observation", "action"])
            torch.testing.assert_close(member(batch.copy())["state_action_value"][:, 0], out[:, index])

    def test_critics_of_all_actions(self):
        critic = ValueEnsemble(lambda: MLP(4, 3, num_cells=(8,)), 2, in_keys=["observation"])
        out = critic(batch := rows(2, 5))["action_value"]
        assert out.shape == (2, 5, 3, 2)
        torch.testing.assert_close(critic.module.member(1)(batch["observation"]), out[..., 1])

    def test_more_than_one_value_of_an_action_is_refused(self):
        critic = ValueEnsemble(lambda: MLP(6, 2), 2)
        with pytest.raises(SpecError, match=r"a value \[\*B, 1\] from each critic, got \[5, 2\]"):
            critic(rows(5, action=torch.randn(5, 2)))
