import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.losses import Constant
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import Actor, Operator, Sequence
from torchrl.objectives import BehaviourCloningLoss, total_loss

LOG_2 = math.log(2.0)


@pytest.fixture
def real():
    """π(s) = (1, 2) against the actions (1, 4) and (0.5, 2)."""
    action = torch.tensor([[1.0, 4.0], [0.5, 2.0]], dtype=torch.float64)
    batch = TensorDict({"observation": torch.zeros(2, 4).double(), "action": action}, [2])
    return Actor(Constant(1.0, 2.0)), batch


class TestDistribution:
    def test_values_by_hand(self, by_hand):
        actor, _, batch = by_hand
        terms = BehaviourCloningLoss(actor, entropy_coef=0.5)(batch.select("observation", "action"))
        assert set(terms.keys()) == {"loss_objective", "loss_entropy", "entropy"}
        assert terms["loss_objective"].item() == pytest.approx((1 + 2 + 2 + 1) * LOG_2 / 4)
        assert terms["loss_entropy"].item() == pytest.approx(-0.5 * 1.5 * LOG_2)
        assert terms["entropy"].item() == pytest.approx(1.5 * LOG_2)

    def test_gradient_by_hand(self, by_hand):
        """π - the share of each action."""
        actor, _, batch = by_hand
        total_loss(BehaviourCloningLoss(actor)(batch)).backward()
        expected = torch.tensor([0.5 - 0.5, 0.25 - 0.25, 0.25 - 0.25], dtype=torch.float64)
        torch.testing.assert_close(actor.module.row.grad, expected)
        actor.module.row.grad = None
        batch["action"] = torch.tensor([0, 0, 0, 1])
        total_loss(BehaviourCloningLoss(actor)(batch)).backward()
        torch.testing.assert_close(actor.module.row.grad, torch.tensor([-0.25, 0.0, 0.25], dtype=torch.float64))


class TestDeterministic:
    @pytest.mark.parametrize(
        ("distance", "expected"), [("l2", (2.0, 0.125)), ("l1", (1.0, 0.25)), ("smooth_l1", (0.75, 0.0625))]
    )
    def test_values_by_hand(self, real, distance, expected):
        actor, batch = real
        rows = BehaviourCloningLoss(actor, distance=distance, reduction="none")(batch)
        assert set(rows.keys()) == {"loss_objective"}
        assert rows["loss_objective"].tolist() == list(expected)
        assert BehaviourCloningLoss(actor, distance=distance)(batch)["loss_objective"].item() == sum(expected) / 2

    def test_gradient_by_hand(self, real):
        actor, batch = real
        total_loss(BehaviourCloningLoss(actor)(batch)).backward()
        # 2 (π(s) - a) over 2 entries and 2 rows
        expected = torch.tensor([0.0 + 0.5, -2.0 + 0.0], dtype=torch.float64) / 2
        torch.testing.assert_close(actor.module.row.grad, expected)

    def test_action_without_a_dimension_of_its_own(self):
        actor = Actor(nn.Flatten(0))
        batch = TensorDict({"observation": torch.ones(3, 1), "action": torch.tensor([1.0, 3.0, 1.0])}, [3])
        assert BehaviourCloningLoss(actor, reduction="none")(batch)["loss_objective"].tolist() == [0.0, 4.0, 0.0]

    def test_in_a_sequence(self, real):
        actor, batch = real
        expected = BehaviourCloningLoss(actor)(batch)
        trunk = Operator(nn.Identity(), in_keys=["observation"], out_keys=["hidden"])
        sequence = Sequence(trunk, Actor(actor.module, in_keys=["hidden"]), out_keys=["action"])
        assert BehaviourCloningLoss(sequence)(batch).to_dict() == expected.to_dict()

    def test_mistakes(self, real):
        actor, batch = real
        loss = BehaviourCloningLoss(actor)
        with pytest.raises(SpecError, match=r"real numbers, got torch.int64.*ProbabilisticActor"):
            loss(batch.clone().set("action", torch.zeros(2, 2, dtype=torch.int64)))
        with pytest.raises(SpecError, match="real numbers, got TensorDict"):
            loss(batch.clone().set("action", TensorDict({"steer": torch.zeros(2, 2)}, [2])))
        with pytest.raises(SpecError, match=r"\[2, 2\].*\[2, 1\]"):
            loss(batch.clone().set("action", torch.zeros(2, 1)))
        for options in ({"entropy_coef": 0.1}, {"num_entropy_samples": 2}):
            with pytest.raises(ConfigError, match="with a distribution, for its entropy, got Actor"):
                BehaviourCloningLoss(actor, **options)
        with pytest.raises(ConfigError, match="distance out of.*'huber'"):
            BehaviourCloningLoss(actor, distance="huber")
