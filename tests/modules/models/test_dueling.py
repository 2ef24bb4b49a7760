import pytest
import torch
from torch import nn

from torchrl.errors import ConfigError
from torchrl.modules import ConvNet, DuelingHead, DuelingMLP, NoisyLinear


def test_by_hand():
    head = DuelingHead(2, 3, num_cells=())
    with torch.no_grad():
        head.value.layers[0].weight.copy_(torch.tensor([[1.0, 0.0]])), head.value.layers[0].bias.fill_(5.0)
        weight = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 6.0]])
        head.advantage.layers[0].weight.copy_(weight), head.advantage.layers[0].bias.zero_()
    # V = 5 + x, A = (y, 2y, 6y), mean 3y
    assert head(torch.tensor([[1.0, 2.0]])).tolist() == [[6 - 4.0, 6 - 2.0, 6 + 6.0]]


def test_each_output_is_joined_alone():
    head = DuelingHead(4, 3, num_outputs=5, num_cells=(8,))
    x = torch.randn(2, 7, 4)
    out = head(x)
    assert out.shape == (2, 7, 3, 5)
    torch.testing.assert_close(out.mean(-2), head.value(x))


@pytest.mark.parametrize("cells", [(8,), (8, 6), (8, 7, 6)])
@pytest.mark.parametrize("num_outputs", [None, 5])
def test_mlp(cells, num_outputs):
    network = DuelingMLP(4, 3, num_cells=cells, num_outputs=num_outputs)
    tail = () if num_outputs is None else (num_outputs,)
    assert network(torch.randn(6, 4)).shape == (6, 3, *tail)
    widths = [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)]
    last = num_outputs or 1
    assert widths == [*cells[:-1], cells[-1], last, cells[-1], 3 * last]


def test_behind_a_convolution():
    conv = ConvNet(4)
    network = nn.Sequential(conv, DuelingHead(conv.num_features(84, 84), 6))
    assert network(torch.zeros(2, 4, 84, 84, dtype=torch.uint8)).shape == (2, 6)


def test_noise_in_both_streams():
    network = DuelingMLP(4, 3, linear=NoisyLinear)
    assert sum(isinstance(layer, NoisyLinear) for layer in network.modules()) == 4


@pytest.mark.parametrize("cells", [(), (0,), (8, -1)])
def test_wrong_sizes_are_refused(cells):
    with pytest.raises(ConfigError, match="positive integer"):
        DuelingMLP(4, 3, num_cells=cells)
