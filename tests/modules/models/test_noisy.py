import copy

import pytest
import torch
from torch import nn

from torchrl.errors import ConfigError
from torchrl.modules import MLP, NoisyLinear


def test_it_begins_as_the_paper_says():
    layer = NoisyLinear(100, 50, init_std=0.4)
    assert (layer.weight_std == 0.04).all() and (layer.bias_std == 0.04).all()
    assert layer.weight.abs().max() <= 0.1 and layer.weight.abs().max() > 0.09
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias", "weight_std", "bias_std"}


def test_it_is_plain_after_eval():
    layer, x = NoisyLinear(4, 3).eval(), torch.randn(5, 4)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_the_noise_by_hand():
    layer, x = NoisyLinear(4, 3, generator=torch.Generator().manual_seed(7)), torch.randn(5, 4)
    again = torch.Generator().manual_seed(7)
    f = lambda size: (lambda n: n.sign() * n.abs().sqrt())(torch.empty(size).normal_(generator=again))  # noqa: E731
    rows, columns = f(3), f(4)
    weight = layer.weight + layer.weight_std * torch.outer(rows, columns)
    torch.testing.assert_close(layer(x), x @ weight.T + layer.bias + layer.bias_std * rows)


def test_every_call_has_noise_of_its_own_and_all_its_rows_the_same():
    layer, x = NoisyLinear(4, 3), torch.randn(1, 4).expand(6, 4)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second) and (first == first[0]).all()


def test_size_of_the_noise():
    layer = NoisyLinear(16, 8, init_std=0.5, generator=torch.Generator().manual_seed(0))
    x = torch.ones(1, 16)
    draws = torch.stack([layer(x)[0].detach() for _ in range(3000)])
    # y = ... + σ (Σ_j f(ε_j) f(ε_i)) + σ f(ε_i): E f² = E|ε| = √(2/π)
    share = (2 / torch.pi) ** 0.5
    variance = (0.5 / 4) ** 2 * (16 * share * share + share)
    assert draws.var(0).mean().item() == pytest.approx(variance, rel=0.1)
    torch.testing.assert_close(draws.mean(0), layer.eval()(x)[0].detach(), atol=0.05, rtol=0)


def test_gradient_reaches_means_and_deviations():
    layer = NoisyLinear(4, 3)
    layer(torch.randn(5, 4)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())


def test_inside_an_mlp():
    network = MLP(4, 2, num_cells=(8,), linear=NoisyLinear)
    x = torch.randn(5, 4)
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
    assert not torch.equal(copy.deepcopy(network).train()(x), network(x))
    with pytest.raises(ConfigError, match="in_features"):
        MLP(None, 2, linear=NoisyLinear)


@pytest.mark.parametrize("sizes", [(0, 3), (4, 1.5)])
def test_wrong_sizes_are_refused(sizes):
    with pytest.raises(ConfigError, match="positive integer"):
        NoisyLinear(*sizes)
