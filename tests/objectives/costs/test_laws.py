"""Laws of every loss, and of losses of a policy with every kind of action. New ones: ``cases/losses.py``."""

import copy
import inspect

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.losses import CASES, FEW, KINDS, POLICY_LOSSES, gradients, make_critic, make_rows
from cases.padding import poisoned
from torchrl import objectives
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.objectives import Loss, SoftUpdate, total_loss

POLICY = {
    f"{name} of {kind}": (loss.build, KINDS[kind])
    for name, loss in POLICY_LOSSES.items()
    for kind in loss.kinds
    if kind in (*FEW, "deterministic")
}
WRITTEN = ("action_log_prob", "state_value", "advantage", "value_target")


def floats_of(batch):
    """List the tensors of a batch that a gradient could reach."""
    return [value for value in batch.values(True, True) if value.is_floating_point()]


def assert_same(got, expected):
    """Hold terms and gradients against others."""
    torch.testing.assert_close((got[0].to_dict(), got[1]), (expected[0].to_dict(), expected[1]))


def test_every_public_loss_is_among_the_cases():
    public = [getattr(objectives, name) for name in objectives.__all__]
    losses = {x for x in public if inspect.isclass(x) and issubclass(x, Loss) and not inspect.isabstract(x)}
    assert losses == {type(case.build()) for case in CASES.values()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
class TestEveryLoss:
    def test_returns_scalars_of_which_some_are_summed(self, case):
        """Losses of values return the error of each row too."""
        terms = case.build()(case.batch(3, 5))
        assert isinstance(terms, TensorDict) and terms.batch_size == torch.Size([])
        assert ("td_error" in terms) == bool(case.action)
        if case.action:
            td_error = terms.pop("td_error")
            assert td_error.shape == (15,)
            assert not td_error.requires_grad and (td_error >= 0).all() and td_error.isfinite().all()
        summed = [key for key in terms.keys() if key.startswith("loss_")]
        assert all(terms[key].shape == () and terms[key].isfinite() for key in terms.keys())
        assert summed and [key for key in terms.keys() if terms[key].requires_grad] == summed
        torch.testing.assert_close(total_loss(terms), sum(terms[key] for key in summed))

    def test_gradient_reaches_the_trainable_parameters_and_nothing_else(self, case):
        loss, batch = case.build(), case.batch(15)  # odd: the signs of an l1 distance cannot cancel
        for value in (inputs := floats_of(batch)):
            value.requires_grad_()
        total_loss(loss(batch)).backward()
        trained = {id(parameter) for parameter in loss.trainable_parameters()}
        for name, parameter in loss.named_parameters():
            got = parameter.grad is not None and bool((parameter.grad != 0).any())
            assert got == (id(parameter) in trained), name
        assert all(value.grad is None for value in inputs)

    @pytest.mark.parametrize("shape", [(12,), (3, 4)])
    def test_masked_rows_reach_nothing(self, case, shape):
        loss, batch = case.build(), case.batch(*shape)
        mask = torch.arange(12).reshape(shape) % 3 != 1
        expected = gradients(loss, batch[mask].clone())
        assert_same(gradients(loss, poisoned(batch, mask)), expected)

    def test_batch_dimensions_do_not_matter(self, case):
        loss, batch = case.build(), case.batch(3, 4)
        assert_same(gradients(loss, batch.reshape(12)), gradients(loss, batch))

    def test_batch_is_left_alone(self, case):
        batch = case.batch(8)
        kept = batch.clone()
        case.build()(batch)
        assert set(batch.keys(True)) == set(kept.keys(True)) and (batch == kept).all()

    def test_every_key_it_names_is_needed(self, case):
        loss, batch = case.build(), case.batch(8)
        loss(batch.select(*loss.in_keys))
        for key in loss.in_keys:
            with pytest.raises(KeyMissing, match=f"{type(loss).__name__}: expected the key"):
                loss(batch.exclude(key))

    def test_copy_is_independent(self, case):
        loss, batch = case.build(), case.batch(8)
        expected = gradients(loss, batch)
        other = copy.deepcopy(loss)
        trainable = {id(x) for x in other.trainable_parameters()}
        assert trainable == {id(x) for x in other.parameters() if x.requires_grad}
        with torch.no_grad():
            for parameter in other.trainable_parameters():
                parameter.mul_(0.3)
        if case.action:
            SoftUpdate(other, tau=1.0).step()
        assert_same(gradients(loss, batch), expected)
        assert (total_loss(other(batch)) - total_loss(expected[0])).abs() > 1e-4

    def test_state_dict_makes_another_the_same(self, case):
        loss, other, batch = case.build(), case.build(), case.batch(8)
        state = {key: x.fill_(0.25) if key.startswith("_") else x for key, x in loss.state_dict().items()}
        assert {name.removeprefix("objective.") for name, _ in loss.named_buffers() if "._" in f".{name}"} <= set(state)
        assert not torch.equal(*(total_loss(x(batch)) for x in (loss, other)))
        other.load_state_dict(state)
        assert_same(gradients(other, batch), gradients(loss, batch))

    def test_gradient_is_that_of_the_value(self, case):
        loss = case.build().double()
        loss.num_entropy_samples = None  # the score-function estimate is no derivative: test_actor.py has its mean
        batch = case.batch(15).apply(lambda x: x.double() if x.is_floating_point() else x)
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
        """Return a term where parameters moved; targets did not, nor the temperature but in its own loss."""
        still = [name for name in ("next_value", "next_outputs") if hasattr(loss, name)]
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(step, alpha=sign)
            torch.manual_seed(0)
            for name in still:
                loss.__dict__[name] = getattr(frozen, name)
            temperature = getattr(loss, "temperature", None)
            if temperature is not None and key != "loss_temperature":
                loss.temperature = frozen.temperature
            total = loss(batch)[key]
            if temperature is not None:
                loss.temperature = temperature
            for name in still:
                del loss.__dict__[name]
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.sub_(step, alpha=sign)
        return total


@pytest.mark.parametrize(("build", "kind"), POLICY.values(), ids=POLICY.keys())
class TestEveryLossOfAPolicy:
    def test_trains_what_it_is_given(self, build, kind):
        actor, critic = kind.make_actor(), make_critic()
        loss = build(actor, critic)
        networks = [actor, critic] if getattr(loss, "critic", None) is critic else [actor]
        expected = {id(parameter) for network in networks for parameter in network.parameters()}
        assert {id(parameter) for parameter in loss.trainable_parameters()} == expected

    def test_frozen_parameters_are_not_trained(self, build, kind):
        actor, critic = kind.make_actor(), make_critic()
        frozen = next(actor.parameters()).requires_grad_(False)
        num_all = len(build(kind.make_actor(), critic).trainable_parameters())
        loss = build(actor, critic)
        assert len(loss.trainable_parameters()) == num_all - 1
        total_loss(loss(make_rows(kind, 16))).backward()
        assert frozen.grad is None

    def test_shared_trunk_counts_once_and_learns_from_all(self, build, kind):
        trunk = nn.Linear(4, 5)
        loss = build(kind.make_actor(trunk), make_critic(trunk))
        parameters = loss.trainable_parameters()
        assert len(parameters) == len({id(parameter) for parameter in parameters})
        assert sum(parameter is trunk.weight for parameter in parameters) == 1
        batch = make_rows(kind, 16)
        terms, _ = gradients(loss, batch)
        total = trunk.weight.grad.clone()
        separate = []
        for key in (key for key in terms.keys() if key.startswith("loss_")):
            loss.zero_grad()
            torch.manual_seed(0)
            loss(batch)[key].backward()
            separate.append(trunk.weight.grad.clone())
        torch.testing.assert_close(total, sum(separate))

    def test_mask_without_a_valid_row_is_refused(self, build, kind):
        batch = make_rows(kind, 4).set(("collector", "mask"), torch.zeros(4, dtype=torch.bool))
        with pytest.raises(SpecError, match="at least one valid row"):
            build(kind.make_actor(), make_critic())(batch)

    def test_no_column_is_taken_for_a_row_nor_a_row_for_a_column(self, build, kind):
        loss, batch = build(kind.make_actor(), make_critic()), make_rows(kind, 8)
        read = [key for key in WRITTEN if key in loss.in_keys]
        for key in read:
            value = batch[key]
            wrong = value.unsqueeze(-1) if value.ndim == 1 else value.squeeze(-1)
            with pytest.raises(SpecError, match=r"\[8, 1\].*\[8\]|\[8\].*\[8, 1\]"):
                loss(batch.clone(recurse=False).set(key, wrong))

    def test_nested_observations(self, build, kind):
        actor, critic, batch = kind.make_actor(), make_critic(), make_rows(kind, 8)
        expected, _ = gradients(build(actor, critic), batch)
        batch["sensors", "joints"] = batch.pop("observation")
        batch["sensors", "unread"] = torch.zeros(8, 1)
        keys = [("sensors", "joints")]
        nested_actor, nested_critic = kind.make_actor(in_keys=keys), make_critic(in_keys=keys)
        nested_actor.load_state_dict(actor.state_dict())
        nested_critic.load_state_dict(critic.state_dict())
        loss = build(nested_actor, nested_critic)
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), expected.to_dict())
        batch["collector", "mask"] = torch.ones(8, dtype=torch.bool)
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), expected.to_dict())

    def test_lazy_layers_are_refused(self, build, kind):
        lazy = nn.LazyLinear(5)
        with pytest.raises(ConfigError, match=r"lazy module\.body\.weight.*example batch"):
            build(kind.make_actor(lazy), make_critic())
        lazy(torch.zeros(2, 4))
        build(kind.make_actor(lazy), make_critic())
