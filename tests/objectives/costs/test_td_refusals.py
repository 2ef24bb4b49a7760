"""What the losses of values refuse, and how their targets follow."""

import pytest
import torch
from torch import nn

from cases.losses import (
    BOUNDS,
    CHOICE,
    KINDS,
    POLICY_LOSSES,
    VALUE_LOSSES,
    critics,
    deterministic,
    gaussian,
    make_critic,
    make_transitions,
    network,
)
from torchrl.data.specs import Unbounded
from torchrl.errors import ConfigError, SpecError
from torchrl.modules import (
    MLP,
    Actor,
    AdditiveGaussian,
    BatchRenorm,
    Categorical,
    EGreedy,
    ProbabilisticActor,
    QuantileQValueActor,
    QValueActor,
    ValueOperator,
)
from torchrl.objectives import (
    DDPGLoss,
    DiscreteSACLoss,
    DQNLoss,
    HardUpdate,
    QuantileDQNLoss,
    REDQLoss,
    SACLoss,
    SoftUpdate,
    TD3Loss,
)

REFUSED = {
    "another actor": (
        lambda: DQNLoss(QuantileQValueActor(network(4, 3, 5))),
        "DQNLoss: expected a QValueActor, got Quan",
    ),
    "no actor of values": (lambda: QuantileDQNLoss(deterministic()), "expected a QuantileQValueActor, got Actor"),
    "gamma": (lambda: DQNLoss(QValueActor(network(4, 3)), gamma=1.5), "gamma between 0 and 1, got 1.5"),
    "distance": (lambda: DQNLoss(QValueActor(network(4, 3)), distance="l3"), "distance out of"),
    "kappa": (lambda: QuantileDQNLoss(QuantileQValueActor(network(4, 3, 5)), kappa=-1.0), "kappa of at least 0"),
    "lazy": (lambda: DQNLoss(QValueActor(nn.LazyLinear(3))), "lazy module.weight"),
    "chance": (lambda: DDPGLoss(gaussian(), critics()), "a deterministic actor, got ProbabilisticActor"),
    "no chance": (
        lambda: SACLoss(deterministic(), critics(), target_entropy=-1.0),
        "an actor with a distribution, got Actor",
    ),
    "noise": (
        lambda: TD3Loss(deterministic(), critics(), action_spec=BOUNDS, target_noise=-1.0),
        "numbers of at least 0, got target_noise=-1.0",
    ),
    "choices": (
        lambda: SACLoss(ProbabilisticActor(network(4, 3), Categorical), critics(), target_entropy=-1.0),
        "differentiated through its actions, got Categorical.*DiscreteSACLoss",
    ),
    "a vector": (
        lambda: DiscreteSACLoss(gaussian(), critics(), action_spec=CHOICE),
        "an actor of one choice, got TanhNo",
    ),
    "auto without a spec": (lambda: SACLoss(gaussian(), critics()), 'action_spec with target_entropy="auto"'),
    "auto of a choice": (
        lambda: DiscreteSACLoss(ProbabilisticActor(network(4, 3), Categorical), critics(), action_spec=BOUNDS),
        "action_spec of one choice",
    ),
    "temperature": (
        lambda: SACLoss(gaussian(), critics(), action_spec=BOUNDS, temperature=0.0),
        "temperature: expected a positive number, got 0.0",
    ),
    "too many critics": (
        lambda: REDQLoss(gaussian(), critics(3), action_spec=BOUNDS, num_sampled=4),
        "num_sampled from 1 to the 3 critics, got 4",
    ),
    "tau": (lambda: SoftUpdate(VALUE_LOSSES["SACLoss"].build(), tau=0.0), "SoftUpdate: expected tau above 0"),
    "interval": (lambda: HardUpdate(VALUE_LOSSES["SACLoss"].build(), interval=0), "an interval of at least 1, got 0"),
    "no targets": (
        lambda: SoftUpdate(POLICY_LOSSES["A2CLoss"].build(KINDS["discrete"].make_actor(), make_critic())),
        "SoftUpdate: expected a loss with target networks, got A2CLoss",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_parts_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    "make",
    [
        lambda spec: TD3Loss(deterministic(), critics(), action_spec=spec),
        lambda spec: SACLoss(gaussian(), critics(), action_spec=spec),
    ],
)
def test_actions_without_bounds_are_refused(make):
    with pytest.raises(SpecError, match=r"actions \[A\] with finite bounds"):
        make(Unbounded((2,)))


def test_losses_look_through_exploration():
    actor, policy = QValueActor(network(4, 3)), deterministic()
    assert DQNLoss(EGreedy(actor, CHOICE, num_frames=5)).actor is actor
    assert DDPGLoss(AdditiveGaussian(policy, BOUNDS), critics()).actor is policy


def test_a_hard_update_copies_at_its_interval_and_counts_on():
    loss = VALUE_LOSSES["DQNLoss of choice"].build()
    update = HardUpdate(loss, interval=3)
    with torch.no_grad():
        for parameter in loss.actor.parameters():
            parameter.add_(1.0)
    is_same = []
    for _ in range(4):
        update.step()
        is_same.append(all(map(torch.equal, loss.actor.parameters(), loss.target_actor.parameters())))
    assert is_same == [False, False, True, True] and update.state_dict() == {"num_steps": 4}
    other = HardUpdate(loss, interval=3)
    other.load_state_dict(update.state_dict())
    assert other.num_steps == 4


@pytest.mark.parametrize("make", [lambda loss: SoftUpdate(loss, tau=0.5), lambda loss: HardUpdate(loss, interval=1)])
def test_statistics_and_counters_are_copied(make):
    network_ = MLP(4, 3, num_cells=(7,), norm=BatchRenorm)
    loss = DQNLoss(QValueActor(network_))
    before = {name: x.clone() for name, x in loss.target_actor.named_buffers()}
    network_(torch.randn(64, 4) * 5 + 3)
    make(loss).step()
    assert len(before) == 3
    for (name, ours), theirs in zip(loss.target_actor.named_buffers(), loss.actor.buffers(), strict=True):
        assert torch.equal(ours, theirs) and not torch.equal(ours, before[name])


def test_a_shared_trunk_is_trained_by_both_and_copied_in_one_piece():
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
    actor = Actor(nn.Sequential(trunk, nn.Linear(6, 2)))

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = trunk, nn.Linear(8, 1)

        def forward(self, observation, action):
            return self.head(torch.cat([self.trunk(observation), action], -1))

    loss = DDPGLoss(actor, ValueOperator(Critic(), in_keys=["observation", "action"]))
    assert sum(parameter is trunk[0].weight for parameter in loss.trainable_parameters()) == 1
    batch, grads = make_transitions("vector", 8), []
    for key in ("loss_critic", "loss_actor"):
        loss.zero_grad(set_to_none=True)
        loss(batch)[key].backward()
        grads.append(trunk[0].weight.grad.clone())
    assert all(grad.any() for grad in grads)
    assert loss.target_critic.module.trunk is not trunk
