"""An Ensemble computes what its members compute apart, values, gradients and statistics; one module to everybody."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from cases.devices import DEVICES
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import MLP, BatchRenorm, ConvNet, Ensemble, NormalHead, orthogonal_init_


class Tied(nn.Module):
    """A module of no class that the ensemble knows, with one weight in two places, and a buffer."""

    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.back.weight = self.there.weight
        self.register_buffer("offset", torch.randn(4))

    def forward(self, x):
        return self.back(torch.tanh(self.there(x))) + self.offset


def weight_norm():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), nn.Softmax(1))


NETWORKS = {
    "mlp": lambda: MLP(4, 3, num_cells=(8, 6)),
    "relu": lambda: MLP(4, 3, num_cells=(8, 6), activation=nn.ReLU),
    "activations first and twice": lambda: nn.Sequential(nn.ReLU(), nn.Linear(4, 5), nn.ELU(), nn.ReLU(), nn.ReLU()),
    "linear without bias": lambda: nn.Linear(4, 3, bias=False),
    "layer norm": lambda: MLP(4, 3, num_cells=(8,), activation=nn.ReLU, norm=nn.LayerNorm),
    "plain layer norm": lambda: nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.LayerNorm((6, 4))),
    "batch renorm": lambda: MLP(4, 3, num_cells=(8,), norm=BatchRenorm),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    "nested": lambda: nn.Sequential(nn.Sequential(MLP(4, 5), nn.Tanh()), nn.Softmax(0), nn.Flatten(), nn.Linear(5, 2)),
    "tied": Tied,
    "parametrised": weight_norm,
    "two results": lambda: nn.Sequential(nn.Linear(4, 3), NormalHead(3)),
}


def spread(make):
    """Build a module whose parameters all differ between members, those that begin as ones and zeros as well."""
    module = make()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def summed(results):
    return sum(
        (part.square() * torch.arange(1, part.numel() + 1, device=part.device).reshape(part.shape)).sum()
        for part in (results if isinstance(results, tuple) else (results,))
    )


def stacked(results):
    parts = [result if isinstance(result, tuple) else (result,) for result in results]
    joined = tuple(torch.stack(part) for part in zip(*parts, strict=True))
    return joined if isinstance(results[0], tuple) else joined[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("own_inputs", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_gradients_and_buffers_are_those_of_separate_networks(name, own_inputs, device):
    ensemble = Ensemble(lambda: spread(NETWORKS[name]), 3).to(device, torch.float64)
    members = [ensemble.member(index) for index in range(3)]
    shape = (3, 6, 4) if own_inputs else (6, 4)
    x = torch.randn(shape, device=device, dtype=torch.float64, requires_grad=True)
    ours = ensemble.each(x) if own_inputs else ensemble(x)
    theirs = stacked([member(x[index] if own_inputs else x) for index, member in enumerate(members)])
    torch.testing.assert_close(ours, theirs)
    own, apart = dict(ensemble.module.named_parameters()), [dict(member.named_parameters()) for member in members]
    assert all(list(own) == list(member) for member in apart)
    trained = [name for name in own if own[name].numel()]
    ours_to = torch.autograd.grad(summed(ours), (x, *(own[name] for name in trained)))
    flat = [member[name] for name in trained for member in apart]
    theirs_to = torch.autograd.grad(summed(theirs), (x, *flat))
    torch.testing.assert_close(ours_to[0], theirs_to[0], rtol=1e-8, atol=1e-8)
    for index, gradient in enumerate(ours_to[1:]):
        expected = torch.stack(theirs_to[1 + 3 * index : 4 + 3 * index])
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-8)
    buffers = [dict(member.named_buffers()) for member in members]
    for name, buffer in ensemble.module.named_buffers():
        torch.testing.assert_close(buffer, torch.stack([member[name] for member in buffers]))


def test_members_are_those_that_were_made_in_their_order():
    torch.manual_seed(0)
    apart = [MLP(4, 2) for _ in range(3)]
    torch.manual_seed(0)
    ensemble, x = Ensemble(lambda: MLP(4, 2), 3), torch.randn(5, 4)
    torch.testing.assert_close(ensemble(x), torch.stack([member(x) for member in apart]))
    assert torch.equal(ensemble.module.layers[0].weight[2], apart[2].layers[0].weight)
    assert not torch.allclose(apart[0](x), apart[1](x))


@pytest.mark.parametrize("batch", [(), (5,), (2, 5), (0,)])
def test_any_batch_dimensions_and_several_inputs(batch):
    ensemble = Ensemble(lambda: MLP(6, 2, norm=nn.LayerNorm), 3)
    observation, action = torch.randn(*batch, 4), torch.randn(*batch, 2)
    values = ensemble(observation, action)
    assert values.shape == (3, *batch, 2)
    for index in range(3):
        torch.testing.assert_close(values[index], ensemble.member(index)(observation, action))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images(dtype):
    make = functools.partial(ConvNet, 2, num_cells=(3,), kernel_sizes=(3,), strides=(2,), norm=BatchRenorm)
    ensemble, images = Ensemble(make, 2), torch.randint(9, (4, 5, 2, 7, 7)).to(dtype)
    members = [ensemble.member(0), ensemble.member(1)]
    torch.testing.assert_close(ensemble(images), torch.stack([member(images) for member in members]))


def test_modes_reach_the_members_and_dropout_differs_between_them():
    ensemble, x = Ensemble(lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 64)), 2), torch.ones(1, 64)
    with torch.no_grad():
        ensemble.module[1].weight.copy_(torch.eye(64))
        ensemble.module[1].bias.zero_()
    torch.manual_seed(0)
    assert not torch.equal(*ensemble(x).unbind())
    assert torch.equal(ensemble.eval()(x), torch.ones(2, 1, 64)) and not ensemble.member(0).training


def test_a_member_is_trained_apart():
    ensemble, x = Ensemble(lambda: MLP(4, 2), 2), torch.randn(5, 4)
    member, before = ensemble.member(-1), ensemble(x)
    torch.testing.assert_close(member(x), before[1])
    assert [tuple(p.shape) for p in member.parameters()] == [tuple(p.shape) for p in MLP(4, 2).parameters()]
    with torch.no_grad():
        next(member.parameters()).zero_()
    assert torch.equal(ensemble(x), before)
    with pytest.raises(IndexError, match="an index below 2, got 2"):
        ensemble.member(2)


def test_frozen_and_tied_parameters_stay_so():
    ensemble = Ensemble(lambda: Tied().requires_grad_(False), 2)
    assert ensemble.module.there.weight is ensemble.module.back.weight
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())
    member = ensemble.member(0)
    assert member.there.weight is member.back.weight and not member.there.weight.requires_grad


def test_state_copies_pickles_and_dtypes():
    make = lambda: MLP(4, 2, num_cells=(8,), norm=BatchRenorm)  # noqa: E731
    ensemble, other, x = Ensemble(make, 2).eval(), Ensemble(make, 2).eval(), torch.randn(5, 4)
    names = ["weight", "bias", "running_mean", "running_std", "num_batches"]
    assert [f"module.layers.1.{name}" in ensemble.state_dict() for name in names] == [True] * 5
    other.load_state_dict(ensemble.state_dict())
    for twin in (other, copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble))):
        torch.testing.assert_close(twin(x), ensemble(x), rtol=0, atol=0)
        with torch.no_grad():
            next(twin.parameters()).add_(1.0)  # the layers that run are the twin's own
        assert not torch.equal(twin(x), ensemble(x))
    assert ensemble.double()(x.double()).dtype == torch.float64 and ensemble.member(0)(x.double()) is not None


def test_swapped_parameters_are_the_ones_used():
    ensemble, x = Ensemble(lambda: MLP(4, 2), 2), torch.randn(5, 4)
    zeros = {name: torch.zeros_like(value) for name, value in ensemble.state_dict().items()}
    assert not torch.func.functional_call(ensemble, zeros, x).any() and ensemble(x).all()


def test_one_optimiser_trains_all():
    ensemble = Ensemble(lambda: MLP(4, 1), 3)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    target = x.sum(-1, keepdim=True).expand(3, 64, 1)
    optimiser = torch.optim.Adam(ensemble.parameters(), lr=1e-2)
    for _ in range(200):
        loss = (ensemble(x) - target).square().mean((1, 2))
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    assert (loss < 0.05).all()


def test_members_can_be_initialised_where_they_are_made():
    ensemble = Ensemble(lambda: orthogonal_init_(MLP(4, 3), last_gain=0.1), 2)
    last = ensemble.module.layers[-1].weight
    torch.testing.assert_close(last @ last.mT, 0.01 * torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)
    assert not torch.equal(*last.unbind())


@pytest.mark.parametrize("name", ["mlp", "layer norm", "batch renorm", "tied"])
def test_compiles_without_a_break(name):
    ensemble, x = Ensemble(NETWORKS[name], 2), torch.randn(6, 4)
    twin = copy.deepcopy(ensemble)
    compiled = torch.compile(ensemble, fullgraph=True, backend="aot_eager")
    ours, theirs = compiled(x), twin(x)
    torch.testing.assert_close(ours, theirs)
    gradients = [
        torch.autograd.grad(y.square().sum(), [*module.parameters()])
        for y, module in ((ours, ensemble), (theirs, twin))
    ]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(ensemble.state_dict(), twin.state_dict())


def test_lazy_and_unlike_members_are_refused():
    with pytest.raises(ConfigError, match="lazy layers.0.weight, layers.0.bias. Give the layers their input sizes"):
        Ensemble(lambda: MLP(None, 2), 2)
    sizes = iter((4, 5))
    with pytest.raises(ConfigError, match=r"members like the first.*\[64, 4\].*got.*\[64, 5\]"):
        Ensemble(lambda: MLP(next(sizes), 2), 2)
    activations = iter((nn.Tanh, nn.ReLU))
    with pytest.raises(ConfigError, match="members like the first.*Tanh.*got.*ReLU"):
        Ensemble(lambda: MLP(4, 2, activation=next(activations)), 2)


def test_members_that_share_tensors_are_refused():
    one = MLP(4, 2)
    with pytest.raises(ConfigError, match="share nothing.*anew at each call"):
        Ensemble(lambda: one, 2)
    trunk = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match="share nothing"):
        Ensemble(lambda: nn.Sequential(trunk, nn.Linear(4, 2)), 2)


def test_wrong_numbers_factories_and_inputs_are_refused():
    with pytest.raises(ConfigError, match=r"Ensemble\(num=...\): expected a positive integer, got 0"):
        Ensemble(lambda: MLP(4, 2), 0)
    with pytest.raises(ConfigError, match="builds a module"):
        Ensemble(MLP(4, 2), 2)
    with pytest.raises(SpecError, match=r"inputs \[2, \*B, ...\], got \[\[5, 4\]\]"):
        Ensemble(lambda: MLP(4, 2), 2).each(torch.zeros(5, 4))


@pytest.mark.parametrize("name", ["relu", "activations first and twice"])
def test_what_it_is_given_is_not_written_to(name):
    ensemble = Ensemble(NETWORKS[name], 2)
    shared, own = torch.randn(6, 4), torch.randn(2, 6, 4)
    before = shared.clone(), own.clone()
    ensemble(shared), ensemble.each(own)
    assert torch.equal(shared, before[0]) and torch.equal(own, before[1])
