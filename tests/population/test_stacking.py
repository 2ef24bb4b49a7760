"""The tensors of members as views of one."""

import pytest
import torch
from torch import nn

from torchrl.errors import ConfigError
from torchrl.population import Stack


def members_of(*modules):
    return [[*module.parameters(), *module.buffers()] for module in modules]


def test_each_member_keeps_its_numbers_and_moves_with_the_stack():
    layers = [nn.Linear(2, 3) for _ in range(3)]
    kept = [layer.weight.detach().clone() for layer in layers]
    optimizer = torch.optim.SGD(layers[1].parameters(), lr=1.0)
    stack = Stack("test", members_of(*layers))
    assert [tuple(x.shape) for x in stack.tensors] == [(3, 3, 2), (3, 3)]
    torch.testing.assert_close([layer.weight.detach() for layer in layers], kept, rtol=0, atol=0)
    with torch.no_grad():
        stack.tensors[0].zero_()
        stack.tensors[0][1].fill_(2.0)
    assert [layer.weight.unique().item() for layer in layers] == [0.0, 2.0, 0.0]
    layers[1](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert stack.tensors[0].amax((1, 2)).tolist() == [0.0, 1.0, 0.0]


def test_a_tensor_that_was_replaced_is_taken_in_again():
    norms = [nn.BatchNorm1d(2) for _ in range(2)]
    stack = Stack("test", members_of(*norms))
    norms[1].running_mean = torch.tensor([1.0, 2.0])
    stack.adopt(members_of(*norms))
    assert stack.tensors[2].tolist() == [[0.0, 0.0], [1.0, 2.0]]
    stack.tensors[2].mul_(2)
    assert norms[1].running_mean.tolist() == [2.0, 4.0]


def test_copies_bring_back_what_was():
    layers = [nn.Linear(1, 1) for _ in range(2)]
    stack = Stack("test", members_of(*layers))
    before, copies = layers[1].weight.item(), stack.copies()
    with torch.no_grad():
        layers[1].weight.add_(1)
    stack.restore_(copies)
    assert layers[1].weight.item() == before


def test_members_that_do_not_match_are_refused():
    one, other = nn.Linear(2, 1), nn.Linear(3, 1)
    with pytest.raises(ConfigError, match=r"expected weight of shape \[1, 2\].*got \[1, 3\].* in member 1"):
        Stack("test", members_of(one, other), ["weight", "bias"])
    with pytest.raises(ConfigError, match="as many tensors each, got 2 and 1"):
        Stack("test", members_of(one, nn.Linear(2, 1, bias=False)))
    with pytest.raises(ConfigError, match="members that share no tensor"):
        Stack("test", members_of(one, one))
    stack = Stack("test", members_of(one, nn.Linear(2, 1)))
    one.weight.data = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"expected tensor 0 of shape \[1, 2\], torch.float32 on cpu, got .*float64"):
        stack.adopt(members_of(one, nn.Linear(2, 1)))
