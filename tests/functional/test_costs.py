import math

import pytest
import torch

from torchrl.errors import ConfigError, SpecError
from torchrl.functional import (
    approx_kl,
    clip_fraction,
    clipped_policy_objective,
    explained_variance,
    standardize,
    value_loss,
)


def tensor(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def log(*ratios, grad=False):
    return tensor(*(math.log(ratio) for ratio in ratios), grad=grad)


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


def test_clip_fraction_by_hand():
    # ratios 1.5 and 0.7 left [0.8, 1.2]; 1.1 and 0.9 did not
    assert clip_fraction(log(1.5, 0.7, 1.1, 0.9), clip_epsilon=0.2).item() == 0.5
    assert clip_fraction(log(1.5, 0.7, 1.1, 0.9), clip_epsilon=torch.tensor(0.4)).item() == 0.25


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


class TestStandardize:
    def test_by_hand(self):
        # mean 2, population variance 2
        x = tensor(0.0, 2.0, 2.0, 4.0).unsqueeze(-1)
        expected = torch.tensor([-(2**0.5), 0.0, 0.0, 2**0.5], dtype=torch.float64).unsqueeze(-1)
        torch.testing.assert_close(standardize(x), expected)

    def test_one_row(self):
        assert standardize(tensor(5.0)).tolist() == [0.0]


ROW, COLUMN = torch.zeros(4), torch.zeros(4, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: clipped_policy_objective(ROW, ROW, COLUMN, clip_epsilon=0.2),
        lambda: clipped_policy_objective(ROW, COLUMN, ROW, clip_epsilon=0.2),
        lambda: clipped_policy_objective(COLUMN, ROW, ROW, clip_epsilon=0.2),
        lambda: value_loss(ROW, COLUMN),
        lambda: value_loss(COLUMN, COLUMN, old_value=ROW, clip=0.2),
        lambda: explained_variance(ROW, COLUMN),
    ],
)
def test_nothing_is_broadcast(call):
    with pytest.raises(SpecError, match=r"\[4\].*\[4, 1\]|\[4, 1\].*\[4\]"):
        call()
