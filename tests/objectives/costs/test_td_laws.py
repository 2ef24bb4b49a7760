"""Laws of every loss that learns values from transitions. A new one is added to ``CASES`` in ``cases/td_losses.py``."""

import copy
import inspect

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.losses import gradients
from cases.td_losses import CASES, make_transitions
from torchrl import objectives
from torchrl.errors import KeyMissing, SpecError
from torchrl.objectives import HardUpdate, SoftUpdate, total_loss
from torchrl.objectives.costs.temporal_difference import TDLoss

ROWWISE = "td_error"


def floats_of(batch):
    return [value for value in batch.values(True, True) if value.is_floating_point()]


def networks_of(loss):
    return {name: module for name, module in loss.named_children() if not name.startswith("target")}


def test_every_public_loss_is_among_the_cases():
    public = [getattr(objectives, name) for name in objectives.__all__]
    losses = {x for x in public if inspect.isclass(x) and issubclass(x, TDLoss) and not inspect.isabstract(x)}
    assert losses == {type(case.build()) for case in CASES.values()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
class TestEveryTDLoss:
    def test_trains_its_networks_and_none_of_the_targets(self, case):
        loss = case.build()
        expected = {id(p) for module in networks_of(loss).values() for p in module.parameters() if p.requires_grad}
        assert {id(parameter) for parameter in loss.trainable_parameters()} == expected
        targets = [parameter for _, target in loss.targets() for parameter in target.parameters()]
        assert targets and not any(parameter.requires_grad for parameter in targets)

    def test_returns_scalars_and_a_td_error_of_each_row(self, case):
        terms = case.build()(make_transitions(case.action, 3, 5))
        assert isinstance(terms, TensorDict) and terms.batch_size == torch.Size([])
        td_error = terms.pop(ROWWISE)
        assert td_error.shape == (15,)
        assert not td_error.requires_grad and (td_error >= 0).all() and td_error.isfinite().all()
        summed = [key for key in terms.keys() if key.startswith("loss_")]
        assert all(terms[key].shape == () and terms[key].isfinite() for key in terms.keys())
        assert summed and [key for key in terms.keys() if terms[key].requires_grad] == summed

    def test_gradient_reaches_the_trainable_parameters_and_nothing_else(self, case):
        loss, batch = case.build(), make_transitions(case.action, 15)
        for value in (inputs := floats_of(batch)):
            value.requires_grad_()
        total_loss(loss(batch)).backward()
        trained = {id(parameter) for parameter in loss.trainable_parameters()}
        for name, parameter in loss.named_parameters():
            got = parameter.grad is not None and bool((parameter.grad != 0).any())
            assert got == (id(parameter) in trained), name
        assert all(value.grad is None for value in inputs)

    def test_each_term_reaches_its_own_networks(self, case):
        loss, batch = case.build(), make_transitions(case.action, 15)
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
        loss, batch = case.build(), make_transitions(case.action, 16)
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
        loss, batch = case.build(), make_transitions(case.action, 15)
        over = batch["next", "terminated"].squeeze(-1)
        assert over.any() and not over.all()
        expected = gradients(loss, batch)
        batch["next", "observation"][over] = 1e3
        if case.action == "masked":
            batch["next", "action_mask"][over] = True
        terms, grads = gradients(loss, batch)
        torch.testing.assert_close((terms.to_dict(), grads), (expected[0].to_dict(), expected[1]))

    def test_truncation_changes_nothing(self, case):
        loss, batch = case.build(), make_transitions(case.action, 15)
        expected = gradients(loss, batch)
        batch["next", "truncated"] = ~batch["next", "truncated"]
        terms, grads = gradients(loss, batch)
        torch.testing.assert_close((terms.to_dict(), grads), (expected[0].to_dict(), expected[1]))

    def test_masked_rows_reach_nothing(self, case):
        loss, batch = case.build(), make_transitions(case.action, 12)
        draws = case.action == "vector"  # the first rows get the same noise with and without the others
        mask = torch.arange(12) < 8 if draws else torch.arange(12) % 3 != 1
        expected = gradients(loss, batch[mask].clone())
        for value in batch.values(True, True):
            value[~mask] = float("nan") if value.is_floating_point() else (True if value.dtype == torch.bool else -7)
        batch["collector", "mask"] = mask
        terms, grads = gradients(loss, batch)
        torch.testing.assert_close((terms.to_dict(), grads), (expected[0].to_dict(), expected[1]))

    def test_batch_is_left_alone(self, case):
        batch = make_transitions(case.action, 8)
        kept = batch.clone()
        case.build()(batch)
        assert set(batch.keys(True)) == set(kept.keys(True)) and (batch == kept).all()

    def test_every_key_it_names_is_needed(self, case):
        loss, batch = case.build(), make_transitions(case.action, 8)
        loss(batch.select(*loss.in_keys))
        for key in loss.in_keys:
            with pytest.raises(KeyMissing, match=f"{type(loss).__name__}: expected the key"):
                loss(batch.exclude(key))

    def test_rows_and_columns_are_told_apart(self, case):
        loss, batch = case.build(), make_transitions(case.action, 8)
        for key in (("next", "reward"), ("next", "terminated")):
            with pytest.raises(SpecError, match=r"\[8\]"):
                loss(batch.clone(recurse=False).set(key, batch[key].squeeze(-1)))
        batch["replay", "weight"] = torch.ones(8, 1)
        with pytest.raises(SpecError, match=r"a replay weight of shape \[8\], got \[8, 1\]"):
            loss(batch)

    def test_a_discount_for_each_row_stands_in_the_place_of_gamma(self, case):
        loss, batch = case.build(), make_transitions(case.action, 8)
        expected = gradients(loss, batch)[0]
        batch["next", "gamma"] = torch.full((8, 1), loss.gamma)
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), expected.to_dict())
        batch["next", "gamma"] = torch.zeros(8, 1)
        batch["next", "observation"] = batch["next", "observation"] * 7
        got = gradients(loss, batch)[0]
        batch["next", "terminated"] = torch.ones(8, 1, dtype=torch.bool)
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), got.to_dict())

    def test_weights_of_replay_multiply_the_rows(self, case):
        key = "loss_critic" if case.has_actor else "loss_value"
        loss, batch = case.build(), make_transitions(case.action, 6)
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

    def test_copy_is_independent(self, case):
        loss, batch = case.build(), make_transitions(case.action, 8)
        expected = gradients(loss, batch)[0]
        other = copy.deepcopy(loss)
        trainable = {id(x) for x in other.trainable_parameters()}
        assert trainable == {id(x) for x in other.parameters() if x.requires_grad}
        with torch.no_grad():
            for parameter in other.trainable_parameters():
                parameter.mul_(0.3)
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), expected.to_dict())
        SoftUpdate(other, tau=1.0).step()
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), expected.to_dict())

    def test_state_dict_makes_another_the_same(self, case):
        loss, other = case.build(), case.build()
        batch = make_transitions(case.action, 8)
        assert not torch.equal(gradients(other, batch)[0][ROWWISE], gradients(loss, batch)[0][ROWWISE])
        other.load_state_dict(loss.state_dict())
        torch.testing.assert_close(gradients(other, batch)[0].to_dict(), gradients(loss, batch)[0].to_dict())

    def test_gradient_is_that_of_the_value(self, case):
        loss = case.build().double()
        batch = make_transitions(case.action, 15).apply(lambda x: x.double() if x.is_floating_point() else x)
        for key in [key for key in loss(batch).keys() if key.startswith("loss_")]:
            loss.zero_grad(set_to_none=True)
            torch.manual_seed(0)
            loss(batch)[key].backward()
            moved = [p for p in loss.trainable_parameters() if p.grad is not None]
            steps = [1e-5 * torch.randn_like(parameter) for parameter in moved]
            frozen = copy.deepcopy(loss)  # what the target is made of does not move along
            totals = [self.value_at(loss, frozen, key, batch, moved, steps, sign) for sign in (1, -1)]
            expected = sum((p.grad * step).sum() for p, step in zip(moved, steps, strict=True))
            torch.testing.assert_close((totals[0] - totals[1]) / 2, expected, rtol=1e-4, atol=1e-9)

    def value_at(self, loss, frozen, key, batch, parameters, steps, sign):
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(step, alpha=sign)
            original = type(loss).next_value if hasattr(loss, "next_value") else None
            torch.manual_seed(0)
            if original is None:
                loss.next_outputs = frozen.next_outputs
            else:
                loss.next_value = frozen.next_value
            loss_temperature = getattr(loss, "temperature", None)
            if loss_temperature is not None and key != "loss_temperature":
                loss.temperature = frozen.temperature
            total = loss(batch)[key]
            if loss_temperature is not None:
                loss.temperature = loss_temperature
            loss.__dict__.pop("next_outputs", None), loss.__dict__.pop("next_value", None)
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.sub_(step, alpha=sign)
        return total


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.has_actor])
def test_the_actor_can_be_left_out(name):
    case = CASES[name]
    loss, batch = case.build(), make_transitions(case.action, 8)
    whole = set(loss(batch).keys())
    critics = set(loss(batch, with_actor=False).keys())
    assert critics == {"loss_critic", "td_error", "q_value", "target_value"} and critics < whole
    total_loss(loss(batch, with_actor=False)).backward()
    assert all(parameter.grad is None for parameter in loss.actor.parameters())


