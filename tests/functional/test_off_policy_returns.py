import pytest
import torch

from cases.return_functions import random_batch
from cases.slow_returns import slow_vtrace
from torchrl.errors import ConfigError
from torchrl.functional import td_lambda, vtrace


def column(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype).unsqueeze(-1)


class TestVtrace:
    # Two rows of weights ½ and 2, γ = ½, errors of the values 1 + ½·20 - 10 = 1 and 4 - 20 = -16.
    SERIES = {
        "reward": column(1.0, 4.0),
        "value": column(10.0, 20.0),
        "next_value": column(20.0, 0.0),
        "terminated": column(False, False, dtype=torch.bool),
        "truncated": column(False, False, dtype=torch.bool),
        "log_weight": column(0.5, 2.0).log(),
    }

    @pytest.mark.parametrize(
        ("options", "advantages", "targets"),
        [
            # ρ = c = (½, 1): v1 = 20 - 16 = 4, v0 = 10 + ½ + ½·½·(4 - 20) = 6.5; ½·(1 + ½·4 - 10) = -3.5
            ({}, [-3.5, -16.0], [6.5, 4.0]),
            # ρ = (½, 2): v1 = 20 - 32 = -12, v0 = 10 + ½ + ½·½·(-12 - 20) = 2.5; ½·(1 + ½·-12 - 10) = -7.5
            ({"rho_clip": 2.0}, [-7.5, -32.0], [2.5, -12.0]),
            ({"rho_clip": None}, [-7.5, -32.0], [2.5, -12.0]),
            # c_0 = ¼: v0 = 10 + ½ + ½·¼·(4 - 20) = 8.5, as with λ = ½
            ({"c_clip": 0.25}, [-3.5, -16.0], [8.5, 4.0]),
            ({"lambda_": 0.5}, [-3.5, -16.0], [8.5, 4.0]),
            # rewards less their average 1: errors 0 and -17
            ({"reward": column(0.0, 3.0)}, [-4.25, -17.0], [5.75, 3.0]),
        ],
    )
    def test_by_hand(self, options, advantages, targets):
        advantage, target = vtrace(**self.SERIES | options, gamma=0.5)
        torch.testing.assert_close(advantage, column(*advantages))
        torch.testing.assert_close(target, column(*targets))

    @pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 40)])
    @pytest.mark.parametrize("rewards", [1, 2])
    @pytest.mark.parametrize(
        ("rho_clip", "c_clip", "lambda_"), [(1.0, 1.0, 1.0), (1.4, 0.8, 0.9), (None, 1.0, 1.0), (None, None, 0.5)]
    )
    def test_equals_the_definition(self, shape, rewards, rho_clip, c_clip, lambda_):
        batch = random_batch(*shape, rewards=rewards)
        got = vtrace(**batch, gamma=0.95, rho_clip=rho_clip, c_clip=c_clip, lambda_=lambda_)
        weight = batch.pop("log_weight").exp()
        rho, c = (weight if clip is None else weight.clamp(max=clip) for clip in (rho_clip, c_clip))
        expected = slow_vtrace(**batch, gamma=0.95, lambda_=lambda_, rho=rho, c=c)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("lambda_", [0.6, 1.0])
    def test_of_the_acting_policy_it_is_the_lambda_return(self, lambda_):
        batch = random_batch(3, 30)
        batch["log_weight"] = torch.zeros_like(batch["log_weight"])
        _, target = vtrace(**batch, gamma=0.95, lambda_=lambda_)
        names = ("reward", "next_value", "terminated", "truncated")
        expected = td_lambda(**{name: batch[name] for name in names}, gamma=0.95, lambda_=lambda_)
        torch.testing.assert_close(target, expected)

    def test_the_value_of_a_chain_under_another_policy(self):
        """The fixed point of the paper: with ρ̄ = 1 it is the value of a policy between μ and π, here of π ∧ μ.

        Two actions of a state that always returns to itself pay 1 and 0; μ takes them alike, π with 0.8 and 0.2. With
        weights min(1, π/μ) = (1, 0.4) the policy in between, ∝ min(π, μ), is (0.5, 0.2)/0.7, and γ = ½ makes its value
        2 · 0.5/0.7.
        """
        weights, rewards = torch.tensor([1.6, 0.4], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
        fixed = 2 * 0.5 / 0.7
        batch = {
            "reward": rewards.reshape(2, 1, 1),
            "value": torch.full((2, 1, 1), fixed, dtype=torch.float64),
            "next_value": torch.full((2, 1, 1), fixed, dtype=torch.float64),
            "terminated": torch.zeros(2, 1, 1, dtype=torch.bool),
            "truncated": torch.zeros(2, 1, 1, dtype=torch.bool),
            "log_weight": weights.log().reshape(2, 1, 1),
        }
        _, target = vtrace(**batch, gamma=0.5)
        assert target.mean().item() == pytest.approx(fixed, abs=1e-12)

    @pytest.mark.parametrize(
        "clips", [{"rho_clip": 0.5}, {"c_clip": None}, {"c_clip": 1.1}, {"rho_clip": 0.0, "c_clip": 0.0}]
    )
    def test_clips_out_of_order(self, clips):
        with pytest.raises(ConfigError, match="vtrace.*0 < c_clip <= rho_clip"):
            vtrace(**self.SERIES, gamma=0.5, **clips)
