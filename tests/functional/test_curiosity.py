"""Errors of prediction and running returns, by hand and against a loop."""

import math

import pytest
import torch

from torchrl.errors import SpecError
from torchrl.functional import inverse_model_loss, prediction_error, return_so_far


def test_prediction_error_by_hand():
    prediction, target = torch.tensor([[[1.0, 2.0], [0.5, 0.0]]]), torch.tensor([[[3.0, 2.0], [0.0, 0.0]]])
    assert prediction_error(prediction, target).tolist() == [[[4.0], [0.25]]]


def test_inverse_model_loss_of_choices_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]).log()
    expected = [[2 * math.log(2)], [0.0]]
    torch.testing.assert_close(inverse_model_loss(logits, torch.tensor([2, 1])), torch.tensor(expected))


def test_inverse_model_loss_of_vectors_by_hand():
    prediction, action = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert inverse_model_loss(prediction, action).tolist() == [[2.5]]  # ½ (1 + 4)


def test_one_hot_choices_are_told_from_indices():
    with pytest.raises(SpecError, match=r"inverse_model_loss: expected choices of shape \[2\].*argmax"):
        inverse_model_loss(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64))


def test_return_so_far_by_hand():
    reward = torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 1.0]]).unsqueeze(-1)
    result = return_so_far(reward, torch.tensor([[0.0], [2.0]]), gamma=0.5)
    assert result.squeeze(-1).tolist() == [[1.0, 2.5, 5.25], [9.0, 4.5, 3.25]]


def test_return_so_far_waits_at_masked_steps():
    reward = torch.tensor([1.0, math.nan, 4.0, math.inf]).unsqueeze(-1)
    mask = torch.tensor([True, False, True, False]).unsqueeze(-1)
    assert return_so_far(reward, torch.zeros(1), gamma=0.5, mask=mask).squeeze(-1).tolist() == [1.0, 1.0, 4.5, 4.5]


@pytest.mark.parametrize("num_steps", [1, 2, 37])
def test_return_so_far_equals_a_loop_and_goes_on(num_steps):
    generator = torch.Generator().manual_seed(num_steps)
    reward, now = (torch.randn(3, size, 1, generator=generator, dtype=torch.float64) for size in (2 * num_steps, 1))
    now, expected = now[:, 0], []
    start = now
    for step in range(2 * num_steps):
        now = 0.9 * now + reward[:, step]
        expected.append(now)
    first = return_so_far(reward[:, :num_steps], start, gamma=0.9)
    second = return_so_far(reward[:, num_steps:], first[:, -1], gamma=0.9)
    torch.testing.assert_close(torch.cat([first, second], 1), torch.stack(expected, 1))
