"""Several losses as one: terms, keys, parameters, refusals. Its laws: ``test_laws.py``."""

import pytest
import torch
from torch import nn

from cases.losses import KINDS, make_critic, make_rows
from torchrl.errors import ConfigError
from torchrl.modules import ValueOperator
from torchrl.objectives import A2CLoss, BehaviourCloningLoss, JointLoss, Loss, total_loss


class Nearness(Loss):
    """How far a critic is from a number."""

    def __init__(self, critic, target):
        super().__init__(in_keys=critic.in_keys, trained=[critic], optional_keys=["weight"])
        self.critic, self.target, self.seen = critic, target, None

    def terms(self, rows):
        self.seen = set(rows.keys())
        return {f"loss_{self.target}": (self.critic(rows)["state_value"] - self.target).square().mean()}


def test_terms_are_those_of_each_and_shared_parameters_get_the_sum_of_gradients():
    critic = ValueOperator(nn.Linear(4, 1))
    losses = Nearness(critic, 1), Nearness(critic, 3)
    joint, batch = JointLoss(*losses), make_rows(KINDS["discrete"], 6)
    terms = joint(batch)
    assert {key: value.item() for key, value in terms.items()} == {
        f"loss_{loss.target}": total_loss(loss(batch)).item() for loss in losses
    }
    assert joint.trainable_parameters() == list(critic.parameters())
    total_loss(terms).backward()
    together = critic.module.weight.grad.clone()
    critic.zero_grad()
    for loss in losses:
        total_loss(loss(batch)).backward()
    torch.testing.assert_close(together, critic.module.weight.grad)


def test_each_sees_its_own_keys():
    batch = make_rows(KINDS["discrete"], 6)
    nearness = Nearness(make_critic(), 1)
    joint = JointLoss(A2CLoss(KINDS["discrete"].make_actor(), make_critic()), nearness)
    joint(batch)
    assert nearness.seen == {"observation"}
    joint(batch.set("weight", torch.ones(6, 1)))
    assert nearness.seen == {"observation", "weight"}


def test_terms_of_one_name_and_other_things_than_losses_are_refused():
    actor, batch = KINDS["discrete"].make_actor(), make_rows(KINDS["discrete"], 6)
    both = JointLoss(A2CLoss(actor, make_critic()), BehaviourCloningLoss(actor))
    with pytest.raises(ConfigError, match="JointLoss: expected every term from one loss, got .*loss_objective again"):
        both(batch)
    for wrong in ((), (actor,)):
        with pytest.raises(ConfigError, match="JointLoss: expected losses"):
            JointLoss(*wrong)
