import inspect
import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.objectives import ClipPPOLoss


class Constant(nn.Module):
    """Return the same row for every observation."""

    def __init__(self, *row):
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row))

    def forward(self, observation):
        return self.row.expand(*observation.shape[:-1], -1)


@pytest.fixture
def by_hand(make_actor, make_critic):
    """π = (½, ¼, ¼), V = 1; four rows with ratios 1, 1.5, 0.5, 1 and advantages 2, 2, -2, -4."""
    actor = make_actor(Constant(math.log(2.0), 0.0, 0.0))
    critic = make_critic(Constant(1.0))
    ratio = torch.tensor([1.0, 1.5, 0.5, 1.0])
    action = torch.tensor([0, 1, 2, 0])
    probability = torch.tensor([0.5, 0.25, 0.25])[action]
    batch = TensorDict(
        {
            "observation": torch.zeros(4, 4),
            "action": action,
            "action_log_prob": (probability / ratio).log(),
            "advantage": torch.tensor([2.0, 2.0, -2.0, -4.0]).unsqueeze(-1),
            "value_target": torch.tensor([1.0, 2.0, 3.0, 0.0]).unsqueeze(-1),
            "state_value": torch.tensor([1.0, 0.0, 0.0, 1.0]).unsqueeze(-1),
        },
        batch_size=[4],
    )
    return actor, critic, batch


def test_values_by_hand(by_hand):
    actor, critic, batch = by_hand
    terms = ClipPPOLoss(actor, critic, entropy_coef=0.1, normalize_advantage=False)(batch)
    expected = {
        # -min(ρ A, clip A): -2, clipped -2.4, clipped 0.8·2 = 1.6, 4
        "loss_objective": (-2.0 - 2.4 + 1.6 + 4.0) / 4,
        "loss_critic": 0.5 * (0.0 + 1.0 + 4.0 + 1.0) / 4,
        "loss_entropy": -0.1 * 1.5 * math.log(2.0),
        "entropy": 1.5 * math.log(2.0),
        "approx_kl": (0.0 + (0.5 - math.log(1.5)) + (-0.5 + math.log(2.0)) + 0.0) / 4,
        "clip_fraction": 0.5,
    }
    assert set(terms.keys()) == set(expected)
    for key, value in expected.items():
        assert terms[key].item() == pytest.approx(value, rel=1e-5, abs=1e-6), key


def test_advantage_is_standardised_over_the_batch(by_hand):
    actor, critic, batch = by_hand
    # mean -½, deviations 2.5, 2.5, -1.5, -3.5: variance 6.75
    advantage = [value / math.sqrt(6.75) for value in (2.5, 2.5, -1.5, -3.5)]
    expected = (-advantage[0] - 1.2 * advantage[1] - 0.8 * advantage[2] - advantage[3]) / 4
    assert ClipPPOLoss(actor, critic)(batch)["loss_objective"].item() == pytest.approx(expected, rel=1e-5)


def test_gradient_by_hand(by_hand):
    """d(-ρ A)/d log π = -ρ A on rows 0 and 3 (ρ = 1), 0 on the clipped ones; d log π(0)/d logits = (½, -¼, -¼)."""
    actor, critic, batch = by_hand
    terms = ClipPPOLoss(actor, critic, normalize_advantage=False)(batch)
    terms["loss_objective"].backward()
    torch.testing.assert_close(actor.network.row.grad, (-2.0 + 4.0) / 4 * torch.tensor([0.5, -0.25, -0.25]))
    terms["loss_critic"].backward()
    torch.testing.assert_close(critic.network.row.grad, 0.5 * 2 * torch.tensor([0.0 - 1.0 - 2.0 + 1.0]) / 4)


def test_value_clip_by_hand(by_hand):
    actor, critic, batch = by_hand
    # V = 1, clipped to ½ of V_old: 1, ½, ½, 1. Squares: 0; max(1, 2.25); max(4, 6.25); 1
    loss = ClipPPOLoss(actor, critic, critic_coef=1.0, value_clip=0.5)
    assert loss(batch)["loss_critic"].item() == pytest.approx((0.0 + 2.25 + 6.25 + 1.0) / 4)


def test_schedules(by_hand):
    actor, critic, batch = by_hand
    loss = ClipPPOLoss(actor, critic, normalize_advantage=False)
    loss.clip_epsilon, loss.entropy_coef, loss.critic_coef = 0.6, 1.0, 2.0
    terms = loss(batch)
    assert terms["loss_objective"].item() == pytest.approx((-2.0 - 3.0 + 1.0 + 4.0) / 4, abs=1e-6)
    assert terms["clip_fraction"].item() == 0.0
    assert terms["loss_entropy"].item() == pytest.approx(-1.5 * math.log(2.0))
    assert terms["loss_critic"].item() == pytest.approx(2.0 * 6.0 / 4)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("advantage", "run GAE on the batch first"), ("value_target", "run GAE"), ("action_log_prob", "log_prob_key")],
)
def test_missing_key_says_who_writes_it(by_hand, key, hint):
    actor, critic, batch = by_hand
    with pytest.raises(KeyMissing, match=f"ClipPPOLoss: expected the key '{key}'.*{hint}"):
        ClipPPOLoss(actor, critic)(batch.exclude(key))


def test_old_value_is_needed_only_to_clip(by_hand):
    actor, critic, batch = by_hand
    batch = batch.exclude("state_value")
    ClipPPOLoss(actor, critic)(batch)
    with pytest.raises(KeyMissing, match="'state_value'.*run GAE"):
        ClipPPOLoss(actor, critic, value_clip=0.2)(batch)


@pytest.mark.parametrize("key", ["action_log_prob", "advantage", "value_target", "state_value"])
def test_nothing_is_broadcast(by_hand, key):
    actor, critic, batch = by_hand
    wrong = batch[key].unsqueeze(-1) if key == "action_log_prob" else batch[key].squeeze(-1)
    loss = ClipPPOLoss(actor, critic, value_clip=0.2)
    with pytest.raises(SpecError, match="of one shape"):
        loss(batch.set(key, wrong))


def test_mistakes_at_construction(by_hand, make_actor):
    actor, critic, _ = by_hand
    with pytest.raises(ConfigError, match="distribution, got StandInCritic.*ProbabilisticActor"):
        ClipPPOLoss(critic, critic)
    with pytest.raises(ConfigError, match="log_prob_key"):
        ClipPPOLoss(make_actor(log_prob_key=None), critic)
    with pytest.raises(ConfigError, match="smooth_l1.*'huber'"):
        ClipPPOLoss(actor, critic, critic_distance="huber")


def test_defaults():
    """The constants that recipes read from the signature."""
    default = {name: parameter.default for name, parameter in inspect.signature(ClipPPOLoss).parameters.items()}
    assert (default["clip_epsilon"], default["entropy_coef"], default["critic_coef"]) == (0.2, 0.0, 0.5)
