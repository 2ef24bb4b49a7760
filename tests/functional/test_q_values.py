import math

import pytest
import torch

from torchrl.errors import ConfigError, SpecError
from torchrl.functional import categorical_target, cross_entropy, quantile_huber_loss, temperature_loss


def tensor(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def column(*values):
    return tensor(*values).unsqueeze(-1)


def flags(*values):
    return torch.tensor(values).unsqueeze(-1)


def projected(probabilities, reward, terminated=(False,), gamma=0.5, low=0.0, high=4.0):
    probabilities = torch.tensor([probabilities], dtype=torch.float64)
    target = categorical_target(probabilities, column(reward), flags(*terminated), gamma=gamma, low=low, high=high)
    return target[0].tolist()


class TestCategoricalTarget:
    """Five atoms at 0, 1, 2, 3, 4."""

    def test_an_atom_that_falls_on_another_keeps_its_mass_there(self):
        assert projected([0, 0, 1, 0, 0], 2.0) == [0, 0, 0, 1, 0]  # 2 + ½·2

    def test_an_atom_between_two_is_shared_by_nearness(self):
        assert projected([0, 1, 0, 0, 0], 0.75) == [0, 0.75, 0.25, 0, 0]  # ¾ + ½·1 = 1¼

    def test_all_atoms_at_once(self):
        # 1 + ½ z = 1, 1½, 2, 2½, 3
        got = projected([0.1, 0.2, 0.4, 0.2, 0.1], 1.0)
        assert got == pytest.approx([0, 0.2, 0.6, 0.2, 0])

    @pytest.mark.parametrize(("reward", "end"), [(-7.0, 0), (9.0, 4)])
    def test_what_falls_outside_goes_to_the_ends(self, reward, end):
        assert projected([0.2] * 5, reward)[end] == pytest.approx(1.0)

    def test_all_mass_lies_at_the_reward_where_the_task_was_over(self):
        assert projected([0.2] * 5, 2.5, terminated=(True,)) == pytest.approx([0, 0, 0.5, 0.5, 0])

    def test_what_came_after_the_end_is_not_looked_at(self):
        assert projected([math.nan] * 5, 1.0, terminated=(True,)) == pytest.approx([0, 1, 0, 0, 0])

    def test_a_discount_per_row(self):
        probabilities = tensor(0.0, 0.0, 0.0, 0.0, 1.0).expand(2, 5)
        target = categorical_target(
            probabilities, column(0.0, 1.0), flags(False, False), gamma=column(0.25, 0.5), low=0.0, high=4.0
        )
        assert target.tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]

    def test_against_a_plain_loop(self):
        generator = torch.Generator().manual_seed(0)
        num, atoms = 64, 51
        mass = torch.rand(num, atoms, dtype=torch.float64, generator=generator)
        mass /= mass.sum(-1, keepdim=True)
        reward = 8 * torch.randn(num, 1, dtype=torch.float64, generator=generator)
        over = torch.rand(num, 1, generator=generator) < 0.3
        expected = torch.zeros(num, atoms, dtype=torch.float64)
        for n in range(num):
            for k in range(atoms):
                z = -10 + 20 * k / (atoms - 1)
                place = min(max(reward[n, 0].item() + (0 if over[n, 0] else 0.9 * z), -10), 10)
                b = (place + 10) * (atoms - 1) / 20
                for i in range(atoms):
                    expected[n, i] += max(0.0, 1 - abs(b - i)) * (1 / atoms if over[n, 0] else mass[n, k])
        got = categorical_target(mass, reward, over, gamma=0.9, low=-10.0, high=10.0)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(got.sum(-1), torch.ones(num, dtype=torch.float64))

    def test_the_mean_is_that_of_the_target_inside_the_support(self):
        mass = torch.rand(32, 21).softmax(-1)
        reward = torch.rand(32, 1)
        target = categorical_target(mass, reward, torch.zeros(32, 1).bool(), gamma=0.5, low=-4.0, high=4.0)
        atoms = torch.linspace(-4, 4, 21)
        torch.testing.assert_close(target @ atoms, reward[:, 0] + 0.5 * (mass @ atoms))

    def test_no_gradient(self):
        mass = torch.rand(3, 5).softmax(-1).requires_grad_()
        got = categorical_target(mass, torch.rand(3, 1), torch.zeros(3, 1).bool(), gamma=0.5, low=-4.0, high=4.0)
        assert not got.requires_grad

    @pytest.mark.parametrize("options", [{"low": 1.0, "high": 1.0}, {"low": 2.0, "high": 1.0}])
    def test_no_room_is_refused(self, options):
        with pytest.raises(ConfigError, match="low below high"):
            projected([0.2] * 5, 1.0, **options)

    def test_a_single_atom_is_refused(self):
        with pytest.raises(ConfigError, match="at least 2 atoms"):
            projected([1.0], 1.0)


