import pytest
import torch
from torch import nn

from cases.losses import KINDS
from torchrl.data import specs
from torchrl.errors import ConfigError
from torchrl.modules import (
    Actor,
    Categorical,
    Delta,
    Operator,
    ProbabilisticActor,
    Projected,
    Sequence,
    TanhDelta,
    ValueOperator,
)
from torchrl.objectives import A2CLoss, BehaviourCloningLoss
from torchrl.objectives.costs.actor import entropy_from_samples, head_of


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("kind", ["discrete", "multi-discrete", "binary", "normal", "tanh", "truncated", "composite"])
def test_entropy_from_samples_has_the_value_and_the_gradient_of_the_formula(kind, num_samples):
    torch.manual_seed(0)
    actor = KINDS[kind].make_actor(nn.Linear(4, 5))
    observation = torch.randn(1, 4)
    outputs = [x.detach().requires_grad_() for x in actor.module(observation)]
    exact = actor.distribution(*outputs).entropy().mean()
    expected = torch.autograd.grad(exact, outputs, materialize_grads=True)
    rows = 200_000 // num_samples
    distribution = actor.distribution(*(x.expand(rows, -1) for x in outputs))
    generator = torch.Generator().manual_seed(0)
    estimate = entropy_from_samples(distribution, num_samples, generator=generator)
    assert estimate.shape == (rows,)
    torch.testing.assert_close(estimate.mean(), exact, rtol=0.01, atol=0.01)
    got = torch.autograd.grad(estimate.mean(), outputs)
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)


def test_the_head_is_what_chooses_the_action():
    head = ProbabilisticActor(nn.Linear(5, 3), Categorical, in_keys=["hidden"])
    trunk = Operator(nn.Linear(4, 5), in_keys=["observation"], out_keys=["hidden"])
    assert head_of(Sequence(trunk, Sequence(trunk, head))) is head
    assert head_of(head) is head
    assert isinstance(head_of(Sequence(trunk, Actor(nn.Linear(5, 2), in_keys=["hidden"]))), Actor)
    assert head_of(Projected(Sequence(trunk, head), specs.Categorical(3))) is head


@pytest.mark.parametrize("make_loss", [A2CLoss, lambda actor, critic: BehaviourCloningLoss(actor)])
@pytest.mark.parametrize("family", [Delta, TanhDelta.within(-1.0, 1.0)])
def test_a_family_without_chance_is_refused_with_what_to_do(family, make_loss):
    actor = ProbabilisticActor(nn.Linear(4, 2), family)
    with pytest.raises(ConfigError, match="with a random action, got (Tanh)?Delta.*as an Actor"):
        make_loss(actor, ValueOperator(nn.Linear(4, 1)))
