"""A policy that was asked inside these contexts goes on as if it had not been asked."""

import pytest
import torch
from torch import nn

from torchrl.collectors import WarmUp
from torchrl.data.specs import Categorical
from torchrl.modules.randomness import generators_of, keep_module_state, keep_randomness


class Noisy(nn.Module):
    def __init__(self, generator):
        super().__init__()
        self.generator, self.inner = generator, nn.Module()
        self.inner.same, self.inner.other = generator, torch.Generator().manual_seed(2)

    def forward(self):
        own = [torch.rand(2, generator=g) for g in (self.generator, self.inner.other)]
        return torch.stack([*own, torch.rand(2)])


def test_each_generator_is_found_once_by_its_path():
    policy = Noisy(torch.Generator())
    assert generators_of(policy) == {"generator": policy.generator, "inner.other": policy.inner.other}
    assert generators_of(lambda root: root) == {}


def test_the_streams_go_on_as_if_nothing_had_been_drawn():
    policy = Noisy(torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    with keep_randomness(policy) as generators:
        inside = policy()
    assert generators == [policy.generator, policy.inner.other]
    assert torch.equal(policy(), inside) and not torch.equal(policy(), inside)


def test_they_do_after_an_error_too():
    policy, before = Noisy(torch.Generator().manual_seed(1)), torch.get_rng_state()
    own = policy.generator.get_state()
    with pytest.raises(ValueError, match="planted"), keep_randomness(policy):
        policy()
        raise ValueError("planted")
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(policy.generator.get_state(), own)


def test_buffers_are_put_back_in_place():
    norm = nn.BatchNorm1d(2)
    buffers = dict(norm.named_buffers())
    with keep_module_state(nn.Sequential(norm)):
        norm(torch.randn(5, 2) + 3)
        assert norm.num_batches_tracked == 1
        norm._buffers["running_var"] = norm.running_var + 1
    assert norm.num_batches_tracked == 0 and norm.running_mean.tolist() == [0, 0]
    assert all(norm.get_buffer(name) is buffer for name, buffer in buffers.items())
    assert norm.running_var.tolist() == [1, 1]


def test_extra_state_is_put_back():
    policy = WarmUp(lambda root: root, Categorical(2), 5)
    with keep_module_state(policy):
        policy.progress.frames += 3
    assert policy.frames_acted == 0
    with keep_module_state(lambda root: root):
        pass
