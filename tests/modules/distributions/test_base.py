"""The contract of distributions, on a family that a user might write."""

import pytest
import torch

from torchrl.errors import ConfigError
from torchrl.modules import Distribution


class Uniform(Distribution):
    """Uniform on [0, width]."""

    parameter_names = ("width",)

    def __init__(self, width):
        self.width = width

    def rsample(self, generator=None):
        return self.width * torch.rand(self.width.shape, generator=generator)

    def log_prob(self, action):
        self._require_shape(action, self.width.shape)
        return -self.width.log().sum(-1)


def test_a_family_gets_sampling_without_gradient_and_the_log_prob_of_what_was_drawn():
    width = torch.tensor([[2.0, 4.0]], requires_grad=True)
    action, log_prob = Uniform(width).sample_and_log_prob(torch.Generator().manual_seed(0))
    assert not action.requires_grad and log_prob.requires_grad
    torch.testing.assert_close(log_prob, torch.tensor([8.0]).log().neg())


@pytest.mark.parametrize("what", ["mode", "mean", "median"])
def test_what_a_family_lacks_is_an_error_that_names_it(what):
    with pytest.raises(ConfigError, match=f"Uniform: expected a family with a {what}, got Uniform"):
        getattr(Uniform(torch.ones(1, 2)), what)


def test_entropy_and_divergence_are_never_estimated_in_silence():
    with pytest.raises(ConfigError, match="entropy"):
        Uniform(torch.ones(1, 2)).entropy()
    with pytest.raises(ConfigError, match="divergence"):
        Uniform(torch.ones(1, 2)).kl(Uniform(torch.ones(1, 2)))
