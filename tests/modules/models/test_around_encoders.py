"""What stands around encoders: no gradient through Detached, and the middle of an image by hand."""

import copy

import pytest
import torch
from torch import nn

from torchrl.errors import ConfigError, SpecError
from torchrl.modules import CenterCrop, Detached


def test_no_gradient_reaches_the_module_or_its_input_and_the_values_are_the_same():
    encoder, head = nn.Linear(3, 2), nn.Linear(2, 1)
    x = torch.randn(4, 3, requires_grad=True)
    assert torch.equal(Detached(encoder)(x), encoder(x))
    head(Detached(encoder)(x)).sum().backward()
    assert x.grad is None and encoder.weight.grad is None and head.weight.grad is not None
    head(encoder(x)).sum().backward()  # who shares it trains it
    assert encoder.weight.grad is not None


def test_parameters_are_shared_and_part_of_a_copy():
    encoder = nn.Linear(3, 2)
    network = nn.Sequential(Detached(encoder), nn.Linear(2, 1))
    assert list(network.parameters())[0] is encoder.weight
    twin = copy.deepcopy(network)
    with torch.no_grad():
        encoder.weight.add_(1.0)
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(torch.ones(3)), network(torch.ones(3)))


def test_the_middle_by_hand():
    image = torch.arange(20).view(1, 4, 5)
    assert CenterCrop(2)(image).tolist() == [[[6, 7], [11, 12]]]  # three columns around: one left, two right
    assert CenterCrop(4, 1)(image).flatten().tolist() == [2, 7, 12, 17]
    assert CenterCrop(4, 5)(image).data_ptr() == image.data_ptr()
    assert CenterCrop(2)(torch.zeros(3, 2, 9, 4, 5, dtype=torch.uint8)).shape == (3, 2, 9, 2, 2)


def test_small_images_and_wrong_sizes_are_refused():
    with pytest.raises(SpecError, match=r"images of at least 3 × 3 pixels, got \[2, 5\]"):
        CenterCrop(3)(torch.zeros(1, 2, 5))
    with pytest.raises(ConfigError, match="height"):
        CenterCrop(0)
