import math

import pytest
import torch

from torchrl.errors import ConfigError
from torchrl.functional import (
    adapted_kl_coef,
    approx_kl,
    clip_fraction,
    clipped_policy_objective,
    distance_loss,
    effective_sample_size,
    explained_variance,
    penalized_policy_objective,
    policy_gradient_loss,
    sampled_entropy,
    sampled_kl,
    standardize,
    value_loss,
    weighted_policy_objective,
)


def tensor(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def log(*ratios, grad=False):
    return tensor(*(math.log(ratio) for ratio in ratios), grad=grad)


def test_policy_gradient_loss_by_hand():
    log_prob = log(0.5, 0.25, grad=True)
    loss = policy_gradient_loss(log_prob, tensor(2.0, -4.0))
    torch.testing.assert_close(loss, tensor(2 * math.log(2), -8 * math.log(2)))
    loss.sum().backward()
    assert log_prob.grad.tolist() == [-2.0, 4.0]


class TestWeightedPolicyObjective:
    def test_by_hand(self):
        # ratios 1, 1.5 and ½ of an old probability of ¼; nothing is clipped, and the ratio is its own derivative
        log_prob = log(0.25, 0.375, 0.125, grad=True)
        loss = weighted_policy_objective(log_prob, log(0.25, 0.25, 0.25), tensor(2.0, 2.0, -4.0))
        torch.testing.assert_close(loss, tensor(-2.0, -3.0, 2.0))
        loss.sum().backward()
        torch.testing.assert_close(log_prob.grad, tensor(-2.0, -3.0, 2.0))

    def test_gradient_is_the_policy_gradient_where_the_policy_has_not_moved(self):
        advantage = tensor(2.0, -4.0)
        gradients = []
        for objective in (weighted_policy_objective, lambda new, old, gain: policy_gradient_loss(new, gain)):
            log_prob = log(0.5, 0.25, grad=True)
            objective(log_prob, log_prob.detach(), advantage).sum().backward()
            gradients.append(log_prob.grad)
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kl_coef", [3.0, torch.tensor(3.0, dtype=torch.float64)])
def test_penalized_policy_objective_by_hand(kl_coef):
    log_prob, kl = log(0.25, 0.375, grad=True), tensor(0.5, 2.0, grad=True)
    loss = penalized_policy_objective(log_prob, log(0.25, 0.25), tensor(2.0, 2.0), kl, kl_coef=kl_coef)
    torch.testing.assert_close(loss, tensor(-2.0 + 1.5, -3.0 + 6.0))
    loss.sum().backward()
    torch.testing.assert_close(log_prob.grad, tensor(-2.0, -3.0))
    assert kl.grad.tolist() == [3.0, 3.0]


class TestAdaptedKlCoef:
    # target 0.01: β = 3 falls below 0.00667, stays up to 0.015, rises above
    @pytest.mark.parametrize(("kl", "expected"), [(0.0, 1.5), (0.0066, 1.5), (0.0067, 3.0), (0.0149, 3.0), (0.0151, 6)])
    def test_rule(self, kl, expected):
        assert adapted_kl_coef(torch.tensor(3.0), torch.tensor(kl), target=0.01).item() == expected

    def test_factors(self):
        options = {"target": 1.0, "increment": 3.0, "decrement": 0.25, "tolerance": 2.0}
        new = [adapted_kl_coef(torch.tensor(8.0), torch.tensor(kl), **options).item() for kl in (0.4, 0.6, 1.9, 2.1)]
        assert new == [2.0, 8.0, 8.0, 24.0]


class TestClippedPolicyObjective:
    # ratio, advantage, loss, d loss / d log_prob (the ratio's own derivative is the ratio), ε = 0.2
    TABLE = [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # would gain: clipped
        (0.5, 2.0, -1.0, -1.0),  # moved the wrong way: free to come back
        (1.0, -2.0, 2.0, 2.0),
        (0.9, -2.0, 1.8, 1.8),
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 3.0),
        (1.5, 0.0, 0.0, 0.0),
    ]

    @pytest.mark.parametrize("epsilon", [0.2, torch.tensor(0.2, dtype=torch.float64)])
    def test_table(self, epsilon):
        ratio, advantage, expected, gradient = (tensor(*column) for column in zip(*self.TABLE, strict=True))
        old = torch.full_like(ratio, -0.3)
        log_prob = (ratio.log() + old).requires_grad_()
        loss = clipped_policy_objective(log_prob, old, advantage, clip_epsilon=epsilon)
        torch.testing.assert_close(loss, expected)
        loss.sum().backward()
        torch.testing.assert_close(log_prob.grad, gradient)

    def test_equals_equation_7(self):
        generator = torch.Generator().manual_seed(0)
        log_prob, old, advantage = torch.randn(3, 1000, generator=generator, dtype=torch.float64)
        ratio = (log_prob - old).exp()
        for epsilon in (0.0, 0.1, 0.3):
            expected = -torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon) * advantage)
            got = clipped_policy_objective(log_prob, old, advantage, clip_epsilon=epsilon)
            torch.testing.assert_close(got, expected)


