"""Normal and TanhNormal: against torch.distributions and quadrature in float64, far tails, bounds, and PPO's ratio."""

import copy
import math
import pickle

import pytest
import torch
from torch import distributions as torch_distributions

from torchrl.errors import ConfigError, SpecError
from torchrl.modules import Normal, TanhNormal

LOC = torch.tensor([[0.0, 1.5, -3.0], [0.2, -0.7, 2.0]], dtype=torch.float64)
SCALE = torch.tensor([[1.0, 0.1, 2.0], [0.5, 0.05, 1.3]], dtype=torch.float64)
BOUNDS = [(-1.0, 1.0), (-2.0, 2.0), (-0.3, 0.7), (torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 3.0, 2.5]))]


def squashed_reference(loc, scale, low, high):
    """The same family in torch.distributions; its inverse of tanh does not clamp."""
    low, high = torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64)
    affine = torch_distributions.AffineTransform((high + low) / 2, (high - low) / 2)
    transforms = [torch_distributions.TanhTransform(), affine]
    return torch_distributions.Independent(
        torch_distributions.TransformedDistribution(torch_distributions.Normal(loc, scale), transforms), 1
    )


def dense_expectation(function, loc, scale):
    """E function(u) by the trapezoidal rule on 40,001 points, float64; ``loc`` and ``scale`` are ``[B, A]``."""
    z = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return torch.trapezoid(function(loc[..., None] + scale[..., None] * z) * density, z)


def log_slope(u):
    return 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))


# ---- Normal ----------------------------------------------------------------------------------------------------------


def test_normal_log_prob_by_hand():
    distribution = Normal(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))
    expected = -(0.5 + 0.5) - math.log(2) - math.log(2 * math.pi)  # one standard deviation away in both
    torch.testing.assert_close(distribution.log_prob(torch.tensor([[1.0, -2.0]])), torch.tensor([expected]))


def test_normal_samples_have_the_moments():
    loc, scale = LOC[:1].expand(100_000, 3), SCALE[:1].expand(100_000, 3)
    draws = Normal(loc, scale).sample(torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        (draws.mean(0) - LOC[0]) / SCALE[0], torch.zeros(3, dtype=torch.float64), atol=0.015, rtol=0
    )
    torch.testing.assert_close(draws.std(0), SCALE[0], rtol=0.015, atol=0)


def test_normal_rsample_carries_gradient_and_sample_does_not():
    loc, scale = LOC.clone().requires_grad_(), SCALE.clone().requires_grad_()
    distribution = Normal(loc, scale)
    action = distribution.rsample(torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(action.sum(), (loc, scale))
    torch.testing.assert_close(gradients, (torch.ones_like(LOC), ((action - LOC) / SCALE).detach()))
    assert not distribution.sample().requires_grad


def test_normal_mode_mean_and_median_are_loc():
    distribution = Normal(LOC, SCALE)
    assert all(torch.equal(value, LOC) for value in (distribution.mode, distribution.mean, distribution.median))


@pytest.mark.parametrize("family", [Normal, TanhNormal])
def test_shapes_that_would_broadcast_are_refused(family):
    with pytest.raises(SpecError, match=r"loc \[2, 3\], scale \[3\]"):
        family(LOC, SCALE[0])
    with pytest.raises(SpecError, match=r"expected an action of shape \[4, 1\], got \[4\]"):
        family(torch.zeros(4, 1), torch.ones(4, 1)).log_prob(torch.zeros(4))


# ---- TanhNormal ------------------------------------------------------------------------------------------------------


def test_tanh_normal_log_prob_by_hand():
    distribution = TanhNormal(torch.zeros(1, 1), torch.ones(1, 1), low=-2.0, high=2.0)
    u = math.atanh(0.5)  # of the action 1.0; the slope there is 2 · (1 − 0.25)
    expected = -u * u / 2 - 0.5 * math.log(2 * math.pi) - math.log(1.5)
    torch.testing.assert_close(distribution.log_prob(torch.tensor([[1.0]])), torch.tensor([expected]))


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_tanh_normal_log_prob_and_gradients_equal_torch_distributions(low, high):
    u = torch.tensor([[0.3, -4.0, 6.0], [-7.0, 0.0, 1.0]], dtype=torch.float64)
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in (low, high))
    action = (low + high) / 2 + (high - low) / 2 * torch.tanh(u)
    results = []
    for family in (
        lambda loc, scale: TanhNormal(loc, scale, low=low, high=high),
        lambda *p: squashed_reference(*p, low, high),
    ):
        loc, scale, leaf = (tensor.clone().requires_grad_() for tensor in (LOC, SCALE, action))
        log_prob = family(loc, scale).log_prob(leaf)
        results.append((log_prob, *torch.autograd.grad(log_prob.sum(), (loc, scale, leaf))))
    torch.testing.assert_close(*results, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("low", "high"), BOUNDS[:3])
