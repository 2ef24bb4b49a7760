import inspect
import math

import pytest
import torch

from torchrl.objectives import A2CLoss

LOG_2 = math.log(2.0)


def test_values_by_hand(by_hand):
    actor, critic, batch = by_hand
    terms = A2CLoss(actor, critic, entropy_coef=0.25)(batch)
    expected = {
        # -log π A, with -log π = log 2, 2 log 2, 2 log 2, log 2
        "loss_objective": (2.0 + 4.0 - 4.0 - 4.0) * LOG_2 / 4,
        "loss_critic": 0.5 * (0.0 + 1.0 + 4.0 + 1.0) / 4,
        "loss_entropy": -0.25 * 1.5 * LOG_2,
        "entropy": 1.5 * LOG_2,
    }
    assert set(terms.keys()) == set(expected)
    for key, value in expected.items():
        assert terms[key].item() == pytest.approx(value, rel=1e-12), key


def test_gradients_by_hand(by_hand):
    """d(-log π A)/d logits = -A (e_a - π): Σ A e_a = (-2, 2, -2) and Σ A = -2, with π = (½, ¼, ¼)."""
    actor, critic, batch = by_hand
    terms = A2CLoss(actor, critic, entropy_coef=0.25)(batch)
    terms["loss_objective"].backward(retain_graph=True)
    expected = -torch.tensor([-2.0 + 1.0, 2.0 + 0.5, -2.0 + 0.5], dtype=torch.float64) / 4
    torch.testing.assert_close(actor.module.row.grad, expected)
    actor.module.row.grad = None
    # dH/d logits = -π (log π + H), with log π + H = (½, -½, -½) log 2
    terms["loss_entropy"].backward()
    expected = 0.25 * torch.tensor([1 / 4, -1 / 8, -1 / 8], dtype=torch.float64) * LOG_2
    torch.testing.assert_close(actor.module.row.grad, expected)
    terms["loss_critic"].backward()
    expected = torch.tensor([0.5 * 2 * (0.0 - 1.0 - 2.0 + 1.0) / 4], dtype=torch.float64)
    torch.testing.assert_close(critic.module.row.grad, expected)


def test_what_the_acting_policy_thought_is_not_read(by_hand):
    actor, critic, batch = by_hand
    terms = A2CLoss(actor, critic)(batch)
    less = A2CLoss(actor, critic)(batch.exclude("action_log_prob", "logits", "state_value"))
    assert terms.to_dict() == less.to_dict()


def test_defaults():
    default = {name: parameter.default for name, parameter in inspect.signature(A2CLoss).parameters.items()}
    assert (default["entropy_coef"], default["critic_coef"], default["normalize_advantage"]) == (0.01, 0.5, False)
