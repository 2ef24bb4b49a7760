"""What moves a target network, by how much, and what does not."""

import pytest
import torch
from torch import nn

from cases.losses import make_transitions
from torchrl.modules import MLP, ObservationNormalizer, QValueActor, ValueEnsemble
from torchrl.objectives import DQNLoss, HardUpdate, SoftUpdate, total_loss
from torchrl.objectives.costs.temporal_difference import TDLoss


class Counting(nn.Module):
    """Keep all that a layer can keep: a parameter, integers among the parameters, buffers of all kinds, extra state."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.phase = nn.Parameter(torch.zeros(1, dtype=torch.complex64))
        self.order = nn.Parameter(torch.tensor([0, 1]), requires_grad=False)
        self.register_buffer("mean", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("is_ready", torch.tensor(False))
        self.register_buffer("bound", torch.zeros(2), persistent=False)
        self.register_buffer("nothing", None)
        self.notes = {"seen": 0}

    def get_extra_state(self):
        return self.notes

    def set_extra_state(self, state):
        self.notes = state

    def forward(self, x):
        return x[..., :2] * self.weight


class OneNetwork(TDLoss):
    """A loss that has a target and nothing else."""

    def __init__(self, network, target):
        super().__init__(in_keys=[], next_keys=[], trained=[network], gamma=0.9)
        self.network, self.target = network, target

    def targets(self):
        return [(self.network, self.target)]

    def terms(self, rows):
        raise NotImplementedError


def moved_network():
    network = Counting()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([4.0, 8.0]))
        network.phase.fill_(4j)
        network.order.copy_(torch.tensor([1, 0]))
    network.mean.fill_(100.0), network.count.fill_(7), network.is_ready.fill_(True), network.bound.fill_(3.0)
    network.notes = {"seen": 5}
    return network


def test_soft_update_blends_parameters_and_copies_all_else():
    network, target = moved_network(), Counting()
    SoftUpdate(OneNetwork(network, target), tau=0.25).step()
    assert target.weight.tolist() == [1.0, 2.0] and target.phase.tolist() == [1j]
    assert target.order.tolist() == [1, 0]
    assert target.mean.tolist() == [100.0, 100.0] and target.count.item() == 7
    assert target.is_ready.item() is True and target.bound.tolist() == [3.0, 3.0]
    network.notes["seen"] = 9
    assert target.notes == {"seen": 5}


def test_hard_update_copies_everything_when_its_time_comes():
    network, target = moved_network(), Counting()
    update = HardUpdate(OneNetwork(network, target), interval=2)
    update.step()
    assert target.weight.tolist() == [0.0, 0.0] and target.count.item() == 0 and target.notes == {"seen": 0}
    update.step()
    assert target.state_dict().keys() == network.state_dict().keys()
    assert target.weight.tolist() == [4.0, 8.0] and target.mean.tolist() == [100.0, 100.0]
    assert target.count.item() == 7 and target.bound.tolist() == [3.0, 3.0] and target.notes == {"seen": 5}


def test_buffers_that_were_replaced_are_followed():
    network, target = moved_network(), Counting()
    loss = OneNetwork(network, target)
    update = SoftUpdate(loss, tau=0.5)
    loss.double()
    network.mean = torch.full((2,), 5.0, dtype=torch.float64)
    update.step()
    assert target.mean.tolist() == [5.0, 5.0] and target.weight.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("make", [lambda loss: SoftUpdate(loss, tau=0.5), lambda loss: HardUpdate(loss, interval=1)])
def test_a_buffer_that_is_made_of_the_first_data_is_followed_from_then_on(make):
    network, target = moved_network(), Counting()
    update = make(OneNetwork(network, target))
    update.step()
    assert target.nothing is None
    for value in (1.0, 2.0):
        network.nothing = torch.full((2,), value)
        update.step()
        assert target.nothing.tolist() == [value, value] and target.nothing is not network.nothing


def test_the_target_normalises_by_the_statistics_of_its_network():
    normalizer = ObservationNormalizer(1)
    loss = DQNLoss(QValueActor(nn.Sequential(normalizer, MLP(1, 2))))
    normalizer.update(torch.tensor([[90.0], [110.0]]))
    SoftUpdate(loss, tau=0.005).step()
    copied = loss.target_actor.module[0]
    assert copied.loc.item() == 100.0 and copied.mean.item() == 100.0 and copied.var.item() == 100.0
    assert copied.scale.item() == pytest.approx(0.1) and copied.count.item() == 2


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(6), nn.BatchNorm1d(6, affine=False)], ids=["affine", "plain"])
def test_batch_norm_of_a_target_learns_from_its_network_alone(layer):
    loss = DQNLoss(QValueActor(nn.Sequential(nn.Linear(4, 6), layer, nn.Linear(6, 3))), gamma=0.9)
    before = {name: value.clone() for name, value in loss.target_actor.state_dict().items()}
    for mode in (True, False, True):
        loss.train(mode)
        total_loss(loss(make_transitions("choice", 16))).backward()
        torch.testing.assert_close(dict(loss.target_actor.state_dict()), before, rtol=0, atol=0)
    own = loss.actor.module[1]
    assert own.training and own.num_batches_tracked > 0 and own.running_mean.abs().sum() > 0
    SoftUpdate(loss, tau=0.005).step()
    copied = loss.target_actor.module[1]
    assert torch.equal(copied.running_mean, own.running_mean) and torch.equal(copied.running_var, own.running_var)
    assert copied.num_batches_tracked == own.num_batches_tracked
    torch.testing.assert_close(loss.target_actor.module[0].weight, before["module.0.weight"])


def test_batch_norm_inside_an_ensemble_is_copied_too():
    network = ValueEnsemble(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)), 2)
    target = ValueEnsemble(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)), 2)
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    for buffer in statistics:
        buffer.fill_(7.0)
    SoftUpdate(OneNetwork(network, target), tau=0.005).step()
    assert statistics and all(map(torch.equal, network.buffers(), target.buffers()))
    weights = [ensemble.get_parameter("module.module.0.weight") for ensemble in (network, target)]
    assert not torch.equal(*weights)
