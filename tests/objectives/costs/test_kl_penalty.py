import math

import pytest
import torch

from cases.losses import KINDS, make_critic, make_rows
from torchrl.errors import ConfigError, KeyMissing
from torchrl.modules import Categorical, Distribution, ProbabilisticActor
from torchrl.objectives import KLPenaltyPPOLoss, PPOLoss, total_loss

# KL of (⅓, ⅓, ⅓) from (½, ¼, ¼)
KL = math.log(2.0) * 5 / 3 - math.log(3.0)


def test_values_by_hand(by_hand):
    actor, critic, batch = by_hand
    terms = KLPenaltyPPOLoss(actor, critic, kl_coef=4.0, normalize_advantage=False)(batch)
    plain = PPOLoss(actor, critic, normalize_advantage=False)(batch)
    # -ρ A sums up to 0
    assert terms["loss_objective"].item() == pytest.approx(4 * KL, rel=1e-12)
    assert terms["kl"].item() == pytest.approx(KL, rel=1e-12)
    assert terms["kl_coef"].item() == 4.0
    assert set(terms.keys()) == set(plain.keys()) | {"kl", "kl_coef"}
    for key in plain.keys() - {"loss_objective"}:
        assert terms[key] == plain[key], key


def test_gradient_by_hand(by_hand):
    """That of -ρ A is (2, -3, 1) / 4; d KL(p ‖ π) / d logits = π - p."""
    actor, critic, batch = by_hand
    KLPenaltyPPOLoss(actor, critic, kl_coef=3.0, normalize_advantage=False)(batch)["loss_objective"].backward()
    penalty = 3 * torch.tensor([1 / 2 - 1 / 3, 1 / 4 - 1 / 3, 1 / 4 - 1 / 3], dtype=torch.float64)
    expected = torch.tensor([2.0, -3.0, 1.0], dtype=torch.float64) / 4 + penalty
    torch.testing.assert_close(actor.module.row.grad, expected)


def test_samples_estimate_value_and_gradient(by_hand):
    actor, critic, batch = by_hand
    generator = torch.Generator().manual_seed(0)
    options = {"kl_coef": 1.0, "normalize_advantage": False}
    exact = KLPenaltyPPOLoss(actor, critic, **options)
    sampled = KLPenaltyPPOLoss(actor, critic, num_kl_samples=20_000, generator=generator, **options)
    gradients = []
    for loss in (exact, sampled):
        actor.module.row.grad = None
        loss(batch)["loss_objective"].backward()
        gradients.append(actor.module.row.grad)
    assert sampled(batch)["kl"].item() == pytest.approx(KL, rel=0.02)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.02, atol=0.005)


class TestAdaption:
    def test_divergence_is_the_mean_over_valid_rows(self, by_hand):
        actor, critic, batch = by_hand
        loss = KLPenaltyPPOLoss(actor, critic)
        assert loss.divergence(batch).item() == pytest.approx(KL, rel=1e-12)
        batch["logits"][:2] = torch.tensor([math.log(2.0), 0.0, 0.0])  # two rows of the present policy
        assert loss.divergence(batch).item() == pytest.approx(KL / 2, rel=1e-12)
        batch["collector", "mask"] = torch.tensor([False, True, True, True])
        assert loss.divergence(batch).item() == pytest.approx(KL * 2 / 3, rel=1e-12)
        assert not loss.divergence(batch).requires_grad

    def test_beta_follows_the_divergence_when_told_to(self, by_hand):
        actor, critic, batch = by_hand
        loss = KLPenaltyPPOLoss(actor, critic, kl_coef=1.0)
        for _ in range(3):
            total_loss(loss(batch)).backward()
        assert loss.kl_coef == 1.0
        loss.adapt_(loss.divergence(batch))  # 0.057 against 0.01
        assert loss.kl_coef == 2.0
        with torch.no_grad():
            actor.module.row.zero_()
        loss.adapt_(loss.divergence(batch))  # none
        loss.adapt_(loss.divergence(batch))
        assert loss.kl_coef == 0.5
        loss.adapt_(torch.tensor(0.012))
        assert loss.kl_coef == 0.5
        assert loss(batch)["kl_coef"].item() == 0.5
        loss.reset_()
        assert loss.kl_coef == 1.0

    def test_factors_and_target(self, by_hand):
        actor, critic, _ = by_hand
        loss = KLPenaltyPPOLoss(actor, critic, kl_coef=8.0, kl_target=1.0, increment=3.0, decrement=0.25)
        loss.adapt_(torch.tensor(2.0))
        assert loss.kl_coef == 24.0
        loss.adapt_(0.5)
        assert loss.kl_coef == 6.0

    def test_what_was_returned_does_not_change_with_it(self, by_hand):
        actor, critic, batch = by_hand
        loss = KLPenaltyPPOLoss(actor, critic)
        terms = loss(batch)
        loss.adapt_(torch.tensor(9.0))
        assert terms["kl_coef"].item() == 1.0

    def test_brings_the_divergence_to_its_target(self):
        """From a β under which each update goes far beyond it."""
        torch.manual_seed(0)
        actor, batch = KINDS["discrete"].make_actor(), make_rows(KINDS["discrete"], 64)
        loss = KLPenaltyPPOLoss(actor, make_critic(), kl_target=0.02, kl_coef=0.01)
        optimizer = torch.optim.Adam(loss.trainable_parameters(), lr=0.05)
        divergences = []
        for _ in range(40):
            with torch.no_grad():
                actor(batch)
            for _ in range(10):
                optimizer.zero_grad()
                total_loss(loss(batch)).backward()
                optimizer.step()
            divergences.append(loss.divergence(batch).item())
            loss.adapt_(loss.divergence(batch))
        assert divergences[0] > 0.4
        assert 0.01 < sorted(divergences[-21:])[10] < 0.04


class TestMistakes:
    def test_parameters_are_not_in_the_batch(self, by_hand):
        actor, critic, batch = by_hand
        with pytest.raises(KeyMissing, match="KLPenaltyPPOLoss: expected the key 'logits'.*The policy writes it"):
            KLPenaltyPPOLoss(actor, critic)(batch.exclude("logits"))

    def test_actor_writes_none(self, make_actor, make_critic):
        with pytest.raises(ConfigError, match="KLPenaltyPPOLoss.*parameters, got StandInActor"):
            KLPenaltyPPOLoss(make_actor(), make_critic())

    def test_family_has_no_formula(self, by_hand):
        class Wild(Categorical):
            kl = Distribution.kl

        actor, critic, batch = by_hand
        actor = ProbabilisticActor(actor.module, Wild)
        with pytest.raises(ConfigError, match="formula for `kl`, got Wild. Estimate it: num_kl_samples=16"):
            KLPenaltyPPOLoss(actor, critic)
        assert KLPenaltyPPOLoss(actor, critic, num_kl_samples=16)(batch)["kl"] > 0

    @pytest.mark.parametrize(
        "options",
        [{"kl_target": 0.0}, {"kl_coef": 0.0}, {"increment": 1.0}, {"decrement": 1.0}, {"decrement": 0.0}],
    )
    def test_constants(self, by_hand, options):
        actor, critic, _ = by_hand
        with pytest.raises(ConfigError, match="^KLPenaltyPPOLoss, PenalizedSurrogate: .*increment > 1 > decrement > 0"):
            KLPenaltyPPOLoss(actor, critic, **options)

    def test_no_sample(self, by_hand):
        actor, critic, _ = by_hand
        with pytest.raises(ConfigError, match="num_kl_samples=.*at least 1"):
            KLPenaltyPPOLoss(actor, critic, num_kl_samples=0)
