"""TruncatedNormal: against Gauss-Legendre integrals in float64, from the middle to far outside of the bounds."""

import math

import numpy as np
import pytest
import torch

from torchrl.errors import ConfigError
from torchrl.modules import TruncatedNormal

NODES, WEIGHTS = (torch.tensor(values) for values in np.polynomial.legendre.leggauss(300))
LOW, HIGH = -1.0, 1.5
PLACES = [
    (0.0, 1.0),
    (1.3, 0.4),
    (0.7, 300.0),  # nearly uniform
    (0.2, 0.01),  # hardly cut
    (-1.0, 0.02),  # half cut
    (2.55, 0.1),  # 10 standard deviations outside
    (14.0, 0.5),  # 25
    (-52.0, 1.0),  # 51
    (5.5, 1e-3),  # 4,000
]
places = pytest.mark.parametrize(("loc", "scale"), PLACES)


def row(*values, dtype=torch.float64):
    return torch.tensor([values], dtype=dtype)


class Slow:
    """The same in one dimension, from the definition; integrals over where the density is not negligible."""

    def __init__(self, loc, scale):
        self.loc, self.scale = loc, scale
        at, width = loc.item(), scale.item()
        self.mode = min(max(at, LOW), HIGH)
        away = abs(self.mode - at) / width
        reach = width * (math.sqrt(away**2 + 90) - away)  # the density falls by exp(−45)
        self.start, self.stop = max(LOW, self.mode - reach), min(HIGH, self.mode + reach)
        self.log_mass = self.integrate(lambda x: self.relative(x).exp(), self.start, self.stop).log()

    def relative(self, x):
        """log density, but for a constant: relative to the mode, so that nothing overflows."""
        mode = torch.as_tensor(self.mode, dtype=torch.float64)
        return -(x - mode) * (x + mode - 2 * self.loc) / (2 * self.scale**2)

    @staticmethod
    def integrate(function, start, stop):
        start, stop = (torch.as_tensor(end, dtype=torch.float64)[..., None] for end in (start, stop))
        half = (stop - start) / 2
        return (function((start + stop) / 2 + half * NODES) * WEIGHTS * half).sum(-1)

    def log_prob(self, x):
        return self.relative(x) - self.log_mass

    def expectation(self, function):
        return self.integrate(lambda x: function(x) * self.log_prob(x).exp(), self.start, self.stop)

    def share_below(self, x):
        """F(x), summed from the side where little is, so that a far tail is resolved."""
        return self.integrate(lambda y: self.log_prob(y).exp(), torch.full_like(x, self.start), x)


def test_log_prob_by_hand():
    distribution = TruncatedNormal(row(0.0), row(1.0))
    expected = -0.5 * math.log(2 * math.pi) - math.log(math.erf(1 / math.sqrt(2)))  # 68.27 % lie within one deviation
    torch.testing.assert_close(distribution.log_prob(row(0.0)), torch.tensor([expected]).double())
    uniform = TruncatedNormal(row(0.0), row(1e6), low=-3.0, high=1.0)
    torch.testing.assert_close(uniform.log_prob(row(-2.0)).exp(), torch.tensor([0.25]).double())
    torch.testing.assert_close(uniform.entropy(), torch.tensor([4.0]).double().log())
    exponential = TruncatedNormal(row(-1e4), row(1.0), low=0.0, high=1.0)  # far out, a tail is exponential
    torch.testing.assert_close(exponential.mean, row(1e-4), rtol=1e-7, atol=0)
    torch.testing.assert_close(exponential.median, row(1e-4 * math.log(2)), rtol=1e-7, atol=0)


