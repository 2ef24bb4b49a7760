"""FusedAdam takes the steps of torch's Adam."""

import pytest
import torch

from torchrl.agents import FusedAdam


def steps(make, num_steps=7, reload_at=None):
    torch.manual_seed(0)
    parameters = [
        torch.nn.Parameter(torch.randn(3, 4)),
        torch.nn.Parameter(torch.randn(5)),
        torch.nn.Parameter(torch.zeros(2)),
    ]
    optimizer = make([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.3}])
    for step in range(num_steps):
        for index, parameter in enumerate(parameters):
            parameter.grad = None if (index == 2 and step % 2) else torch.randn_like(parameter)
        if step == reload_at:
            state = optimizer.state_dict()
            optimizer = make([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.3}])
            optimizer.load_state_dict(state)
        optimizer.step()
    return parameters


def torchs(groups):
    return torch.optim.Adam(groups, lr=0.01, betas=(0.8, 0.99), eps=1e-5, weight_decay=0.1, fused=True)


def ours(groups):
    return FusedAdam(groups, lr=0.01, betas=(0.8, 0.99), eps=1e-5, weight_decay=0.1)


@pytest.mark.parametrize("reload_at", [None, 0, 4])
def test_bit_for_bit_the_steps_of_torch_also_after_a_reload(reload_at):
    for mine, theirs in zip(steps(ours, reload_at=reload_at), steps(torchs), strict=True):
        assert torch.equal(mine, theirs)


def test_states_are_interchangeable():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = ours([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    other = torchs([parameter])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[parameter]["step"] == 1


def test_a_closure_is_called():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = ours([parameter])

    def closure():
        parameter.grad = torch.ones(2)
        return parameter.sum()

    with torch.enable_grad():
        assert float(optimizer.step(closure).detach()) == 2.0
    assert parameter.tolist() != [1.0, 1.0]
