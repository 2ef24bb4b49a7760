"""Delta and TanhDelta: the action with its gradient, and infinite log-probs."""

import math

import pytest
import torch

from torchrl.errors import ConfigError
from torchrl.modules import Delta, ProbabilisticActor, TanhDelta

PARAM = torch.tensor([[0.0, 1.0], [-3.0, 20.0]])


def test_every_choice_is_the_one_action():
    delta, squashed = Delta(PARAM), TanhDelta(PARAM, low=-1.0, high=3.0)
    for distribution, action in ((delta, PARAM), (squashed, 1 + 2 * torch.tanh(PARAM))):
        for value in (distribution.sample(), distribution.mode, distribution.mean, distribution.median):
            torch.testing.assert_close(value, action)
    assert squashed.mode[1, 1] == 3


def test_the_gradient_goes_through_the_action():
    param = PARAM.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Delta(param).rsample().sum(), param)
    assert torch.equal(gradient, torch.ones(2, 2))
    (gradient,) = torch.autograd.grad(TanhDelta(param, low=-2.0, high=2.0).rsample().sum(), param)
    torch.testing.assert_close(gradient, 2 * (1 - torch.tanh(PARAM).square()))
    assert not TanhDelta(param).sample().requires_grad


def test_log_prob_is_infinite_and_tolerates_a_little():
    actions = PARAM + torch.tensor([[1e-7, -1e-7], [0.0, 1e-3]])
    assert Delta(PARAM).log_prob(actions).tolist() == [math.inf, -math.inf]
    assert Delta(PARAM, atol=1e-2).log_prob(actions).tolist() == [math.inf, math.inf]
    assert Delta(PARAM, atol=0.0, rtol=0.0).log_prob(actions).tolist() == [-math.inf, -math.inf]
    one_off = PARAM + torch.tensor([[0.0, 0.1], [0.0, 0.0]])  # one entry of a row decides
    assert Delta(PARAM).log_prob(one_off).tolist() == [-math.inf, math.inf]
    squashed = TanhDelta(PARAM, low=0.0, high=4.0)
    assert squashed.log_prob(squashed.mode).tolist() == [math.inf, math.inf]
    assert squashed.log_prob(PARAM.clone()).tolist() == [-math.inf, -math.inf]


def test_bounds_are_kept_to_by_rounding_and_may_differ_by_dimension():
    family = TanhDelta.within(torch.tensor([-0.3, 0.1]), torch.tensor([0.7, 0.3]))
    mode = family(torch.tensor([[30.0, -30.0]])).mode
    assert mode.tolist() == [[torch.tensor(0.7).item(), torch.tensor(0.1).item()]]
    with pytest.raises(ConfigError, match="TanhDelta.within: expected finite bounds"):
        TanhDelta.within(1.0, -1.0)


def test_an_actor_without_log_probs_acts_like_any_other():
    actor = ProbabilisticActor(torch.nn.Linear(3, 2), TanhDelta, log_prob_key=None)
    assert actor.out_keys == ["param", "action"]
