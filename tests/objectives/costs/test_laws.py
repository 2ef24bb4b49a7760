"""Laws of every loss with every kind of action. A new one is added to ``LOSSES`` in ``cases/losses.py``."""

import copy
import inspect

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.losses import (
    DETERMINISTIC,
    DETERMINISTIC_LOSSES,
    KIND_LOSSES,
    KINDS,
    LOSSES,
    gradients,
    make_critic,
    make_rows,
)
from torchrl import objectives
from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.objectives import Loss, total_loss
from torchrl.objectives.costs.temporal_difference import TDLoss

DETERMINISTIC_CASES = {
    f"{name} of a deterministic actor": (DETERMINISTIC_LOSSES[name], DETERMINISTIC) for name in DETERMINISTIC_LOSSES
}
EVERY_LOSS = {
    f"{loss} of {kind}": (LOSSES[loss], KINDS[kind]) for loss in LOSSES for kind in ("discrete", "masked composite")
} | DETERMINISTIC_CASES
EVERY_KIND = {
    f"{loss} of {kind}": (LOSSES[loss], KINDS[kind]) for loss in KIND_LOSSES for kind in KINDS
} | DETERMINISTIC_CASES
WRITTEN = ("action_log_prob", "state_value", "advantage", "value_target")


def floats_of(batch):
    """List the tensors of a batch that a gradient could reach."""
    return [value for value in batch.values(True, True) if value.is_floating_point()]


def test_every_public_loss_is_among_the_cases():
    public = [getattr(objectives, name) for name in objectives.__all__]
    losses = {x for x in public if inspect.isclass(x) and issubclass(x, Loss) and not inspect.isabstract(x)}
    losses = {x for x in losses if not issubclass(x, TDLoss)}  # these have laws of their own: test_td_laws.py
    assert losses == {type(build(kind.make_actor(), make_critic())) for build, kind in EVERY_LOSS.values()}


@pytest.mark.parametrize(("build", "kind"), EVERY_LOSS.values(), ids=EVERY_LOSS.keys())
class TestEveryLoss:
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

    def test_every_key_it_names_is_needed(self, build, kind):
        loss, batch = build(kind.make_actor(), make_critic()), make_rows(kind, 8)
        loss(batch.select(*loss.in_keys))
        for key in loss.in_keys:
            with pytest.raises(KeyMissing, match=f"{type(loss).__name__}: expected the key"):
                loss(batch.exclude(key))

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

    def test_copy_is_independent(self, build, kind):
        loss, batch = build(kind.make_actor(), make_critic()), make_rows(kind, 8)
        expected = gradients(loss, batch)[0]
        other = copy.deepcopy(loss)
        assert {id(x) for x in other.trainable_parameters()} == {id(x) for x in other.parameters()}
        with torch.no_grad():
            for parameter in other.trainable_parameters():
                parameter.mul_(0.3)
        torch.testing.assert_close(gradients(loss, batch)[0].to_dict(), expected.to_dict())
        assert (gradients(other, batch)[0]["loss_objective"] - expected["loss_objective"]).abs() > 1e-4

    def test_state_dict_makes_another_the_same(self, build, kind):
        loss, other = (build(kind.make_actor(), make_critic()) for _ in range(2))
        batch = make_rows(kind, 8)
        for name, buffer in loss.named_buffers():
            buffer.fill_(0.25)
            assert name.removeprefix("objective.") in loss.state_dict()
        other.load_state_dict(loss.state_dict())
        torch.testing.assert_close(gradients(other, batch)[0].to_dict(), gradients(loss, batch)[0].to_dict())


@pytest.mark.parametrize(("build", "kind"), EVERY_KIND.values(), ids=EVERY_KIND.keys())
class TestEveryKindOfAction:
    def test_returns_scalars_of_which_some_are_summed(self, build, kind):
        terms = build(kind.make_actor(), make_critic())(make_rows(kind, 16))
        assert isinstance(terms, TensorDict) and terms.batch_size == torch.Size([])
        summed = [key for key in terms.keys() if key.startswith("loss_")]
        assert summed
        assert all(terms[key].shape == () and terms[key].isfinite() for key in terms.keys())
        assert [key for key in terms.keys() if terms[key].requires_grad] == summed
        torch.testing.assert_close(total_loss(terms), sum(terms[key] for key in summed))

    def test_gradient_reaches_the_trainable_parameters_and_nothing_else(self, build, kind):
        loss = build(kind.make_actor(), make_critic())
        batch = make_rows(kind, 15)  # odd: the signs of an l1 distance cannot cancel
        for value in (inputs := floats_of(batch)):
            value.requires_grad_()
        total_loss(loss(batch)).backward()
        trained = {id(parameter) for parameter in loss.trainable_parameters()}
        for name, parameter in loss.named_parameters():
            got = parameter.grad is not None and bool((parameter.grad != 0).any())
            assert got == (id(parameter) in trained), name
        assert all(value.grad is None for value in inputs)

    @pytest.mark.parametrize("shape", [(12,), (3, 4)])
    def test_masked_rows_reach_nothing(self, build, kind, shape):
        loss = build(kind.make_actor(), make_critic())
        batch = make_rows(kind, *shape)
        mask = torch.arange(12).reshape(shape) % 3 != 1
        expected = gradients(loss, batch[mask].clone())
        for value in batch.values(True, True):
            value[~mask] = float("nan") if value.is_floating_point() else (True if value.dtype == torch.bool else -7)
        batch["collector", "mask"] = mask
        terms, grads = gradients(loss, batch)
        torch.testing.assert_close((terms.to_dict(), grads), (expected[0].to_dict(), expected[1]))

    def test_batch_dimensions_do_not_matter(self, build, kind):
        loss, batch = build(kind.make_actor(), make_critic()), make_rows(kind, 3, 4)
        expected, got = gradients(loss, batch), gradients(loss, batch.reshape(12))
        torch.testing.assert_close((got[0].to_dict(), got[1]), (expected[0].to_dict(), expected[1]))

    def test_batch_is_left_alone(self, build, kind):
        batch = make_rows(kind, 8)
        kept = batch.clone()
        build(kind.make_actor(), make_critic())(batch)
        assert set(batch.keys(True)) == set(kept.keys(True)) and (batch == kept).all()

    def test_gradient_is_that_of_the_value(self, build, kind):
        loss = build(kind.make_actor(), make_critic()).double()
        loss.num_entropy_samples = None  # the score-function estimate is no derivative: test_actor.py has its mean
        batch = make_rows(kind, 15).apply(lambda value: value.double() if value.is_floating_point() else value)
        _, grads = gradients(loss, batch)
        parameters = loss.trainable_parameters()
        steps = [1e-5 * torch.randn_like(parameter) for parameter in parameters]
        totals = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.add_(step, alpha=sign)
                torch.manual_seed(0)
                totals.append(total_loss(loss(batch)))
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.sub_(step, alpha=sign)
        expected = sum((grad * step).sum() for grad, step in zip(grads, steps, strict=True))
        torch.testing.assert_close((totals[0] - totals[1]) / 2, expected, rtol=1e-4, atol=1e-10)
