"""Categorical: against torch.distributions in float64, forbidden actions, and mistakes in the action."""

import math

import pytest
import torch

from torchrl.errors import ConfigError, SpecError
from torchrl.modules import Categorical

LOGITS = torch.tensor([[0.0, 1.0, -2.0], [30.0, -30.0, 0.5]], dtype=torch.float64)


def test_log_prob_by_hand():
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    torch.testing.assert_close(Categorical(logits).log_prob(torch.tensor([2])).exp(), torch.tensor([5 / 8]))


def test_forbidden_actions_are_never_drawn_and_never_make_a_nan():
    logits = torch.tensor([0.0, -math.inf, 0.0, -math.inf])
    distribution = Categorical(logits.expand(200_000, 4))
    assert set(distribution.sample().unique().tolist()) == {0, 2}
    logits = logits[None].clone().requires_grad_()
    distribution = Categorical(logits)
    torch.testing.assert_close(distribution.entropy(), torch.tensor([math.log(2)]))
    torch.testing.assert_close(distribution.kl(Categorical(logits.detach())), torch.zeros(1))
    total = (
        distribution.entropy()
        + distribution.log_prob(torch.tensor([0]))
        + distribution.kl(Categorical(logits[:, [2, 1, 0, 3]]))
    )
    (gradient,) = torch.autograd.grad(total.sum(), logits)
    assert gradient.isfinite().all() and gradient[0, 1] == gradient[0, 3] == 0


def test_divergence_is_huge_where_the_other_forbids():
    one, other = Categorical(torch.zeros(1, 2)), Categorical(torch.tensor([[0.0, -math.inf]]))
    assert one.kl(other) > 1e30


def test_mode_is_the_most_probable_index_and_there_is_no_mean():
    assert Categorical(LOGITS).mode.tolist() == [1, 0]
    with pytest.raises(ConfigError, match="Categorical: expected a family with a mean"):
        _ = Categorical(LOGITS).mean


@pytest.mark.parametrize(
    "action",
    [torch.tensor([[1], [0]]), torch.eye(3, dtype=torch.int64)[:2], torch.tensor([1.0, 0.0]), torch.tensor([1, 0, 1])],
    ids=["trailing dimension", "one-hot", "float", "another length"],
)
def test_an_action_that_is_no_index_is_refused(action):
    with pytest.raises(SpecError, match=r"expected int64 indices of shape \[2\], got torch\..*argmax"):
        Categorical(LOGITS).log_prob(action)
