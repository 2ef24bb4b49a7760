"""Scale mappings: positive everywhere, and the values they promise."""

import pickle

import pytest
import torch

from torchrl.modules.distributions.mappings import biased_softplus, bounded, exp, expln, inverse_softplus, softplus

POSITIVE = [exp, expln, softplus, biased_softplus(1.0), biased_softplus(0.1)]


@pytest.mark.parametrize("mapping", POSITIVE)
def test_positive_increasing_and_finite_with_finite_slope(mapping):
    x = torch.linspace(-30, 30, 301, dtype=torch.float64, requires_grad=True)
    y = mapping(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (y > 0).all() and (y.diff() > 0).all() and slope.isfinite().all() and (slope > 0).all()


def test_values_at_zero():
    zero = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(biased_softplus(1.0)(zero).item(), 1.0)
    torch.testing.assert_close(biased_softplus(0.05)(zero).item(), 0.05)
    assert exp(zero) == expln(zero) == 1


def test_inverse_softplus_inverts():
    for y in (1e-6, 0.3, 1.0, 50.0):
        x = torch.tensor(inverse_softplus(y), dtype=torch.float64)
        torch.testing.assert_close(softplus(x).item(), y, rtol=1e-9, atol=0)


def test_expln_grows_like_a_logarithm_and_has_finite_gradient_far_out():
    x = torch.tensor([-500.0, 500.0], requires_grad=True)
    expln(x).sum().backward()
    torch.testing.assert_close(expln(x.detach())[1].item(), 1 + torch.tensor(501.0).log().item())
    assert x.grad.isfinite().all()


def test_bounded_is_the_identity_near_zero_and_never_passes_its_limit():
    mapping = bounded(5.0)
    assert mapping(torch.tensor(1e-3)).item() == pytest.approx(1e-3, rel=1e-5)
    assert mapping(torch.tensor([-1e6, 1e6])).tolist() == [-5.0, 5.0]


def test_mappings_with_an_argument_survive_pickling():
    x = torch.randn(5)
    for mapping in (biased_softplus(0.3), bounded(2.0)):
        assert torch.equal(pickle.loads(pickle.dumps(mapping))(x), mapping(x))
