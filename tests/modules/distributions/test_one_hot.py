"""OneHotCategorical: one-hot vectors in and out, and the straight-through gradient."""

import pytest
import torch

from torchrl.errors import ConfigError, SpecError
from torchrl.modules import Categorical, MaskedOneHotCategorical, OneHotCategorical

LOGITS = torch.tensor([[0.0, 1.0, -2.0], [3.0, -3.0, 0.5]])


def test_actions_are_one_hot_integers_with_the_log_prob_of_their_index():
    distribution = OneHotCategorical(LOGITS.expand(50, 2, 3))
    action, log_prob = distribution.sample_and_log_prob(torch.Generator().manual_seed(0))
    assert action.dtype == torch.int64 and set(action.unique().tolist()) == {0, 1} and (action.sum(-1) == 1).all()
    index, same = Categorical(LOGITS.expand(50, 2, 3)).sample_and_log_prob(torch.Generator().manual_seed(0))
    assert torch.equal(action.argmax(-1), index) and torch.equal(log_prob, same)
    assert OneHotCategorical(LOGITS).mode.tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("family", ["plain", "masked"])
def test_the_straight_through_gradient_is_that_of_the_probabilities(family):
    logits = LOGITS.clone().requires_grad_()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    distribution = OneHotCategorical(logits) if family == "plain" else MaskedOneHotCategorical(logits, mask)
    action = distribution.rsample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(action.detach(), action.round().detach(), rtol=0, atol=1e-6)
    assert action.is_floating_point() and not hasattr(distribution, "rsample_and_log_prob")
    weights = torch.tensor([[1.0, -2.0, 5.0], [0.3, 0.0, 7.0]])
    (gradient,) = torch.autograd.grad((weights * action).sum(), logits)
    if family == "masked":
        logits = LOGITS.masked_fill(~mask, -1e30).requires_grad_()
    (expected,) = torch.autograd.grad((weights * logits.softmax(-1)).sum(), logits)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    "action",
    [torch.tensor([1, 0]), torch.tensor([[1], [0]]), torch.eye(3)[:2], torch.eye(4, dtype=torch.int64)[:2]],
    ids=["indices", "indices with a trailing dimension", "floats", "another length"],
)
def test_what_is_no_one_hot_action_is_refused(action):
    with pytest.raises(
        SpecError, match=r"one-hot vectors, int64 of shape \[2, 3\], got torch.*Indices are the actions"
    ):
        OneHotCategorical(LOGITS).log_prob(action)


def test_index_and_one_hot_families_are_not_compared():
    with pytest.raises(ConfigError, match="expected another OneHotCategorical, got Categorical"):
        OneHotCategorical(LOGITS).kl(Categorical(LOGITS))
    with pytest.raises(ConfigError, match="expected another Categorical, got OneHotCategorical"):
        Categorical(LOGITS).kl(OneHotCategorical(LOGITS))