@pytest.mark.parametrize("name", CASES)
def test_every_loss_compiles_to_one_graph(name):
    case = CASES[name]
    torch._dynamo.reset()
    loss, batch = case.build(), make_transitions(case.action, 16)
    draws = case.action == "vector" and not name.startswith("DDPG")
    expected, grads = gradients(loss, batch)
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    backend = "aot_eager" if name == "SACLoss" else "eager"  # breaks and graphs are found before a back end is asked
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    loss.zero_grad()
    torch.manual_seed(0)
    total_loss(terms := compiled(batch)).backward()
    close = {"rtol": 0.5, "atol": 1.0} if draws else {}  # compiled, the same stream gives other numbers
    torch.testing.assert_close(terms.detach().to_dict(), expected.to_dict(), **close)
    if not draws:
        torch.testing.assert_close([parameter.grad for parameter in loss.trainable_parameters()], grads)
    compiled(make_transitions(case.action, 16, seed=1))
    assert graphs["unique_graphs"] == before + 1


class Drawing(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * torch.rand(x.shape, generator=self.generator)


def test_a_target_draws_from_the_same_stream():
    from torchrl.objectives import target_copy

    network = Drawing()
    target = target_copy(network)
    assert target.generator is network.generator and not target.scale.requires_grad
    assert not torch.equal(network(torch.zeros(3)), target(torch.zeros(3)))
