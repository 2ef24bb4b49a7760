import inspect
import math

import pytest
import torch
from torch import nn

from torchrl.errors import ConfigError, KeyMissing, SpecError
from torchrl.modules import Categorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss, KLPenaltyPPOLoss, PPOLoss

LOG_2 = math.log(2.0)
APPROX_KL = (0.0 + (0.5 - math.log(1.5)) + (-0.5 + LOG_2) + 0.0) / 4
COMMON = {
    "loss_critic": 0.5 * (0.0 + 1.0 + 4.0 + 1.0) / 4,
    "loss_entropy": -0.25 * 1.5 * LOG_2,
    "entropy": 1.5 * LOG_2,
    "approx_kl": APPROX_KL,
}


def exactly(terms, expected):
    assert set(terms.keys()) == set(expected)
    for key, value in expected.items():
        assert terms[key].dtype == torch.float64, key
        assert terms[key].item() == pytest.approx(value, rel=1e-12, abs=1e-15), key


def test_clipped_values_by_hand(by_hand):
    actor, critic, batch = by_hand
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.25, entropy_coef=0.25, normalize_advantage=False)
    # -min(ρ A, clip A): -2, clipped -2.5, clipped 0.75·2 = 1.5, 4
    objective = (-2.0 - 2.5 + 1.5 + 4.0) / 4
    exactly(loss(batch), COMMON | {"loss_objective": objective, "clip_fraction": 0.5})


def test_plain_values_by_hand(by_hand):
    actor, critic, batch = by_hand
    loss = PPOLoss(actor, critic, entropy_coef=0.25, normalize_advantage=False)
    batch["advantage"][3] = -5.0
    # -ρ A: -2, -3, 1, 5; the ratios 1, 1.5, 0.5 and 1 sum up to 4, their squares to 4.5
    exactly(loss(batch), COMMON | {"loss_objective": (-2.0 - 3.0 + 1.0 + 5.0) / 4, "ess": 16 / (4 * 4.5)})


def test_plain_gradient_by_hand(by_hand):
    """d(-ρ A)/d logits = -ρ A (e_a - π): Σ ρ A e_a = (-2, 3, -1) and Σ ρ A = 0."""
    actor, critic, batch = by_hand
    PPOLoss(actor, critic, normalize_advantage=False)(batch)["loss_objective"].backward()
    expected = torch.tensor([2.0, -3.0, 1.0], dtype=torch.float64) / 4
    torch.testing.assert_close(actor.module.row.grad, expected)


def test_advantage_is_standardised_over_the_batch(by_hand):
    actor, critic, batch = by_hand
    # mean -½, deviations 2.5, 2.5, -1.5, -3.5: variance 6.75
    advantage = [value / math.sqrt(6.75) for value in (2.5, 2.5, -1.5, -3.5)]
    expected = (-advantage[0] - 1.2 * advantage[1] - 0.8 * advantage[2] - advantage[3]) / 4
    assert ClipPPOLoss(actor, critic)(batch)["loss_objective"].item() == pytest.approx(expected, rel=1e-5)


def test_clipped_gradient_by_hand(by_hand):
    """d(-ρ A)/d log π = -ρ A on rows 0 and 3 (ρ = 1), 0 on the clipped ones; d log π(0)/d logits = (½, -¼, -¼)."""
    actor, critic, batch = by_hand
    terms = ClipPPOLoss(actor, critic, normalize_advantage=False)(batch)
    terms["loss_objective"].backward()
    torch.testing.assert_close(actor.module.row.grad, (-2.0 + 4.0) / 4 * torch.tensor([0.5, -0.25, -0.25]).double())
    terms["loss_critic"].backward()
    torch.testing.assert_close(critic.module.row.grad, 0.5 * 2 * torch.tensor([0.0 - 1.0 - 2.0 + 1.0]).double() / 4)


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
    assert terms["loss_entropy"].item() == pytest.approx(-1.5 * LOG_2)
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
    with pytest.raises(SpecError, match="of one shape|as log-probs"):
        loss(batch.set(key, wrong))


def test_mistakes_at_construction(by_hand, make_actor):
    actor, critic, _ = by_hand
    with pytest.raises(ConfigError, match="distribution, got ValueOperator.*ProbabilisticActor"):
        ClipPPOLoss(critic, critic)
    with pytest.raises(ConfigError, match="ClipPPOLoss.*log_prob_key"):
        ClipPPOLoss(make_actor(log_prob_key=None), critic)
    with pytest.raises(ConfigError, match="PPOLoss.*log_prob_key"):
        PPOLoss(make_actor(log_prob_key=None), critic)
    with pytest.raises(ConfigError, match="smooth_l1.*'huber'"):
        ClipPPOLoss(actor, critic, critic_distance="huber")


def test_defaults():
    """The constants that recipes read from the signatures; the three losses agree on what they share."""
    signatures = [inspect.signature(loss).parameters for loss in (PPOLoss, ClipPPOLoss, KLPenaltyPPOLoss)]
    plain, clipped, penalty = ({name: x.default for name, x in parameters.items()} for parameters in signatures)
    assert (clipped["clip_epsilon"], clipped["entropy_coef"], clipped["critic_coef"]) == (0.2, 0.0, 0.5)
    assert (penalty["kl_target"], penalty["kl_coef"]) == (0.01, 1.0)
    assert (penalty["increment"], penalty["decrement"]) == (2.0, 0.5)
    assert plain.items() <= clipped.items() and plain.items() <= penalty.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_epsilon": 20.0}, "^ClipPPOLoss, ClippedSurrogate: .* clip_epsilon of at least 0 and below 1, got 20"),
        ({"clip_epsilon": -0.1}, "clip_epsilon of at least 0"),
        ({"clip_epsilon": math.nan}, "clip_epsilon of at least 0"),
        ({"entropy_coef": -1.0}, "a finite entropy_coef of at least 0"),
        ({"critic_coef": math.inf}, "a finite critic_coef of at least 0"),
        ({"value_clip": 0.0}, "value_clip, a positive number or None"),
        ({"value_clip": math.nan}, "value_clip, a positive number or None"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(options, message):
    actor, critic = ProbabilisticActor(nn.Linear(1, 2), Categorical), ValueOperator(nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=message):
        ClipPPOLoss(actor, critic, **options)
    loss = ClipPPOLoss(actor, critic)
    loss.clip_epsilon = 0.0  # where a schedule ends
    with pytest.raises(ConfigError, match=r"^ClipPPOLoss, ClippedSurrogate: .*below 1, got 1\.0"):
        loss.clip_epsilon = 1.0
