"""Heads: loc and scale by value, and what is learned."""

import pytest
import torch

from torchrl.errors import SpecError
from torchrl.modules import NormalHead, StateDependentNormalHead
from torchrl.modules.distributions.mappings import bounded, exp


def test_the_scale_is_one_parameter_for_all_rows():
    head, features = NormalHead(3, init_log_std=-0.5), torch.randn(2, 4, 3)
    loc, scale = head(features)
    assert torch.equal(loc, features) and scale.shape == (2, 4, 3)
    torch.testing.assert_close(scale, torch.full((2, 4, 3), -0.5).exp())
    scale.sum().backward()
    torch.testing.assert_close(head.log_std.grad, 8 * torch.full((3,), -0.5).exp())
    assert list(head.state_dict()) == ["log_std"]


def test_the_scale_starts_at_one():
    assert torch.equal(NormalHead(2)(torch.zeros(1, 2))[1], torch.ones(1, 2))


def test_a_split_head_maps_the_second_half():
    output = torch.tensor([[0.1, 0.2, 0.0, 1.0]])
    loc, scale = StateDependentNormalHead(scale_mapping=exp)(output)
    torch.testing.assert_close(loc, output[:, :2])
    torch.testing.assert_close(scale, torch.tensor([[1.0, 2.718281828]]))


def test_a_split_head_starts_at_one_and_never_falls_below_its_minimum():
    head = StateDependentNormalHead(min_scale=1e-3)
    torch.testing.assert_close(head(torch.zeros(1, 2))[1], torch.ones(1, 1))
    torch.testing.assert_close(head(torch.tensor([[0.0, -100.0]]))[1], torch.tensor([[1e-3]]))


@pytest.mark.parametrize(
    "head", [NormalHead(2, loc_mapping=bounded(5.0)), StateDependentNormalHead(loc_mapping=bounded(5.0))]
)
def test_loc_can_be_bounded(head):
    loc, _ = head(torch.full((3, 2), 1e6))
    assert (loc == 5).all()


def test_an_odd_output_cannot_be_split():
    with pytest.raises(SpecError, match=r"even last dimension, got \[4, 3\].*2 × num_actions"):
        StateDependentNormalHead()(torch.zeros(4, 3))
