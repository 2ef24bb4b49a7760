"""Laws of every loss, and the parts that losses share. A new loss is added to ``LOSSES`` and has to pass."""

import copy
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.objectives import ClipPPOLoss, Loss, total_loss
from torchrl.objectives.costs import Coefficient

LOSSES = {
    "clip_ppo": ClipPPOLoss,
    "clip_ppo, all options": partial(
        ClipPPOLoss, clip_epsilon=0.1, entropy_coef=0.01, value_clip=0.2, critic_distance="smooth_l1"
    ),
    "clip_ppo, raw advantage": partial(ClipPPOLoss, normalize_advantage=False, critic_distance="l1"),
}
each_loss = pytest.mark.parametrize("build", LOSSES.values(), ids=LOSSES.keys())


def gradients(loss, batch):
    """Differentiate the total; return the terms and the gradient of every trainable parameter."""
    loss.zero_grad()
    terms = loss(batch)
    total_loss(terms).backward()
    return terms.detach(), [parameter.grad.clone() for parameter in loss.trainable_parameters()]


@each_loss
class TestEveryLoss:
    def test_returns_scalars_of_which_some_are_summed(self, build, make_actor, make_critic, make_rows):
        terms = build(make_actor(), make_critic())(make_rows(16))
        assert isinstance(terms, TensorDict) and terms.batch_size == torch.Size([])
        summed = [key for key in terms.keys() if key.startswith("loss_")]  # noqa: SIM118 (a TensorDict is no dict)
        assert summed
        assert all(terms[key].shape == () and terms[key].isfinite() for key in terms.keys())  # noqa: SIM118
        assert [key for key in terms.keys() if terms[key].requires_grad] == summed  # noqa: SIM118
        torch.testing.assert_close(total_loss(terms), sum(terms[key] for key in summed))

    def test_gradient_reaches_the_trainable_parameters_and_nothing_else(
        self, build, make_actor, make_critic, make_rows
    ):
        loss = build(make_actor(), make_critic())
        batch = make_rows(15)  # odd: the signs of an l1 distance cannot cancel
        for key in ("observation", "action_log_prob", "state_value", "advantage", "value_target"):
            batch[key].requires_grad_()
        total_loss(loss(batch)).backward()
        trained = {id(parameter) for parameter in loss.trainable_parameters()}
        for name, parameter in loss.named_parameters():
            got = parameter.grad is not None and bool((parameter.grad != 0).any())
            assert got == (id(parameter) in trained), name
        assert all(value.grad is None for value in batch.values())

    def test_frozen_parameters_are_not_trained(self, build, make_actor, make_critic, make_rows):
        actor, critic = make_actor(), make_critic()
        actor.network[0].weight.requires_grad_(False)
        loss = build(actor, critic)
        assert len(loss.trainable_parameters()) == 7
        total_loss(loss(make_rows(16))).backward()
        assert actor.network[0].weight.grad is None

    def test_shared_trunk_counts_once_and_learns_from_both(self, build, make_actor, make_critic, make_rows):
        trunk = nn.Linear(4, 5)
        loss = build(
            make_actor(nn.Sequential(trunk, nn.Tanh(), nn.Linear(5, 3))),
            make_critic(nn.Sequential(trunk, nn.Tanh(), nn.Linear(5, 1))),
        )
        parameters = loss.trainable_parameters()
        assert len(parameters) == 6 and len({id(parameter) for parameter in parameters}) == 6
        terms, total = gradients(loss, make_rows(16))
        separate = []
        for key in (key for key in terms.keys() if key.startswith("loss_")):  # noqa: SIM118
            loss.zero_grad()
            loss(make_rows(16))[key].backward()
            separate.append(trunk.weight.grad.clone() if trunk.weight.grad is not None else 0.0)
        torch.testing.assert_close(total[0], sum(separate))

    @pytest.mark.parametrize("shape", [(12,), (3, 4)])
    def test_masked_rows_reach_nothing(self, build, make_actor, make_critic, make_rows, shape):
        loss = build(make_actor(), make_critic())
        batch = make_rows(*shape)
        mask = torch.arange(12).reshape(shape) % 3 != 1
        expected = gradients(loss, batch[mask])
        batch["collector", "mask"] = mask
        for key in ("observation", "action_log_prob", "state_value", "advantage", "value_target"):
            batch[key][~mask] = float("nan")
        batch["action"][~mask] = -7
        terms, grads = gradients(loss, batch)
        torch.testing.assert_close((terms.to_dict(), grads), (expected[0].to_dict(), expected[1]))

    def test_mask_without_a_valid_row_is_refused(self, build, make_actor, make_critic, make_rows):
        batch = make_rows(4).set(("collector", "mask"), torch.zeros(4, dtype=torch.bool))
        with pytest.raises(SpecError, match="at least one valid row"):
            build(make_actor(), make_critic())(batch)

    def test_batch_dimensions_do_not_matter(self, build, make_actor, make_critic, make_rows):
        loss, batch = build(make_actor(), make_critic()), make_rows(3, 4)
        torch.testing.assert_close(loss(batch).to_dict(), loss(batch.reshape(12)).to_dict())

    def test_batch_is_left_alone(self, build, make_actor, make_critic, make_rows):
        batch = make_rows(8)
        kept = batch.clone()
        build(make_actor(), make_critic())(batch)
        assert set(batch.keys(True)) == set(kept.keys(True)) and (batch == kept).all()

    def test_every_key_it_names_is_needed(self, build, make_actor, make_critic, make_rows):
        loss, batch = build(make_actor(), make_critic()), make_rows(8)
        loss(batch.select(*loss.in_keys))
        for key in loss.in_keys:
            with pytest.raises(KeyMissing, match=f"{type(loss).__name__}: expected the key {key!r}"):
                loss(batch.exclude(key))

    def test_nested_observations(self, build, make_actor, make_critic, make_rows):
        actor, critic, batch = make_actor(), make_critic(), make_rows(8)
        expected = build(actor, critic)(batch)
        batch["sensors", "joints"] = batch.pop("observation")
        batch["sensors", "unread"] = torch.zeros(8, 1)
        keys = [("sensors", "joints")]
        loss = build(make_actor(actor.network, in_keys=keys), make_critic(critic.network, in_keys=keys))
        torch.testing.assert_close(loss(batch).to_dict(), expected.to_dict())
        batch["collector", "mask"] = torch.ones(8, dtype=torch.bool)
        torch.testing.assert_close(loss(batch).to_dict(), expected.to_dict())

    def test_lazy_layers_are_refused(self, build, make_actor, make_critic, make_rows):
        lazy = nn.Sequential(nn.LazyLinear(5), nn.Linear(5, 1))
        with pytest.raises(ConfigError, match=r"lazy network\.0\.weight.*example batch"):
            build(make_actor(), make_critic(lazy))
        lazy(make_rows(2)["observation"])
        build(make_actor(), make_critic(lazy))

    def test_copy_is_independent(self, build, make_actor, make_critic, make_rows):
        loss, batch = build(make_actor(), make_critic()), make_rows(8)
        expected = loss(batch)
        other = copy.deepcopy(loss)
        assert {id(x) for x in other.trainable_parameters()} == {id(x) for x in other.parameters()}
        with torch.no_grad():
            for parameter in other.trainable_parameters():
                parameter.zero_()
        torch.testing.assert_close(loss(batch).to_dict(), expected.to_dict())

    def test_compiles_to_one_graph(self, build, make_actor, make_critic, make_rows):
        torch._dynamo.reset()
        loss, batch = build(make_actor(), make_critic()), make_rows(16)
        expected, grads = gradients(loss, batch)
        graphs = torch._dynamo.utils.counters["stats"]
        before = graphs["unique_graphs"]
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        loss.zero_grad()
        total_loss(terms := compiled(batch)).backward()
        torch.testing.assert_close(terms.detach().to_dict(), expected.to_dict())
        torch.testing.assert_close([parameter.grad for parameter in loss.trainable_parameters()], grads)
        compiled(make_rows(16, seed=1))
        assert graphs["unique_graphs"] == before + 1


