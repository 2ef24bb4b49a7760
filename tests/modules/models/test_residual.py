"""ResidualConvNet by its published number of parameters, a block by hand, shapes, and what is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchrl.errors import ConfigError, SpecError
from torchrl.modules import MLP, ConvNet, Encoded, ResidualConvNet, orthogonal_init_


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_by_hand():
    # sections of 16, 32 and 32 channels: a convolution from the last, and four within, 3 × 3 with a bias
    first = 3 * 16 * 9 + 16 + 4 * (16 * 16 * 9 + 16)
    second = 16 * 32 * 9 + 32 + 4 * (32 * 32 * 9 + 32)
    third = 5 * (32 * 32 * 9 + 32)
    assert num_parameters(ResidualConvNet(3)) == first + second + third == 97_600
    # the network of 2015: 8 × 8, 4 × 4 and 3 × 3
    assert num_parameters(ConvNet(4)) == 4 * 32 * 64 + 32 + 32 * 64 * 16 + 64 + 64 * 64 * 9 + 64 == 77_984


@pytest.mark.parametrize("size, features", [((84, 84), 32 * 11 * 11), ((72, 96), 32 * 9 * 12), ((1, 1), 32)])
def test_features_of_an_image(size, features):
    network = ResidualConvNet(2)
    assert network.num_features(*size) == features == network(torch.zeros(1, 2, *size)).shape[-1]


def test_one_section_against_torchs_functions():
    network = ResidualConvNet(1, num_cells=(2,), num_blocks=1).double()
    image = torch.randn(3, 1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    convolution, inner, outer = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))

    def apply(layer, x):
        return F.conv2d(x, layer.weight, layer.bias, padding=1)

    x = F.max_pool2d(apply(convolution, image), 3, 2, 1)
    expected = F.relu(x + apply(outer, F.relu(apply(inner, F.relu(x)))))
    torch.testing.assert_close(network(image), expected.flatten(1))


def test_a_block_whose_convolutions_are_zero_passes_its_input_on():
    network = ResidualConvNet(1, num_cells=(1,), num_blocks=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.layers[0].weight[0, 0, 1, 1] = 1.0
    image = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert network(image).tolist() == [4.0]  # the largest of all, once through


def test_width_is_a_multiple_of_the_channels():
    wide = ResidualConvNet(3, num_cells=(64, 128, 128))
    assert wide.num_features(84, 84) == 4 * ResidualConvNet(3).num_features(84, 84)


def test_batch_dimensions_and_pixels_of_bytes():
    network = ResidualConvNet(2, num_cells=(2,), flatten=False)
    pixels = torch.randint(256, (3, 4, 2, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert network(pixels).shape == (3, 4, 2, 3, 3)
    torch.testing.assert_close(network(pixels)[1, 2], network(pixels[1, 2].float() / 255))
    assert network(pixels[0, 0]).shape == (2, 3, 3)


def test_orthogonal_weights_with_a_small_last_layer():
    network = orthogonal_init_(Encoded(ResidualConvNet(2, num_cells=(2,)), MLP(18, 3)), last_gain=0.01)
    assert network.head.layers[-1].weight.norm(dim=-1).tolist() == pytest.approx([0.01] * 3)
    first = network.encoder.layers[0].weight.flatten(1)
    torch.testing.assert_close(first @ first.T, 2 * torch.eye(2))


def test_wrong_sizes_and_images_are_refused():
    with pytest.raises(ConfigError, match="num_cells"):
        ResidualConvNet(3, num_cells=(16, 0))
    with pytest.raises(ConfigError, match="num_blocks"):
        ResidualConvNet(3, num_blocks=0)
    with pytest.raises(ConfigError, match="activation"):
        ResidualConvNet(3, activation=nn.ReLU())
    with pytest.raises(SpecError, match=r"ResidualConvNet: expected images \[\*B, 3, H, W\]"):
        ResidualConvNet(3)(torch.zeros(8, 8, 3))
    with pytest.raises(SpecError, match="images of floats or uint8"):
        ResidualConvNet(3)(torch.zeros(3, 8, 8, dtype=torch.int64))
