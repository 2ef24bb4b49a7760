"""Bernoulli: entries 0 and 1, decided ones, and the dtype of actions."""

import math
from functools import partial

import pytest
import torch

from torchrl.errors import SpecError
from torchrl.modules import Bernoulli


def test_log_prob_and_entropy_by_hand():
    distribution = Bernoulli(torch.tensor([[0.0, math.log(3)]]))  # one half, three quarters
    torch.testing.assert_close(
        distribution.log_prob(torch.tensor([[1, 0]], dtype=torch.int8)).exp(), torch.tensor([0.5 * 0.25])
    )
    expected = math.log(2) - 0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    torch.testing.assert_close(distribution.entropy(), torch.tensor([expected]))
    assert distribution.mode.tolist() == [[0, 1]]


def test_decided_entries_stay_decided_and_never_make_a_nan():
    logits = torch.tensor([[math.inf, -math.inf, 0.0]]).expand(10_000, 3).clone().requires_grad_()
    distribution = Bernoulli(logits)
    action, log_prob = distribution.sample_and_log_prob()
    assert (action[:, 0] == 1).all() and (action[:, 1] == 0).all()
    torch.testing.assert_close(log_prob, torch.full((10_000,), -math.log(2)))
    torch.testing.assert_close(distribution.entropy()[0].item(), math.log(2))
    total = log_prob + distribution.entropy() + distribution.kl(Bernoulli(logits.detach()))
    (gradient,) = torch.autograd.grad(total.sum(), logits)
    assert gradient.isfinite().all() and (gradient[:, :2] == 0).all()
    assert distribution.log_prob(1 - action)[0] == -math.inf
    assert Bernoulli(torch.zeros(1, 1)).kl(Bernoulli(torch.full((1, 1), math.inf))) > 1e30


@pytest.mark.parametrize("logit", [-800.0, -30.0, 30.0, 800.0])
def test_far_out_values_are_exact(logit):
    logits = torch.tensor([[logit]], dtype=torch.float64)
    rare = torch.tensor([[logit < 0]]).to(torch.int8)
    torch.testing.assert_close(
        Bernoulli(logits).log_prob(rare), torch.tensor([-abs(logit)]).double(), rtol=1e-12, atol=0
    )
    expected = (1 + abs(logit)) * math.exp(-abs(logit))  # q (1 − log q), nearly
    torch.testing.assert_close(Bernoulli(logits).entropy().item(), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int64, torch.float32])
def test_actions_have_the_dtype_asked_for_and_no_other(dtype):
    distribution = partial(Bernoulli, dtype=dtype)(torch.zeros(4, 3))
    action = distribution.sample()
    assert action.dtype == distribution.mode.dtype == dtype
    assert distribution.log_prob(action).shape == (4,)
    with pytest.raises(SpecError, match=r"expected torch\..*got torch.uint8 of shape \[4, 3\].*partial"):
        distribution.log_prob(action.to(torch.uint8))