class Scaled(Loss):
    """The smallest loss: a parameter times a coefficient."""

    scale = Coefficient()

    def __init__(self, scale):
        super().__init__(in_keys=["x"], trained=[network := nn.Linear(1, 1)])
        self.network, self.scale = network, scale

    def terms(self, rows):
        return {"loss_x": (self.network(rows["x"]) * self._scale).mean()}


class TestCoefficient:
    def test_is_read_and_changed_as_a_float(self):
        loss = Scaled(0.2)
        assert loss.scale == 0.2
        loss.scale = 1e-3
        assert loss.scale == 1e-3 and isinstance(loss.scale, float)

    def test_changes_the_loss(self):
        loss, batch = Scaled(1.0), TensorDict({"x": torch.ones(3, 1)}, [3])
        before = loss(batch)["loss_x"]
        loss.scale = -3
        torch.testing.assert_close(loss(batch)["loss_x"], -3 * before)

    def test_is_saved(self):
        loss, other = Scaled(0.2), Scaled(0.7)
        other.load_state_dict(loss.state_dict())
        assert other.scale == 0.2

    def test_losses_do_not_share_it(self):
        one, other = Scaled(1.0), Scaled(2.0)
        copied = copy.deepcopy(one)
        one.scale = 5.0
        assert (other.scale, copied.scale) == (2.0, 1.0)

    def test_change_does_not_compile_again(self):
        torch._dynamo.reset()
        loss, batch = Scaled(1.0), TensorDict({"x": torch.ones(3, 1)}, [3])
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        graphs = torch._dynamo.utils.counters["stats"]
        first = compiled(batch)["loss_x"]
        before = graphs["unique_graphs"]
        loss.scale = 2.0
        torch.testing.assert_close(compiled(batch)["loss_x"], 2 * first)
        assert graphs["unique_graphs"] == before


def test_total_loss_ignores_what_is_logged():
    losses = TensorDict({"loss_a": torch.tensor(1.0), "entropy": torch.tensor(8.0), "loss_b": torch.tensor(2.5)}, [])
    assert total_loss(losses).item() == 3.5
