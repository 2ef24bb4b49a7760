"""ParallelHeads: all results in order, from heads that return one tensor or several."""

import pytest
import torch
from torch import nn

from torchrl.errors import ConfigError
from torchrl.modules import NormalHead, ParallelHeads


def test_results_come_in_one_tuple_in_the_order_of_the_heads():
    first, second = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 2), NormalHead(2, init_log_std=-1.0))
    features = torch.randn(5, 4)
    logits, loc, scale = ParallelHeads(first, second)(features)
    assert torch.equal(logits, first(features)) and torch.equal(loc, second(features)[0])
    torch.testing.assert_close(scale, torch.full((5, 2), -1.0).exp())


def test_every_head_gets_every_input_and_is_registered():
    heads = ParallelHeads(nn.Bilinear(2, 3, 1), nn.Bilinear(2, 3, 4))
    assert [result.shape for result in heads(torch.ones(6, 2), torch.ones(6, 3))] == [(6, 1), (6, 4)]
    assert len(list(heads.parameters())) == 4


def test_no_head_is_refused():
    with pytest.raises(ConfigError, match="ParallelHeads: expected at least one head"):
        ParallelHeads()