def test_tanh_normal_density_integrates_to_one(low, high):
    for loc, scale in ((0.0, 0.3), (0.8, 0.5), (-1.0, 0.9)):
        grid = torch.linspace(low, high, 200_001, dtype=torch.float64)[:, None]
        distribution = TanhNormal(torch.full_like(grid, loc), torch.full_like(grid, scale), low=low, high=high)
        assert torch.trapezoid(distribution.log_prob(grid).exp(), grid[:, 0]).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("loc", [0.0, 3.0, 8.0, -9.0, 25.0, 1e4])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 5.0])
@pytest.mark.parametrize(("low", "high"), [*BOUNDS[:3], (100.0, 101.0)])
def test_the_stored_action_gives_back_its_log_prob_however_saturated(loc, scale, low, high):
    loc = torch.full((1000, 3), loc).requires_grad_()
    distribution = TanhNormal(loc, torch.full((1000, 3), scale), low=low, high=high)
    action, log_prob = distribution.sample_and_log_prob(torch.Generator().manual_seed(3))
    again = distribution.log_prob(action.clone())
    assert torch.equal(again, log_prob) and log_prob.isfinite().all()
    (gradient,) = torch.autograd.grad((again - log_prob.detach()).exp().sum(), loc)
    assert gradient.isfinite().all()


def test_the_ratio_is_one_though_another_matrix_product_rounds_differently():
    generator = torch.Generator().manual_seed(0)
    # One free action, one that is nearly saturated, one at the edge of what float32 can tell, one saturated for good.
    loc = torch.tensor([0.5, 5.0, -8.4, 12.0]) + 0.1 * torch.randn(4096, 4, generator=generator)
    scale = torch.full_like(loc, 0.5)
    action, log_prob = TanhNormal(loc, scale).sample_and_log_prob(generator)
    assert (action[:, 3] == 1).float().mean() > 0.9 and 0.05 < (action[:, 2] == -1).float().mean() < 0.5
    nudged = torch.nextafter(loc, torch.where(torch.rand(loc.shape, generator=generator) < 0.5, 100.0, -100.0))
    ratio = (TanhNormal(nudged, scale).log_prob(action) - log_prob).exp()
    torch.testing.assert_close(ratio, torch.ones(4096), rtol=0, atol=1e-5)


def test_between_two_policies_the_slope_of_tanh_cancels():
    u = torch.tensor([[0.5, -2.0, 4.0]], dtype=torch.float64)
    action, moved = torch.tanh(u), LOC[:1] + 0.3
    difference = TanhNormal(moved, SCALE[:1]).log_prob(action) - TanhNormal(LOC[:1], SCALE[:1]).log_prob(action)
    expected = Normal(moved, SCALE[:1]).log_prob(u) - Normal(LOC[:1], SCALE[:1]).log_prob(u)
    torch.testing.assert_close(difference, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (5.0, 2.0), (-9.0, 1.5), (12.0, 3.0)])
def test_at_and_outside_a_bound_the_log_prob_is_that_of_the_tail(dtype, sign, loc, scale):
    eps = torch.finfo(dtype).eps
    edge = 0.5 * math.log((2 - eps) / eps)  # atanh(1 − eps)
    tail = 0.5 * math.erfc((edge - sign * loc) / scale / math.sqrt(2))
    distribution = TanhNormal(*(torch.full((1, 1), value, dtype=dtype) for value in (loc, scale)))
    for action in (1.0, 1.0 - eps / 2, 1.5, math.inf):
        log_prob = distribution.log_prob(torch.full((1, 1), sign * action, dtype=dtype))
        assert log_prob.item() == pytest.approx(math.log(tail), rel=1e-5, abs=1e-12)