def test_cross_entropy_by_hand():
    log_probabilities = tensor([math.log(0.5), math.log(0.25), math.log(0.25)])
    loss = cross_entropy(log_probabilities, tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(loss, tensor([1.5 * math.log(2)]))


class TestQuantileHuberLoss:
    def test_by_hand(self):
        """θ = (0, 2), τ = (¼, ¾), targets 0.5 and 4: u = (0.5, 4) and (-1.5, 2)."""
        quantiles = tensor([0.0, 2.0], grad=True)
        loss = quantile_huber_loss(quantiles, tensor([0.5, 4.0]))
        first = (0.25 * 0.125 + 0.25 * 3.5) / 2
        second = (0.25 * 1.0 + 0.75 * 1.5) / 2
        torch.testing.assert_close(loss, tensor([first + second]))
        loss.sum().backward()
        # dL/dθ = -weight · clip(u, ±1), mean over targets
        torch.testing.assert_close(quantiles.grad, tensor([-(0.25 * 0.5 + 0.25) / 2, (0.25 * 1 - 0.75 * 1) / 2]))

    def test_without_huber(self):
        loss = quantile_huber_loss(tensor([0.0, 2.0]), tensor([0.5, 4.0]), kappa=0.0)
        torch.testing.assert_close(loss, tensor([0.25 * 4.5 / 2 + (0.25 * 1.5 + 0.75 * 2) / 2]))

    def test_a_wider_threshold(self):
        loss = quantile_huber_loss(tensor([0.0]), tensor([3.0]), kappa=2.0)
        torch.testing.assert_close(loss, tensor([0.5 * 2.0 * (3.0 - 1.0)]))

    def test_its_minimum_is_the_quantiles_of_the_targets(self):
        targets = torch.arange(1.0, 9.0).expand(1, 8)
        quantiles = torch.zeros(1, 4, requires_grad=True)
        optimizer = torch.optim.Adam([quantiles], lr=0.05)
        for _ in range(800):
            optimizer.zero_grad()
            quantile_huber_loss(quantiles, targets, kappa=0.0).sum().backward()
            optimizer.step()
        # τ = ⅛, ⅜, ⅝, ⅞ of 1…8 lie between the 1st and 2nd, the 3rd and 4th …
        low = torch.tensor([1.0, 3.0, 5.0, 7.0])
        assert ((quantiles[0] >= low - 0.1) & (quantiles[0] <= low + 1.1)).all(), quantiles

    def test_the_number_of_targets_may_differ(self):
        assert quantile_huber_loss(torch.zeros(3, 4), torch.ones(3, 7)).shape == (3, 1)

    def test_other_rows_are_refused(self):
        with pytest.raises(SpecError, match=r"\[3, 4\].*\[2, 4\]"):
            quantile_huber_loss(torch.zeros(3, 4), torch.ones(2, 4))

    def test_a_negative_threshold_is_refused(self):
        with pytest.raises(ConfigError, match="kappa"):
            quantile_huber_loss(torch.zeros(3, 4), torch.ones(3, 4), kappa=-1.0)


def test_temperature_rises_where_the_entropy_is_too_low():
    log_temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    loss = temperature_loss(tensor(1.0, 3.0), log_temperature=log_temperature, target_entropy=-1.0)
    torch.testing.assert_close(loss, tensor(0.0, -1.0))
    loss.mean().backward()
    assert log_temperature.grad == -1.0  # entropy -2, wanted -1: descent raises log α
