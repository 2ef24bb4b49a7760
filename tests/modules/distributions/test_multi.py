"""MultiCategorical: groups of equal and different sizes, against one Categorical for each."""

import math

import pytest
import torch

from torchrl.errors import ConfigError, SpecError
from torchrl.modules import Categorical, MultiCategorical

NVECS = [(3,), (2, 2, 2), (3, 1, 4), (1, 1)]


def test_log_prob_by_hand():
    logits = torch.tensor([[1.0, 3.0, 1.0, 1.0, 2.0]]).log()
    distribution = MultiCategorical(logits, nvec=[2, 3])
    torch.testing.assert_close(distribution.log_prob(torch.tensor([[1, 2]])).exp(), torch.tensor([3 / 4 * 2 / 4]))
    assert distribution.mode.tolist() == [[1, 2]]


@pytest.mark.parametrize("nvec", NVECS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_every_group_is_a_categorical_of_its_own(nvec, shape):
    logits = torch.randn(*shape, sum(nvec), dtype=torch.float64)
    distribution = MultiCategorical.of(nvec)(logits)
    groups = [Categorical(group) for group in logits.split(nvec, -1)]
    action, log_prob = distribution.sample_and_log_prob()
    assert action.shape == (*shape, len(nvec)) and action.dtype == torch.int64
    torch.testing.assert_close(log_prob, sum(group.log_prob(action[..., k]) for k, group in enumerate(groups)))
    torch.testing.assert_close(distribution.entropy(), sum(group.entropy() for group in groups))
    assert torch.equal(distribution.mode, torch.stack([group.mode for group in groups], -1))


def test_an_index_beyond_its_group_has_no_probability():
    assert MultiCategorical(torch.zeros(1, 5), nvec=[2, 3]).log_prob(torch.tensor([[2, 0]])).item() == -math.inf


@pytest.mark.parametrize("nvec", [(2, 2), (3, 1)])
def test_masked_actions_are_not_drawn(nvec):
    mask = torch.tensor([False, True, True, True] if nvec == (2, 2) else [True, False, True, True])
    distribution = MultiCategorical.of(nvec)(torch.zeros(2000, 4), mask=mask.expand(2000, 4))
    draws = distribution.sample()
    assert draws[:, 0].unique().tolist() == ([1] if nvec == (2, 2) else [0, 2])
    torch.testing.assert_close(distribution.entropy(), torch.full((2000,), math.log(2)))


def test_a_mask_that_leaves_a_choice_nothing_is_an_error_that_names_row_and_choice():
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[2, 3:] = False
    with pytest.raises(SpecError, match=r"MultiCategorical: .*got none in row and choice \[2, 1\]"):
        MultiCategorical(torch.zeros(3, 5), nvec=[3, 2], mask=mask)
    with pytest.raises(SpecError, match=r"expected a bool mask of shape \[3, 5\], got \[5\]"):
        MultiCategorical(torch.zeros(3, 5), nvec=[3, 2], mask=mask[0])
    with pytest.raises(SpecError, match=r"expected a mask of bools, or of 0 and 1 .*got 2"):
        MultiCategorical(torch.zeros(3, 5), nvec=[3, 2], mask=2.0 * mask)


@pytest.mark.parametrize("action", [torch.zeros(2, 2), torch.zeros(2, 5).long(), torch.zeros(2).long()])
def test_other_actions_are_refused(action):
    with pytest.raises(SpecError, match=r"expected int64 indices of shape \[2, 2\], got torch"):
        MultiCategorical(torch.zeros(2, 5), nvec=[2, 3]).log_prob(action)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(SpecError, match=r"expected 5 logits, the sum of nvec=\[2, 3\], got \[4, 6\]"):
        MultiCategorical.of([2, 3])(torch.zeros(4, 6))
    for nvec in ([], [2, 0], [1.5]):
        with pytest.raises(ConfigError, match="expected sizes of at least 1"):
            MultiCategorical.of(nvec)
    with pytest.raises(ConfigError, match=r"expected the same nvec, got \[2, 3\] and \[3, 2\]"):
        MultiCategorical.of([2, 3])(torch.zeros(1, 5)).kl(MultiCategorical.of([3, 2])(torch.zeros(1, 5)))


def test_sizes_may_be_a_tensor():
    assert MultiCategorical.of(torch.tensor([2, 3])).keywords["nvec"].nvec == (2, 3)