def test_where_the_bounds_lie_far_from_zero_the_action_rounds_earlier_and_counts_as_the_bound_earlier():
    # Floats near 101 are 7.6e-6 apart, so y is known to 1.5e-5 and u beyond 6 is not to be told from infinity.
    distribution = TanhNormal(torch.full((100, 1), 7.0), torch.full((100, 1), 0.1), low=100.0, high=101.0)
    action, log_prob = distribution.sample_and_log_prob(torch.Generator().manual_seed(0))
    assert (action > 101 - 2e-5).all() and log_prob.abs().max() < 1e-6


def test_samples_at_a_bound_are_as_frequent_as_their_log_prob_says():
    loc, scale = torch.full((200_000, 1), 6.0), torch.full((200_000, 1), 4.0)
    distribution = TanhNormal(loc, scale)
    action = distribution.sample(torch.Generator().manual_seed(8))
    share = (action > 1 - torch.finfo(torch.float32).eps).float().mean().item()
    assert distribution.log_prob(torch.ones_like(action))[0].exp().item() == pytest.approx(share, abs=0.03)


def test_probabilities_of_the_bounds_and_the_density_between_them_add_up_to_one():
    # In float64 through u, where the grid is fine: density · d action = exp(log_prob) · (1 − tanh²u) du.
    u = torch.linspace(-18.3, 18.3, 200_001, dtype=torch.float64)[:, None]
    distribution = TanhNormal(torch.full_like(u, 16.0), torch.full_like(u, 3.0))
    density = (distribution.log_prob(torch.tanh(u)) + log_slope(u)[:, 0]).exp()
    bounds = sum(distribution.log_prob(torch.full_like(u, bound))[0].exp() for bound in (-1.0, 1.0))
    assert torch.trapezoid(density, u[:, 0]).item() + bounds.item() == pytest.approx(1, abs=0.03)
    assert bounds.item() > 0.2


def test_a_policy_that_is_saturated_for_good_is_not_pushed_and_one_that_is_not_is_drawn_there():
    loc = torch.tensor([[25.0], [5.0], [-5.0]], requires_grad=True)
    log_prob = TanhNormal(loc, torch.full_like(loc, 0.5)).log_prob(torch.tensor([[1.0], [1.0], [1.0]]))
    (gradient,) = torch.autograd.grad(log_prob.sum(), loc)
    assert log_prob[0] == 0 and gradient[0] == 0
    # Far in the tail the logarithm of Φ(−z) behaves like −z²/2, so its slope is z / scale and a bit more.
    for row, place in ((1, 5.0), (2, -5.0)):
        z = (0.5 * math.log((2 - 2**-23) / 2**-23) - place) / 0.5
        assert gradient[row].item() == pytest.approx(z / 0.5, rel=0.05) and gradient[row] > z / 0.5


@pytest.mark.parametrize("action", [0.999, 0.99999, -0.9999999])
def test_float32_log_prob_near_a_bound_is_the_float64_one_of_the_same_action(action):
    action = torch.tensor([[action]])
    low_precision = TanhNormal(torch.zeros(1, 1), torch.ones(1, 1)).log_prob(action)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    torch.testing.assert_close(
        low_precision.double(), TanhNormal(zero, one).log_prob(action.double()), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("bounds", [(-0.3, 0.7), (0.1, 0.3), (100.0, 101.0), (-0.4, 0.4), (torch.tensor([-1.0]), 0.1)])
def test_actions_never_leave_the_bounds_by_rounding(bounds):
    low, high = bounds
    u = torch.linspace(-20, 20, 100_001)[:, None]
    action = TanhNormal(u, torch.full_like(u, 1e-6), low=low, high=high).sample()
    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (low, high))
    assert (action >= low).all() and (action <= high).all()
    assert action.max() > high - 1e-4 and action.min() < low + 1e-4


