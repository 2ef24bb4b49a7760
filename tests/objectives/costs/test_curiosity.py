"""The losses of curiosity by hand: terms, the share of rows, refusals. Their laws: ``test_laws.py``."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from cases.losses import CURIOSITY_LOSSES, make_transitions
from torchrl.errors import ConfigError
from torchrl.modules import MLP, IntrinsicCuriosity, RandomNetworkDistillation
from torchrl.objectives import ICMLoss, RNDLoss


class Scaled(nn.Module):
    """One parameter times the first input, plus 0 times the others."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, first, *others):
        return self.factor * first


def led_to(*values):
    values = torch.tensor(values).unsqueeze(-1)
    return TensorDict({"next": TensorDict({"observation": values}, [len(values)])}, [len(values)])


def test_rnd_by_hand():
    module = RandomNetworkDistillation(Scaled(1.0), Scaled(3.0), shape=None)
    loss = RNDLoss(module, share=1.0)
    value = loss(led_to(1.0, 2.0, -3.0))["loss_predictor"]
    assert value.item() == pytest.approx(4 * (1 + 4 + 9) / 3)
    value.backward()
    assert module.predictor.factor.grad.item() == pytest.approx(-4 * (1 + 4 + 9) / 3)  # 2 (1 - 3) s'²
    assert module.target.factor.grad is None


@pytest.mark.parametrize(("share", "num_rows", "num_chosen"), [(0.25, 8, 2), (0.25, 1, 1), (0.01, 8, 1), (0.5, 7, 4)])
def test_rnd_takes_its_share_of_the_rows_each_once(share, num_rows, num_chosen):
    """Row i has the error 4 · 4ⁱ, so the mean says which rows it is over."""
    module = RandomNetworkDistillation(Scaled(1.0), Scaled(3.0), shape=None)
    loss = RNDLoss(module, share=share, generator=torch.Generator().manual_seed(0))
    batch = led_to(*(2.0**i for i in range(num_rows)))
    seen = set()
    for _ in range(50):
        chosen = bin(round(loss(batch)["loss_predictor"].item() * num_chosen) // 4)[2:]
        assert chosen.count("1") == num_chosen
        seen |= {at for at, digit in enumerate(reversed(chosen)) if digit == "1"}
    assert seen == {2 * i for i in range(num_rows)}


def test_rnd_draws_from_its_generator_alone():
    loss = CURIOSITY_LOSSES["RNDLoss"].build()
    batch, state = make_transitions("choice", 4, 6), torch.get_rng_state()
    loss.generator = torch.Generator().manual_seed(3)
    first = loss(batch)["loss_predictor"]
    assert torch.equal(torch.get_rng_state(), state) and loss(batch)["loss_predictor"] != first
    loss.generator = torch.Generator().manual_seed(3)
    assert loss(batch)["loss_predictor"] == first


def test_icm_by_hand():
    module = IntrinsicCuriosity(Scaled(2.0), Scaled(1.0), Scaled(3.0), num_actions=None, eta=7.0)
    batch = TensorDict({"observation": torch.tensor([[1.0]]), "action": torch.tensor([[5.0]])}, [1])
    batch["next", "observation"] = torch.tensor([[4.0]])
    loss = ICMLoss(module)
    # φ = 2, φ' = 8, â = 2, φ̂ = 6: L_I = ½ 3², L_F = ½ 2².
    terms = loss(batch)
    assert terms["loss_inverse"].item() == pytest.approx(0.8 * 4.5)
    assert terms["loss_dynamics"].item() == pytest.approx(0.2 * 2.0)
    loss.beta = 0.5
    assert loss(batch)["loss_dynamics"].item() == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["RNDLoss", "ICMLoss of choice"])
def test_what_it_trains(name):
    loss = CURIOSITY_LOSSES[name].build()
    parts = ["predictor"] if name == "RNDLoss" else ["features", "inverse", "dynamics"]
    expected = {id(p) for part in parts for p in loss.module.get_submodule(part).parameters()}
    assert {id(p) for p in loss.trainable_parameters()} == expected


def test_wrong_arguments_are_refused():
    rnd = RandomNetworkDistillation(MLP(4, 8), MLP(4, 8), shape=4)
    icm = IntrinsicCuriosity(MLP(4, 6), MLP(12, 3), MLP(9, 6), num_actions=3)
    for build, message in (
        (lambda: RNDLoss(icm), "RNDLoss: expected a RandomNetworkDistillation, got IntrinsicCuriosity"),
        (lambda: RNDLoss(rnd, share=0.0), "expected a share above 0"),
        (lambda: ICMLoss(rnd), "ICMLoss: expected an IntrinsicCuriosity"),
        (lambda: ICMLoss(icm, beta=1.0), "expected a finite beta of at least 0 and below 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            build()
