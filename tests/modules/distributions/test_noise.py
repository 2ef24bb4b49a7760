"""Every family makes its action of noise: the mode of zeros, a sample of noise that is drawn by its law."""

import functools

import pytest
import torch

from torchrl.modules import (
    Bernoulli,
    Categorical,
    Delta,
    Distribution,
    GSDENormal,
    GSDETanhNormal,
    MaskedCategorical,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    TanhNormal,
    TruncatedNormal,
)

ROWS = 200


def clocks(like, generator):
    """Return the Gumbel noise by which the exponential clocks of a Categorical ring."""
    return -torch.empty_like(like).exponential_(generator=generator).log()


def shares(like, generator):
    """Return the logistic noise of the uniform numbers of a Bernoulli."""
    return -torch.logit(torch.empty_like(like).uniform_(generator=generator).double())


def normals(like, generator):
    return torch.empty_like(like).normal_(generator=generator)


def quantiles(like, generator):
    """Return the normal noise of the uniform numbers of a TruncatedNormal."""
    return torch.special.ndtri(torch.empty(like.shape, dtype=torch.float64).uniform_(generator=generator))


LOC, SCALE = torch.randn(ROWS, 3), torch.rand(ROWS, 3) + 0.1
LEGAL = (torch.arange(3) < 2).expand(ROWS, 3)
FAMILIES = {
    "Categorical": (lambda: Categorical(LOC), "gumbel", clocks),
    "OneHotCategorical": (lambda: OneHotCategorical(LOC), "gumbel", clocks),
    "MaskedCategorical": (lambda: MaskedCategorical(LOC, LEGAL), "gumbel", clocks),
    "MultiCategorical": (lambda: MultiCategorical.of([1, 2])(LOC), "gumbel", clocks),
    "Bernoulli": (lambda: Bernoulli(LOC), "logistic", shares),
    "Normal": (lambda: Normal(LOC, SCALE), "normal", normals),
    "TanhNormal": (lambda: TanhNormal.within(-torch.ones(3), torch.arange(3.0))(LOC, SCALE), "normal", normals),
    "TruncatedNormal": (lambda: TruncatedNormal.within(-1.0, 2.0)(LOC, SCALE), "normal", quantiles),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_zero_noise_gives_the_mode_and_noise_by_the_law_a_sample(name):
    make, law, draw = FAMILIES[name]
    distribution = make()
    assert distribution.noise_law == law
    like = distribution.noise_like()
    torch.testing.assert_close(distribution.from_noise(torch.zeros_like(like)), distribution.mode)
    noise = draw(like, torch.Generator().manual_seed(0))
    due = distribution.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(distribution.from_noise(noise), due, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [GSDENormal, GSDETanhNormal])
def test_the_noise_of_gsde_is_in_its_parameters(family):
    distribution = family(LOC, SCALE, SCALE)
    assert distribution.noise_law is None
    torch.testing.assert_close(distribution.from_noise(None), distribution.sample())
    torch.testing.assert_close(family(LOC, SCALE, 0 * SCALE).from_noise(None), distribution.mode)


def test_a_point_takes_no_noise():
    assert Delta.noise_law is None
    assert Delta(LOC).from_noise(None) is LOC


def test_a_family_of_another_kind_says_that_it_makes_none():
    class Mine(Distribution):
        pass

    with pytest.raises(ValueError, match="Mine, which has none"):
        functools.partial(Mine)().from_noise(None)
