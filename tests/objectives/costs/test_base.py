"""The parts that losses share. What every loss obeys is in ``test_laws.py``."""

import copy

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import SpecError
from torchrl.objectives import ClipPPOLoss, Coefficient, Loss, total_loss


def test_networks_are_not_shown_masked_rows(make_actor, make_critic, make_rows):
    batch = make_rows(3, 4)
    batch["collector", "mask"] = torch.arange(12).reshape(3, 4) % 3 != 1
    batch["observation"][~batch["collector", "mask"]] = float("nan")  # which the networks of these tests refuse
    critic = make_critic()
    ClipPPOLoss(make_actor(), critic)(batch)
    assert critic.rows == 8


class Steered(Loss):
    """Reads a nested action whole, and one leaf of it."""

    def __init__(self):
        super().__init__(in_keys=["action", ("action", "steer")], trained=[network := nn.Linear(1, 1)])
        self.network = network

    def terms(self, rows):
        rows.set(("action", "steer"), self.network(rows["action"]["steer"]))
        return {"loss_steer": rows["action", "steer"].mean()}


@pytest.mark.parametrize("masked", [False, True])
def test_nested_actions_are_constants_and_left_alone(masked):
    batch = TensorDict({"action": TensorDict({"steer": torch.ones(4, 1, requires_grad=True)}, [4])}, [4])
    steer = batch["action", "steer"]
    if masked:
        batch["collector", "mask"] = torch.tensor([True, False, True, True])
    total_loss(Steered()(batch)).backward()
    assert batch["action", "steer"] is steer and steer.grad is None


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


def test_total_loss_refuses_rows():
    with pytest.raises(SpecError, match=r"total_loss: expected scalars, got shape \[3\].*none"):
        total_loss(TensorDict({"loss_a": torch.ones(3), "loss_b": torch.tensor(1.0)}, []))


def test_total_loss_ignores_what_is_logged():
    losses = TensorDict({"loss_a": torch.tensor(1.0), "entropy": torch.tensor(8.0), "loss_b": torch.tensor(2.5)}, [])
    assert total_loss(losses).item() == 3.5


class Returns(Loss):
    """Returns what it is told to, from rows with one entry."""

    def __init__(self, terms):
        super().__init__(in_keys=["x"], trained=[])
        self.of = terms

    def terms(self, rows):
        return self.of(rows)


def test_what_terms_get_wrong_is_named():
    batch = TensorDict({"x": torch.ones(4), "y": torch.ones(4)}, [4])
    with pytest.raises(SpecError, match="Returns, term 'count': expected a tensor, got int"):
        Returns(lambda rows: {"loss_x": rows["x"].mean(), "count": 4})(batch)
    with pytest.raises(KeyError) as caught:
        Returns(lambda rows: {"loss_x": rows["y"].mean()})(batch)
    assert caught.value.__notes__ == ["Returns and its networks see what its in_keys name alone: ['x']."]
