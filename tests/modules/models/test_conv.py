"""ConvNet: a value by hand, batch dimensions, pixels of both kinds, sizes, and what is refused."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases.devices import DEVICES
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import BatchRenorm, ConvNet

SMALL = functools.partial(ConvNet, num_cells=(3, 2), kernel_sizes=(3, 2), strides=(2, 1))


def test_one_layer_by_hand():
    network = ConvNet(1, num_cells=(1,), kernel_sizes=(2,), strides=(1,))
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
        network.layers[0].bias.fill_(-9.0)
    image = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]])
    # corners 1·1 + 4·1, 2·2 + 3·1, 2·1 + 3·1, 1·1 + 4·1, minus 9, cut at zero
    assert network(image).tolist() == [0.0, 0.0, 0.0, 0.0]
    with torch.no_grad():
        network.layers[0].bias.fill_(-4.0)
    assert network(image).tolist() == [1.0, 3.0, 1.0, 1.0]


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("device", DEVICES)
def test_any_batch_dimensions_and_the_gradient_of_its_layers(batch, device):
    network = SMALL(2).to(device)
    images = torch.randn(*batch, 2, 9, 11, device=device, requires_grad=True)
    first, second = (layer for layer in network.layers if isinstance(layer, nn.Conv2d))
    x = torch.relu(
        F.conv2d(images.reshape(-1, 2, 9, 11) if images.numel() else images.flatten(0, -4), *weights_of(first), 2)
    )
    reference = torch.relu(F.conv2d(x, *weights_of(second), 1)).flatten(1).reshape(*batch, 24)
    ours = network(images)
    assert ours.shape == (*batch, 24)
    torch.testing.assert_close(ours, reference)
    inputs = (images, *network.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(ours.square().sum(), inputs), torch.autograd.grad(reference.square().sum(), inputs)
    )


def weights_of(layer):
    return layer.weight, layer.bias


def test_uint8_pixels_are_divided_by_255_here():
    network = SMALL(1)
    pixels = torch.randint(256, (4, 1, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(pixels), network(pixels.float() / 255), rtol=0, atol=0)
    assert network.double()(pixels).dtype == torch.float64
    assert not torch.allclose(network(pixels.double()), network(pixels))


def test_the_defaults_are_those_of_the_paper():
    network = ConvNet(4)
    assert network(torch.zeros(2, 4, 84, 84)).shape == (2, 3136)
    assert network.num_features(84, 84) == 3136
    weights = [tuple(layer.weight.shape) for layer in network.layers if isinstance(layer, nn.Conv2d)]
    assert weights == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]


@pytest.mark.parametrize(("height", "width"), [(9, 11), (5, 5), (12, 5)])
def test_the_number_of_features_is_known_beforehand(height, width):
    assert SMALL(1)(torch.zeros(1, height, width)).shape == (SMALL().num_features(height, width),)


def test_without_flattening_the_picture_remains():
    assert SMALL(2, flatten=False)(torch.zeros(5, 7, 2, 9, 11)).shape == (5, 7, 2, 3, 4)
    images = torch.randn(3, 2, 9, 11)
    network = SMALL(2)
    picture = copy.deepcopy(network)
    picture.flatten = False
    torch.testing.assert_close(picture(images).flatten(1), network(images))


def test_channels_are_found_at_the_first_call():
    network = SMALL()
    assert network(torch.zeros(3, 9, 9, dtype=torch.uint8)).shape == (18,)
    assert network.layers[0].weight.shape == (3, 3, 3, 3) and type(network.layers[0]) is nn.Conv2d
    with pytest.raises(SpecError, match=r"images \[\*B, 3, H, W\], got \[2, 9, 9\]"):
        network(torch.zeros(2, 9, 9))


def test_a_norm_sees_the_channels_last():
    images = torch.randn(6, 2, 9, 9)
    layer_norm = SMALL(2, norm=functools.partial(nn.LayerNorm, elementwise_affine=False))
    first = layer_norm.layers[:2](images)
    torch.testing.assert_close(first.mean(1), torch.zeros(6, 4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(first, F.layer_norm(layer_norm.layers[0](images).movedim(1, -1), [3]).movedim(-1, 1))
    renorm = SMALL(2, norm=BatchRenorm)
    first = renorm.layers[:2](images)
    torch.testing.assert_close(first.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert renorm(images).shape == (6, 18)


def test_compiles_without_a_break():
    network, pixels = SMALL(1), torch.randint(256, (2, 3, 1, 9, 9), dtype=torch.uint8)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pixels), network(pixels))
    torch.testing.assert_close(compiled(pixels[0]), network(pixels[0]))  # another rank, another graph


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cells": 32}, r"ConvNet\(num_cells=...\)"),
        ({"kernel_sizes": (3, 3)}, "one entry per layer"),
        ({"num_cells": (), "kernel_sizes": (), "strides": ()}, "one entry per layer"),
        ({"strides": (1, 1, 0)}, r"ConvNet\(strides=...\): expected a positive integer, got 0"),
        ({"in_channels": 0}, r"ConvNet\(in_channels=...\)"),
        ({"activation": nn.ReLU()}, "Pass the class"),
        ({"norm": nn.LayerNorm(3)}, "Pass the class"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        ConvNet(**options)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(5, 84, 84, 4), "The channels come first"),
        (torch.zeros(84, 84), r"images \[\*B, 4, H, W\], got \[84, 84\]"),
        (torch.zeros(4, 84, 84, dtype=torch.int64), "floats or uint8, got torch.int64"),
        (torch.zeros(2, 4, 84, 35), r"kernels \[8, 4, 3\] with strides \[4, 2, 1\] fit into, got 84 × 35 pixels"),
    ],
)
def test_wrong_images_are_refused(images, message):
    with pytest.raises(SpecError, match=message):
        ConvNet(4)(images)


@pytest.mark.parametrize(
    ("kernel_sizes", "strides", "due"), [((8, 4, 3), (4, 2, 1), 36), ((3, 3), (1, 1), 5), ((5,), (3,), 5)]
)
def test_the_smallest_image_is_known_beforehand(kernel_sizes, strides, due):
    net = ConvNet(1, num_cells=[2] * len(strides), kernel_sizes=kernel_sizes, strides=strides)
    assert net.smallest == due
    assert net(torch.zeros(1, due, due)).shape[-1] == net.num_features(due, due)
    with pytest.raises(SpecError, match="kernels"):
        net(torch.zeros(1, due - 1, due))


def test_the_smallest_image_that_fits_is_taken():
    assert ConvNet(1)(torch.zeros(1, 36, 36)).shape == (64,)
    with pytest.raises(SpecError, match="35 × 36 pixels"):
        ConvNet(1).num_features(35, 36)
