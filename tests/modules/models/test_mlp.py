"""The MLP equals the plain Sequential it holds, in values, gradients and parameters; initialisation by value."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from torchrl.errors import ConfigError
from torchrl.modules import MLP, BatchRenorm, ConvNet, Ensemble, orthogonal_init_


class Doubled(nn.Linear):
    """A layer with a forward of its own, as noisy layers have."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.ELU, nn.SiLU])
@pytest.mark.parametrize("num_cells", [(), (7,), (16, 8, 5)])
def test_values_and_gradients_equal_those_of_its_layers_called_one_by_one(activation, num_cells):
    mlp, x = MLP(4, 3, num_cells=num_cells, activation=activation), torch.randn(2, 6, 4, requires_grad=True)
    assert [layer.out_features for layer in mlp.layers if isinstance(layer, nn.Linear)] == [*num_cells, 3]
    assert sum(isinstance(layer, activation) for layer in mlp.layers) == len(num_cells)
    ours, theirs = mlp(x), mlp.layers(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    inputs = (x, *mlp.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(ours.square().sum(), inputs), torch.autograd.grad(theirs.square().sum(), inputs)
    )


def test_the_input_is_never_changed():
    mlp, x = MLP(4, 3), torch.randn(5, 4)
    mlp.layers[0] = nn.Identity()
    mlp.layers[2] = nn.Linear(4, 64)
    before = x.clone()
    mlp(x)
    assert torch.equal(x, before)


def test_state_dict_is_that_of_a_sequential():
    mlp, plain = MLP(4, 3, num_cells=(8,)), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    assert list(mlp.state_dict()) == [f"layers.{name}" for name in plain.state_dict()]
    mlp.layers.load_state_dict(plain.state_dict())
    x = torch.randn(5, 4)
    torch.testing.assert_close(mlp(x), plain(x), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(mlp)(x), plain(x), rtol=0, atol=0)


def test_swapped_parameters_are_the_ones_used():
    mlp, x = MLP(4, 3), torch.randn(5, 4)
    zeros = {name: torch.zeros_like(value) for name, value in mlp.state_dict().items()}
    assert not functional_call(mlp, zeros, x).any() and mlp(x).any()
    mlp.double()
    assert mlp(x.double()).dtype == torch.float64


def test_another_kind_of_layer_is_called_by_its_own_forward():
    mlp, x = MLP(4, 3, num_cells=()), torch.randn(5, 4)
    once = mlp(x)
    doubled = Doubled(4, 3)
    doubled.load_state_dict(mlp.layers[0].state_dict())
    mlp.layers[0] = doubled
    torch.testing.assert_close(mlp(x), 2 * once)


def test_a_parametrised_layer_uses_its_parametrisation():
    mlp, x = MLP(4, 3, num_cells=()), torch.randn(5, 4)
    parametrizations.weight_norm(mlp.layers[0])
    with torch.no_grad():
        mlp.layers[0].parametrizations.weight.original0.zero_()  # the norm of each row
    torch.testing.assert_close(mlp(x), mlp.layers[0].bias.expand(5, 3))


def test_several_inputs_are_concatenated():
    mlp, x = MLP(5, 3), torch.randn(2, 5)
    torch.testing.assert_close(mlp(x[:, :2], x[:, 2:]), mlp(x), rtol=0, atol=0)


def test_a_lazy_size_is_found_at_the_first_call():
    mlp = MLP(None, 3, num_cells=(8,))
    with pytest.raises(ConfigError, match="lazy layer.*Call the network once"):
        orthogonal_init_(mlp, last_gain=1.0)
    assert mlp(torch.randn(2, 5)).shape == (2, 3)
    assert mlp.layers[0].weight.shape == (8, 5) and type(mlp.layers[0]) is nn.Linear
    orthogonal_init_(mlp, last_gain=1.0)


def test_compiles_without_a_break():
    mlp, x = MLP(4, 3), torch.randn(5, 4)
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), mlp(x))
    compiled(x).sum().backward()
    assert all(parameter.grad is not None for parameter in mlp.parameters())


def test_orthogonal_weights_have_their_gains_and_biases_are_zero():
    mlp = MLP(4, 3, num_cells=(64, 64))
    assert orthogonal_init_(mlp, last_gain=0.01) is mlp
    first, middle, last = (layer for layer in mlp.layers if isinstance(layer, nn.Linear))
    torch.testing.assert_close(first.weight.T @ first.weight, 2 * torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(middle.weight @ middle.weight.T, 2 * torch.eye(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(last.weight @ last.weight.T, 1e-4 * torch.eye(3), atol=1e-9, rtol=0)
    assert not any(layer.bias.any() for layer in (first, middle, last))


def test_orthogonal_weights_follow_their_generator():
    weights = [
        orthogonal_init_(MLP(4, 3), last_gain=1.0, generator=torch.Generator().manual_seed(2)).layers[0].weight
        for _ in range(2)
    ]
    assert torch.equal(*weights)
    assert math.isclose(weights[0].square().sum().item(), 2 * 4, rel_tol=1e-5)


def test_orthogonal_init_of_nothing_is_an_error():
    with pytest.raises(ConfigError, match="expected initialised Linear layers, got none"):
        orthogonal_init_(nn.Tanh(), last_gain=1.0)


@pytest.mark.parametrize("norm", [nn.LayerNorm, BatchRenorm])
def test_a_norm_stands_between_each_hidden_layer_and_its_activation(norm):
    mlp = MLP(4, 3, num_cells=(8, 6), norm=norm)
    assert [type(layer) for layer in mlp.layers] == [nn.Linear, norm, nn.Tanh, nn.Linear, norm, nn.Tanh, nn.Linear]
    x = 100 * torch.randn(50, 4)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), mlp.layers(x))
    hidden = mlp.layers[:2](x)
    dim = -1 if norm is nn.LayerNorm else 0
    torch.testing.assert_close(hidden.mean(dim), torch.zeros_like(hidden.mean(dim)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cells": 32}, r"MLP\(num_cells=...\): expected a sequence of positive integers, got 32. One layer is"),
        ({"num_cells": (32, 0)}, r"MLP\(num_cells=...\): expected a positive integer, got 0"),
        ({"in_features": 4.0}, r"MLP\(in_features=...\): expected a positive integer, got 4.0"),
        ({"out_features": 0}, r"MLP\(out_features=...\)"),
        ({"activation": nn.Tanh()}, r"MLP\(activation=...\).*Pass the class: Tanh"),
        ({"norm": "layer"}, r"MLP\(norm=...\)"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        MLP(**{"in_features": 4, "out_features": 3, **options})


def test_orthogonal_convolutions_count_as_matrices():
    network = nn.Sequential(ConvNet(2, num_cells=(5,), kernel_sizes=(3,), strides=(1,)), MLP(5, 3, num_cells=()))
    orthogonal_init_(network, last_gain=0.01)
    rows = network[0].layers[0].weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(5), atol=1e-5, rtol=0)
    assert not network[0].layers[0].bias.any()


def test_stacked_layers_are_not_taken_for_one_matrix():
    with pytest.raises(ConfigError, match="stacked layers.*Initialise each member"):
        orthogonal_init_(Ensemble(lambda: MLP(4, 3), 2), last_gain=1.0)
