"""Laws of every loss of values beside those of ``test_laws.py``. A new one is added in ``cases/losses.py``."""

import pytest
import torch
from torch import nn

from cases.losses import VALUE_LOSSES, gradients
from torchrl.errors import SpecError
from torchrl.objectives import HardUpdate, SoftUpdate, target_copy, total_loss

ROWWISE = "td_error"


def networks_of(loss):
    return {name: module for name, module in loss.named_children() if not name.startswith("target")}


@pytest.mark.parametrize("case", VALUE_LOSSES.values(), ids=VALUE_LOSSES.keys())
class TestEveryTDLoss:
    def test_trains_its_networks_and_none_of_the_targets(self, case):
        loss = case.build()
        expected = {id(p) for module in networks_of(loss).values() for p in module.parameters() if p.requires_grad}
        assert {id(parameter) for parameter in loss.trainable_parameters()} == expected
        targets = [parameter for _, target in loss.targets() for parameter in target.parameters()]
        assert targets and not any(parameter.requires_grad for parameter in targets)

    def test_each_term_reaches_its_own_networks(self, case):
        loss, batch = case.build(), case.batch(15)
        owners = {
            "loss_value": {"actor"},
            "loss_critic": {"critic"},
            "loss_actor": {"actor"},
            "loss_temperature": {"temperature"},
            "loss_state_value": {"value"},
        }
        for key in [key for key in loss(batch).keys() if key.startswith("loss_")]:
            loss.zero_grad(set_to_none=True)
            loss(batch)[key].backward()
            reached = {
                name
                for name, module in loss.named_children()
                if any(p.grad is not None and bool((p.grad != 0).any()) for p in module.parameters())
            }
            assert reached == owners[key], key

    def test_targets_move_only_by_their_update(self, case):
        loss, batch = case.build(), case.batch(16)
        optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=0.1)
        before = [x.clone() for _, target in loss.targets() for x in target.parameters()]
        total_loss(loss(batch)).backward()
        optimizer.step()
        after = [x for _, target in loss.targets() for x in target.parameters()]
        assert all(map(torch.equal, before, after))
        SoftUpdate(loss, tau=0.25).step()
        present = [x for network, _ in loss.targets() for x in network.parameters()]
        for old, new, now in zip(before, after, present, strict=True):
            torch.testing.assert_close(new, 0.75 * old + 0.25 * now)
        HardUpdate(loss, interval=1).step()
        assert all(map(torch.equal, after, present)) and not all(map(torch.equal, before, after))

    def test_what_came_after_the_end_of_the_task_is_not_looked_at(self, case):
        loss, batch = case.build(), case.batch(15)
        over = batch["next", "terminated"].squeeze(-1)
        assert over.any() and not over.all()
        expected = gradients(loss, batch)
        batch["next", "observation"][over] = 1e3
        if case.action == "masked":
            batch["next", "action_mask"][over] = True
        terms, grads = gradients(loss, batch)
        torch.testing.assert_close((terms.to_dict(), grads), (expected[0].to_dict(), expected[1]))

    def test_truncation_changes_nothing(self, case):
        loss, batch = case.build(), case.batch(15)
        expected = gradients(loss, batch)
        batch["next", "truncated"] = ~batch["next", "truncated"]
        terms, grads = gradients(loss, batch)
        torch.testing.assert_close((terms.to_dict(), grads), (expected[0].to_dict(), expected[1]))

    def test_rows_and_columns_are_told_apart(self, case):
        loss, batch = case.build(), case.batch(8)
        for key in (("next", "reward"), ("next", "terminated")):
            with pytest.raises(SpecError, match=r"\[8\]"):
                loss(batch.clone(recurse=False).set(key, batch[key].squeeze(-1)))
        batch["replay", "weight"] = torch.ones(8, 1)
        with pytest.raises(SpecError, match=r"a replay weight of shape \[8\], got \[8, 1\]"):
            loss(batch)

    def test_a_discount_for_each_row_stands_in_the_place_of_gamma(self, case):
        loss, batch = case.build(), case.batch(8)
        expected = gradients(loss, batch)[0]
        batch["next", "gamma"] = torch.full((8, 1), loss.gamma)
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), expected.to_dict())
        batch["next", "gamma"] = torch.zeros(8, 1)
        batch["next", "observation"] = batch["next", "observation"] * 7
        got = gradients(loss, batch)[0]
        batch["next", "terminated"] = torch.ones(8, 1, dtype=torch.bool)
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), got.to_dict())

    def test_weights_of_replay_multiply_the_rows(self, case):
        loss, batch = case.build(), case.batch(6)
        key = "loss_critic" if hasattr(loss, "critic") else "loss_value"
        plain = gradients(loss, batch)[0]
        batch["replay", "weight"] = torch.full((6,), 0.5)
        half = gradients(loss, batch)[0]
        torch.testing.assert_close(half[key], 0.5 * plain[key])
        torch.testing.assert_close(half[ROWWISE], plain[ROWWISE])
        alone = []
        for row in torch.eye(6):
            batch["replay", "weight"] = row * 6
            alone.append(gradients(loss, batch)[0][key])
        torch.testing.assert_close(torch.stack(alone).mean(), plain[key])
        assert torch.stack(alone).std() > 1e-3


@pytest.mark.parametrize("name", [name for name, case in VALUE_LOSSES.items() if "DQN" not in name])
def test_the_actor_can_be_left_out(name):
    case = VALUE_LOSSES[name]
    loss, batch = case.build(), case.batch(8)
    whole = set(loss(batch).keys())
    critics = set(loss(batch, with_actor=False).keys())
    assert critics == {"loss_critic", "td_error", "q_value", "target_value"} and critics < whole
    total_loss(loss(batch, with_actor=False)).backward()
    assert all(parameter.grad is None for parameter in loss.actor.parameters())


class Drawing(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * torch.rand(x.shape, generator=self.generator)


def test_a_target_draws_from_the_same_stream():
    network = Drawing()
    target = target_copy(network)
    assert target.generator is network.generator and not target.scale.requires_grad
    assert not torch.equal(network(torch.zeros(3)), target(torch.zeros(3)))
