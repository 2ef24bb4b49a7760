"""Networks behind an encoder, and every off-policy algorithm on pixels with them."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.data.specs import Bounded
from torchrl.modules import (
    MLP,
    Actor,
    ConvNet,
    DistributionalQValueActor,
    DuelingHead,
    Encoded,
    ProbabilisticActor,
    QValueActor,
    StateDependentNormalHead,
    TanhHead,
    TanhNormal,
    ValueEnsemble,
)
from torchrl.objectives import DistributionalDQNLoss, DQNLoss, REDQLoss, SACLoss, TD3Loss, total_loss

SPEC = Bounded(torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 1.0]))


def conv():
    return ConvNet(4, num_cells=(6, 8), kernel_sizes=(4, 3), strides=(2, 1))


FEATURES = conv().num_features(12, 12)


def test_the_first_input_is_encoded_and_the_others_join_it():
    network = Encoded(conv(), MLP(FEATURES + 2, 1))
    images, action = torch.randint(256, (5, 4, 12, 12), dtype=torch.uint8), torch.randn(5, 2)
    expected = network.head(torch.cat([network.encoder(images), action], -1))
    torch.testing.assert_close(network(images, action), expected)
    alone = Encoded(conv(), MLP(FEATURES, 3))
    torch.testing.assert_close(alone(images), alone.head(alone.encoder(images)))


def critics(num):
    return ValueEnsemble(lambda: Encoded(conv(), MLP(FEATURES + 2, 1)), num, in_keys=["pixels", "action"])


def gaussian():
    network = nn.Sequential(conv(), MLP(FEATURES, 4), StateDependentNormalHead())
    family = TanhNormal.within(SPEC.low, SPEC.high)
    return ProbabilisticActor(network, family, in_keys=["pixels"], log_prob_key=None)


def deterministic():
    return Actor(nn.Sequential(conv(), MLP(FEATURES, 2), TanhHead(SPEC.low, SPEC.high)), in_keys=["pixels"])


def dueling(**options):
    return nn.Sequential(conv(), DuelingHead(FEATURES, 3, num_cells=(8,), **options))


FIXED = {"temperature": 0.01, "learn_temperature": False}  # a growing one would move the critics' targets
LOSSES = {
    "DQN": lambda: DQNLoss(QValueActor(dueling(), in_keys=["pixels"])),
    "C51": lambda: DistributionalDQNLoss(
        DistributionalQValueActor(dueling(num_outputs=11), in_keys=["pixels"], low=-3, high=3)
    ),
    "TD3": lambda: TD3Loss(deterministic(), critics(2), action_spec=SPEC),
    "SAC": lambda: SACLoss(gaussian(), critics(2), **FIXED),
    "REDQ": lambda: REDQLoss(gaussian(), critics(3), **FIXED),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_train_networks_of_pixels(name):
    loss = LOSSES[name]()
    choice = name in ("DQN", "C51")
    image = lambda: torch.randint(256, (8, 4, 12, 12), dtype=torch.uint8)  # noqa: E731
    after = {"pixels": image(), "reward": torch.randn(8, 1), "terminated": torch.zeros(8, 1, dtype=torch.bool)}
    action = torch.randint(3, (8,)) if choice else SPEC.rand((8,))
    batch = TensorDict({"pixels": image(), "action": action, "next": after}, batch_size=[8])
    optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=3e-3)
    key = "loss_value" if choice else "loss_critic"
    values = []
    for _ in range(30):
        torch.manual_seed(0)
        losses = loss(batch)
        optimizer.zero_grad()
        total_loss(losses).backward()
        optimizer.step()
        values.append(losses[key].item())
    assert all(parameter.grad is not None for parameter in loss.trainable_parameters())
    assert values[-1] < 0.7 * values[0] or name == "C51" and values[-1] < values[0]