@places
@pytest.mark.parametrize("quantity", ["log_prob", "entropy", "mean", "kl"])
def test_values_and_gradients_are_those_of_the_integrals(loc, scale, quantity):
    def values(is_ours):
        at, width = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (loc, scale))
        slow = Slow(at, width)
        other_at, other_width = row(loc + 0.1 * scale)[0, 0], row(1.2 * scale)[0, 0]
        x = torch.tensor(
            0.9 * slow.mode + 0.1 * (slow.start if slow.mode == slow.stop else slow.stop), dtype=torch.float64
        )
        if is_ours:
            ours = TruncatedNormal(at[None], width[None], low=LOW, high=HIGH)
            value = {
                "log_prob": lambda: ours.log_prob(x[None]),
                "entropy": ours.entropy,
                "mean": lambda: ours.mean[0],
                "kl": lambda: ours.kl(TruncatedNormal(other_at[None], other_width[None], low=LOW, high=HIGH)),
            }[quantity]()
        else:
            other = Slow(other_at, other_width)
            value = {
                "log_prob": lambda: slow.log_prob(x),
                "entropy": lambda: -slow.expectation(slow.log_prob),
                "mean": lambda: slow.expectation(lambda y: y),
                "kl": lambda: slow.expectation(lambda y: slow.log_prob(y) - other.log_prob(y)),
            }[quantity]()
        return value.detach(), *(gradient * scale for gradient in torch.autograd.grad(value, (at, width)))

    # Gradients are per standard deviation.
    torch.testing.assert_close(values(True), values(False), rtol=1e-7, atol=1e-9)


@places
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_distribution(loc, scale, dtype):
    num = 20_000
    distribution = TruncatedNormal(
        torch.full((num, 1), loc, dtype=dtype), torch.full((num, 1), scale, dtype=dtype), low=LOW, high=HIGH
    )
    action = distribution.sample(torch.Generator().manual_seed(0))
    assert (action >= LOW).all() and (action <= HIGH).all()
    if dtype == torch.float32 and (loc, scale) == (5.5, 1e-3):
        return  # wholly within one rounding of the bound
    slow = Slow(*(torch.tensor(value, dtype=torch.float64) for value in (loc, scale)))
    shares = slow.share_below(action.double()[:, 0])
    ranks = torch.arange(1, num + 1, dtype=torch.float64) / num
    assert (shares.sort().values - ranks).abs().max() * math.sqrt(num) < 1.95  # Kolmogorov-Smirnov, 0.1 %


@places
def test_the_gradient_of_a_sample_is_that_of_its_quantile(loc, scale):
    num, step = 1000, 1e-4 * scale

    def draw(at, width, *, seed=1):
        distribution = TruncatedNormal(at.expand(num, 1), width.expand(num, 1), low=LOW, high=HIGH)
        return distribution.rsample(torch.Generator().manual_seed(seed))[:, 0]

    at, width = row(loc).requires_grad_(), row(scale).requires_grad_()
    rows = at.expand(num, 1).detach().requires_grad_(), width.expand(num, 1).detach().requires_grad_()
    gradients = torch.autograd.grad(draw(*rows).sum(), rows)
    for index, gradient in enumerate(gradients):
        shift = torch.tensor([step * (index == 0), step * (index == 1)], dtype=torch.float64)
        above, below = (draw(at.detach() + sign * shift[0], width.detach() + sign * shift[1]) for sign in (1, -1))
        expected = (above - below) / (2 * step)
        torch.testing.assert_close(scale * gradient[:, 0], scale * expected, rtol=1e-5, atol=1e-7)


@places
def test_float32_is_float64_rounded(loc, scale):
    single, double = (
        TruncatedNormal(row(loc, 0.1, dtype=dtype), row(scale, 0.7, dtype=dtype), low=LOW, high=HIGH)
        for dtype in (torch.float32, torch.float64)
    )
    exact = TruncatedNormal(single.loc.double(), single.scale.double(), low=LOW, high=HIGH)
    for quantity in (lambda x: x.entropy(), lambda x: x.mean, lambda x: x.median, lambda x: x.log_prob(x.mode)):
        torch.testing.assert_close(quantity(single), quantity(exact).float(), rtol=1e-7, atol=1e-7)
    assert double.loc.dtype == torch.float64


def test_a_sample_with_gradient_and_its_density_are_differentiated_through_the_action_too():
    # d/d loc E log p(x) = −d entropy / d loc, which needs both ways to loc.
    loc, scale = row(0.8).requires_grad_(), row(0.6)
    num = 200_000
    _, log_prob = TruncatedNormal(loc.expand(num, 1), scale.expand(num, 1)).rsample_and_log_prob(
        torch.Generator().manual_seed(0)
    )
    (sampled,) = torch.autograd.grad(log_prob.mean(), loc)
    (exact,) = torch.autograd.grad(-TruncatedNormal(loc, scale).entropy().sum(), loc)
    torch.testing.assert_close(sampled, exact, rtol=0, atol=0.01)
    assert exact.abs() > 0.1


