import math

import pytest
import torch

from torchrl.errors import KeyMissing, SpecError
from torchrl.objectives import ReinforceLoss

LOG_2 = math.log(2.0)


def test_values_by_hand(by_hand):
    actor, _, batch = by_hand
    terms = ReinforceLoss(actor, entropy_coef=0.5)(batch)
    expected = {
        # -log π G, with -log π = log 2, 2 log 2, 2 log 2, log 2
        "loss_objective": (2.0 + 4.0 - 4.0 - 4.0) * LOG_2 / 4,
        "loss_entropy": -0.5 * 1.5 * LOG_2,
        "entropy": 1.5 * LOG_2,
    }
    assert set(terms.keys()) == set(expected)
    for key, value in expected.items():
        assert terms[key].item() == pytest.approx(value, rel=1e-12), key


def test_baseline_by_hand(by_hand):
    actor, critic, batch = by_hand
    without, terms = ReinforceLoss(actor)(batch), ReinforceLoss(actor, critic, critic_coef=2.0)(batch)
    assert terms["loss_critic"].item() == 2.0 * (0.0 + 1.0 + 4.0 + 1.0) / 4
    assert terms.exclude("loss_critic").to_dict() == without.to_dict()


def test_gradient_by_hand(by_hand):
    """d(-log π G)/d logits = -G (e_a - π): Σ G e_a = (-2, 2, -2) and Σ G = -2, with π = (½, ¼, ¼)."""
    actor, _, batch = by_hand
    ReinforceLoss(actor)(batch)["loss_objective"].backward()
    expected = -torch.tensor([-2.0 + 1.0, 2.0 + 0.5, -2.0 + 0.5], dtype=torch.float64) / 4
    torch.testing.assert_close(actor.module.row.grad, expected)


def test_reads_no_more_than_it_needs(by_hand):
    actor, critic, batch = by_hand
    ReinforceLoss(actor)(batch.select("observation", "action", "advantage"))
    with pytest.raises(KeyMissing, match="ReinforceLoss: expected the key 'value_target'"):
        ReinforceLoss(actor, critic)(batch.exclude("value_target"))


def test_a_row_of_advantages_is_refused_without_a_critic_too(by_hand):
    actor, _, batch = by_hand
    with pytest.raises(SpecError, match=r"advantage of shape \[4, 1\].*got \[4\]"):
        ReinforceLoss(actor)(batch.set("advantage", batch["advantage"].squeeze(-1)))