class TestApproxKl:
    def test_by_hand(self):
        # (ρ - 1) - log ρ for ρ = 2 and ½: 1 - log 2 and -½ + log 2
        torch.testing.assert_close(approx_kl(log(2.0, 0.5)), torch.tensor(0.25, dtype=torch.float64))

    def test_estimates_the_divergence_from_the_old_policy(self):
        old, new = tensor(0.5, 0.3, 0.2), tensor(0.2, 0.3, 0.5)
        actions = torch.multinomial(old, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
        exact = (old * (old / new).log()).sum()
        torch.testing.assert_close(approx_kl((new / old).log()[actions]), exact, rtol=0.02, atol=0.0)


class TestSampledKl:
    def test_by_hand(self):
        # two samples for each of two rows: ratios 2 and ½, then 1 and 1
        got = sampled_kl(torch.stack([log(2.0, 1.0), log(0.5, 1.0)]))
        torch.testing.assert_close(got, tensor(0.25, 0.0))

    def test_value_and_gradient_are_those_of_the_divergence(self):
        logits = tensor(0.3, -0.2, 0.9, grad=True)
        old, new = tensor(0.5, 0.3, 0.2), logits.log_softmax(-1)
        exact = (old * (old.log() - new)).sum()
        (expected,) = torch.autograd.grad(exact, logits, retain_graph=True)
        actions = torch.multinomial(old, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
        estimate = sampled_kl((new - old.log())[actions].unsqueeze(-1))
        torch.testing.assert_close(estimate, exact.reshape(1), rtol=0.02, atol=0.0)
        torch.testing.assert_close(*torch.autograd.grad(estimate, logits), expected, rtol=0.02, atol=0.002)


class TestSampledEntropy:
    def test_by_hand(self):
        # log π of two samples for each of two rows; weights against the other sample: ∓2, and 0 where both are alike
        log_prob = torch.tensor([[-1.0, -2.0], [-3.0, -2.0]], dtype=torch.float64, requires_grad=True)
        entropy = sampled_entropy(log_prob)
        assert entropy.tolist() == [2.0, 2.0]
        entropy.sum().backward()
        assert log_prob.grad.tolist() == [[-1.0, 0.0], [1.0, 0.0]]

    def test_one_sample_has_no_baseline(self):
        log_prob = torch.tensor([[-1.0, -2.0]], dtype=torch.float64, requires_grad=True)
        entropy = sampled_entropy(log_prob)
        assert entropy.tolist() == [1.0, 2.0]
        entropy.sum().backward()
        assert log_prob.grad.tolist() == [[1.0, 2.0]]

    @pytest.mark.parametrize("num_samples", [1, 2, 5])
    def test_value_and_gradient_are_those_of_the_entropy(self, num_samples):
        logits = tensor(0.3, -0.2, 1.9, grad=True)
        log_probs = logits.log_softmax(-1)
        exact = -(log_probs.exp() * log_probs).sum()
        (expected,) = torch.autograd.grad(exact, logits, retain_graph=True)
        generator = torch.Generator().manual_seed(0)
        actions = torch.multinomial(log_probs.exp(), 400_000, replacement=True, generator=generator)
        estimate = sampled_entropy(log_probs[actions.view(num_samples, -1)]).mean()
        torch.testing.assert_close(estimate, exact, rtol=0.01, atol=0.0)
        torch.testing.assert_close(*torch.autograd.grad(estimate, logits), expected, rtol=0.02, atol=0.003)
        assert (expected.abs() > 0.05).any()  # the naive gradient, which is about 0, would not pass


class TestEffectiveSampleSize:
    def test_by_hand(self):
        # (1 + 2 + 3)² / (3 · (1 + 4 + 9))
        torch.testing.assert_close(effective_sample_size(log(1.0, 2.0, 3.0)).item(), 36 / 42)
        assert effective_sample_size(log(7.0, 7.0, 7.0)).item() == 1.0

    def test_huge_ratios(self):
        assert effective_sample_size(torch.tensor([300.0, 0.0, -300.0, 0.0])).item() == 0.25


def test_clip_fraction_by_hand():
    # ratios 1.5 and 0.7 left [0.8, 1.2]; 1.1 and 0.9 did not
    assert clip_fraction(log(1.5, 0.7, 1.1, 0.9), clip_epsilon=0.2).item() == 0.5
    assert clip_fraction(log(1.5, 0.7, 1.1, 0.9), clip_epsilon=torch.tensor(0.4)).item() == 0.25


class TestDistanceLoss:
    @pytest.mark.parametrize(
        ("distance", "expected"), [("l2", [0.25, 9.0]), ("l1", [0.5, 3.0]), ("smooth_l1", [0.125, 2.5])]
    )
    def test_by_hand(self, distance, expected):
        assert distance_loss(tensor(1.5, -3.0), tensor(1.0, 0.0), distance=distance).tolist() == expected

    def test_mistake(self):
        with pytest.raises(ConfigError, match="distance_loss: .*smooth_l1.*'huber'"):
            distance_loss(tensor(1.0), tensor(1.0), distance="huber")


class TestValueLoss:
    @pytest.mark.parametrize(
        ("distance", "expected"), [("l2", [0.25, 9.0]), ("l1", [0.5, 3.0]), ("smooth_l1", [0.125, 2.5])]
    )
    def test_distances(self, distance, expected):
        assert value_loss(tensor(0.5, -3.0), tensor(0.0, 0.0), distance=distance).tolist() == expected

    def test_clip_takes_the_worse_of_the_two_and_stops_the_gradient_there(self):
        # V, V_old, target, clip ½: the clipped value is V_old ± ½
        value = tensor(0.25, 2.0, 2.0, grad=True)
        old, target = tensor(0.0, 0.0, 0.0), tensor(1.0, 3.0, 0.0)
        loss = value_loss(value, target, old_value=old, clip=0.5)
        # within reach: (¾)²; moved too fast towards the target: (3 - ½)², no gradient; moved away from it: 2²
        assert loss.tolist() == [0.5625, 6.25, 4.0]
        loss.sum().backward()
        assert value.grad.tolist() == [-1.5, 0.0, 4.0]

    def test_mistakes(self):
        with pytest.raises(ConfigError, match="old_value"):
            value_loss(tensor(1.0), tensor(1.0), clip=0.2)
        with pytest.raises(ConfigError, match="smooth_l1.*'huber'"):
            value_loss(tensor(1.0), tensor(1.0), distance="huber")


class TestExplainedVariance:
    def test_by_hand(self):
        target = tensor(0.0, 2.0, 4.0)
        assert explained_variance(target + 7, target).item() == 1.0
        assert explained_variance(tensor(1.0, 1.0, 1.0), target).item() == 0.0
        # residual 0, 1, 2 has a quarter of the target's variance
        assert explained_variance(tensor(0.0, 1.0, 2.0), target).item() == pytest.approx(0.75)
        assert explained_variance(-target, target).item() == pytest.approx(-3.0)

    def test_nothing_to_explain(self):
        assert explained_variance(tensor(1.0, 2.0), tensor(3.0, 3.0)).item() == 0.0

    @pytest.mark.parametrize("constant", [0.1, 1234.567, -1e-6])
    def test_the_rounding_of_a_mean_is_nothing_to_explain(self, constant):
        target = torch.full((1000, 1), constant)
        assert (target - target.mean()).abs().max() < 1e-6 * abs(constant)
        assert explained_variance(torch.linspace(-1, 1, 1000).unsqueeze(-1), target).item() == 0.0
        barely = target * torch.linspace(1 - 1e-4, 1 + 1e-4, 1000).unsqueeze(-1)
        assert explained_variance(barely, barely).item() == 1.0


class TestStandardize:
    def test_by_hand(self):
        # mean 2, population variance 2
        x = tensor(0.0, 2.0, 2.0, 4.0).unsqueeze(-1)
        expected = torch.tensor([-(2**0.5), 0.0, 0.0, 2**0.5], dtype=torch.float64).unsqueeze(-1)
        torch.testing.assert_close(standardize(x), expected)

    def test_one_row(self):
        assert standardize(tensor(5.0)).tolist() == [0.0]