@pytest.mark.parametrize(
    "bounds", [(-0.3, 0.7), (0.1, 0.3), (100.0, 101.0), (torch.tensor([0.1]), torch.tensor([0.3]))]
)
def test_what_is_drawn_at_a_bound_is_within_it_and_has_a_density(bounds):
    low, high = bounds
    loc = torch.tensor([-1e3, 1e3]).repeat_interleave(1000)[:, None]
    distribution = TruncatedNormal(loc, torch.full_like(loc, 1e-4), low=low, high=high)
    action, log_prob = distribution.sample_and_log_prob(torch.Generator().manual_seed(0))
    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (low, high))
    assert (action[:1000] == low).all() and (action[1000:] == high).all() and log_prob.isfinite().all()
    assert torch.equal(distribution.mode, action)


def test_outside_there_is_no_density_and_no_gradient():
    loc = row(0.0, 0.5).requires_grad_()
    distribution = TruncatedNormal(loc.expand(3, 2), torch.ones(3, 2).double(), low=LOW, high=HIGH)
    log_prob = distribution.log_prob(torch.tensor([[0.0, 1.6], [-1.01, 0.0], [LOW, HIGH]]).double())
    assert log_prob[:2].tolist() == [-math.inf, -math.inf] and log_prob[2].isfinite()
    (gradient,) = torch.autograd.grad(log_prob[0], loc)
    assert gradient[0, 1] == 0 and gradient.isfinite().all()


def test_mode_is_loc_or_the_bound_next_to_it_and_median_halves():
    distribution = TruncatedNormal(row(-5.0, 0.3, 2.0), row(1.0, 1.0, 1.0), low=LOW, high=HIGH)
    assert distribution.mode.tolist() == [[LOW, 0.3, HIGH]]
    for index, loc in enumerate((-5.0, 0.3, 2.0)):
        share = Slow(torch.tensor(loc, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)).share_below(
            distribution.median[:, index]
        )
        assert share.item() == pytest.approx(0.5, abs=1e-9)


def test_at_the_middle_where_the_sides_are_mirrored_the_gradient_is_not_lost():
    loc = torch.full((1, 1), 0.25, dtype=torch.float64, requires_grad=True)  # the middle of [−1, 1.5]
    (gradient,) = torch.autograd.grad(TruncatedNormal(loc, row(1.0), low=LOW, high=HIGH).log_prob(row(1.0)), loc)
    torch.testing.assert_close(gradient, row(0.75))  # log Z is flat there; −(x − loc)² / 2 is not
    (gradient,) = torch.autograd.grad(TruncatedNormal(loc, row(1.0), low=LOW, high=HIGH).mean.sum(), loc)
    assert 0.3 < gradient.item() < 1


def test_divergence_needs_the_same_bounds():
    one = TruncatedNormal(row(0.0), row(1.0), low=LOW, high=HIGH)
    with pytest.raises(ConfigError, match=r"expected the same bounds, got \[-1.0, 1.5\] and \[-1.0, 1.0\]"):
        one.kl(TruncatedNormal(row(0.0), row(1.0)))


def test_bounds_that_differ_by_dimension():
    family = TruncatedNormal.within(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 3.0]))
    both = family(row(0.5, 4.0), row(1.0, 2.0))
    first, second = TruncatedNormal(row(0.5), row(1.0)), TruncatedNormal(row(4.0), row(2.0), low=0.0, high=3.0)
    torch.testing.assert_close(both.entropy(), first.entropy() + second.entropy())
    torch.testing.assert_close(both.mean, torch.cat([first.mean, second.mean], -1))
    torch.testing.assert_close(both.mode, row(0.5, 3.0))
    with pytest.raises(ConfigError, match="TruncatedNormal.within: expected finite bounds"):
        TruncatedNormal.within(0.0, math.inf)
