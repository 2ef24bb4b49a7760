"""Categorical: against torch.distributions in float64, forbidden actions, and mistakes in the action."""

import math

import pytest
import torch

from torchrl.errors import ConfigError, SpecError
from torchrl.modules import Categorical, Normal

LOGITS = torch.tensor([[0.0, 1.0, -2.0], [30.0, -30.0, 0.5]], dtype=torch.float64)


def reference(logits):
    return torch.distributions.Categorical(logits=logits)


def test_log_prob_by_hand():
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    torch.testing.assert_close(Categorical(logits).log_prob(torch.tensor([2])).exp(), torch.tensor([5 / 8]))


@pytest.mark.parametrize("quantity", ["log_prob", "entropy", "kl"])
def test_values_and_gradients_equal_torch_distributions(quantity):
    def value(family, divergence):
        logits = LOGITS.clone().requires_grad_()
        distribution, other = family(logits), family(LOGITS.flip(-1))
        result = {
            "log_prob": lambda: distribution.log_prob(torch.tensor([2, 1])),
            "entropy": lambda: distribution.entropy(),
            "kl": lambda: divergence(distribution, other),
        }[quantity]()
        return result, *torch.autograd.grad(result.sum(), logits)

    ours = value(Categorical, lambda p, q: p.kl(q))
    theirs = value(reference, torch.distributions.kl_divergence)
    assert ours[0].shape == (2,)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_samples_have_the_probabilities():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = Categorical(probabilities.log().expand(200_000, 4)).sample(torch.Generator().manual_seed(1))
    assert draws.dtype == torch.int64 and draws.shape == (200_000,)
    counts = torch.bincount(draws, minlength=4)
    chi_square = ((counts - 200_000 * probabilities).square() / (200_000 * probabilities)).sum()
    assert chi_square < 16.3  # 0.1 % of the chi-square with 3 degrees of freedom


def test_the_log_prob_handed_out_is_that_of_the_action():
    distribution = Categorical(torch.randn(5, 7, 4))
    action, log_prob = distribution.sample_and_log_prob()
    assert action.shape == log_prob.shape == (5, 7)
    assert torch.equal(distribution.log_prob(action), log_prob)


def test_a_generator_makes_samples_repeatable_and_leaves_the_global_one_alone():
    distribution, before = Categorical(torch.zeros(50, 6)), torch.get_rng_state()
    first, second = (distribution.sample(torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second) and len(first.unique()) == 6
    assert torch.equal(torch.get_rng_state(), before)
    distribution.sample()
    assert not torch.equal(torch.get_rng_state(), before)


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


def test_divergence_from_another_family_is_refused():
    with pytest.raises(ConfigError, match="expected another Categorical, got Normal"):
        Categorical(LOGITS).kl(Normal(LOGITS, LOGITS.exp()))