def test_a_loss_that_draws_its_own_actions_is_exact_however_saturated():
    loc = torch.tensor([[0.4, 12.0, -40.0]], requires_grad=True)
    scale = torch.tensor([[0.5, 1.0, 2.0]], requires_grad=True)
    action, log_prob = TanhNormal(loc, scale).rsample_and_log_prob(torch.Generator().manual_seed(4))
    eps = torch.empty(1, 3).normal_(generator=torch.Generator().manual_seed(4)).double()
    loc_64, scale_64 = (tensor.detach().double().requires_grad_() for tensor in (loc, scale))
    u = loc_64 + scale_64 * eps
    # log N(u) with z = ε, and log(1 − tanh²u) = log 4 − 2|u| − 2 log(1 + exp(−2|u|))
    slope = math.log(4) - 2 * u.abs() - 2 * torch.log1p(torch.exp(-2 * u.abs()))
    expected = (-eps.square() / 2 - scale_64.log() - 0.5 * math.log(2 * math.pi) - slope).sum(-1)
    torch.testing.assert_close(log_prob.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(action.double(), torch.tanh(u), rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(log_prob.sum(), (loc, scale))
    expected_gradients = torch.autograd.grad(expected.sum(), (loc_64, scale_64))
    torch.testing.assert_close([g.double() for g in gradients], list(expected_gradients), rtol=1e-5, atol=1e-6)


def test_both_log_probs_agree_where_nothing_is_saturated():
    distribution = TanhNormal(LOC / 3, SCALE / 3, low=-2.0, high=3.0)
    action, log_prob = distribution.rsample_and_log_prob()
    torch.testing.assert_close(distribution.log_prob(action), log_prob, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_entropy_by_quadrature(low, high):
    loc = torch.linspace(-6, 6, 25, dtype=torch.float64)[:, None].expand(25, 3)
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in (low, high))
    for value, tolerance in ((0.05, 1e-9), (0.5, 1e-9), (1.0, 3 * 2e-6), (2.0, 3 * 1e-3), (5.0, 3 * 5e-2)):
        scale = torch.full_like(loc, value)
        normal = (scale.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
        log_half = ((high - low) / 2).log().expand(3).sum()
        expected = normal + dense_expectation(log_slope, loc, scale).sum(-1) + log_half
        torch.testing.assert_close(
            TanhNormal(loc, scale, low=low, high=high).entropy(), expected, rtol=0, atol=tolerance
        )


def test_entropy_draws_no_random_numbers_and_its_gradient_is_right():
    before = torch.get_rng_state()
    loc, scale = LOC.clone().requires_grad_(), SCALE.clone().requires_grad_()
    gradients = torch.autograd.grad(TanhNormal(loc, scale).entropy().sum(), (loc, scale))
    assert torch.equal(torch.get_rng_state(), before)
    loc, scale = LOC.clone().requires_grad_(), SCALE.clone().requires_grad_()
    dense = (scale.log() + dense_expectation(log_slope, loc, scale)).sum()
    torch.testing.assert_close(gradients, torch.autograd.grad(dense, (loc, scale)), rtol=0, atol=2e-3)


def test_mean_by_quadrature_and_mode_by_squashing():
    loc = torch.linspace(-6, 6, 25, dtype=torch.float64)[:, None]
    scale = torch.ones_like(loc)
    distribution = TanhNormal(loc, scale, low=-1.0, high=3.0)
    torch.testing.assert_close(distribution.mean, 1 + 2 * dense_expectation(torch.tanh, loc, scale), rtol=0, atol=1e-5)
    torch.testing.assert_close(distribution.mode, 1 + 2 * torch.tanh(loc))
    assert torch.equal(distribution.median, distribution.mode)


def test_divergence_is_that_of_the_normals_and_needs_the_same_bounds():
    one, other = TanhNormal(LOC, SCALE, low=-2.0, high=2.0), TanhNormal(LOC + 0.1, 2 * SCALE, low=-2.0, high=2.0)
    torch.testing.assert_close(one.kl(other), Normal(LOC, SCALE).kl(Normal(LOC + 0.1, 2 * SCALE)))
    with pytest.raises(ConfigError, match="expected the same bounds"):
        one.kl(TanhNormal(LOC, SCALE))


def test_within_prefers_numbers_and_keeps_bounds_that_differ():
    bounds = TanhNormal.within(torch.full((8, 3), -0.4), torch.full((8, 3), 0.5)).keywords["bounds"]
    assert bounds.low == pytest.approx(-0.4) and bounds.high == 0.5 and isinstance(bounds.middle, float)
    family = TanhNormal.within(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 3.0, 2.5]))
    for copied in (family, copy.deepcopy(family), pickle.loads(pickle.dumps(family))):
        mode = copied(torch.zeros(2, 3), torch.ones(2, 3)).mode
        torch.testing.assert_close(mode, torch.tensor([0.0, 1.5, 2.25]).expand(2, 3))


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, -1.0), (-1.0, math.inf), (torch.tensor([0.0, 2.0]), 1.0), (torch.rand(8, 3), 2.0)],
    ids=["swapped", "infinite", "one swapped", "of many environments"],
)
def test_within_refuses_bad_bounds(low, high):
    with pytest.raises(ConfigError, match=r"TanhNormal.within: expected"):
        TanhNormal.within(low, high)
