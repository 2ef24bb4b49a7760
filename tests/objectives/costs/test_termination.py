"""The price of an ending: by hand, what it trains, and what is refused."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl.errors import ConfigError
from torchrl.modules import LSTM, Categorical, Options, PerOption, ProbabilisticActor, Sequence
from torchrl.objectives import TerminationLoss


def make_options(num_inputs=1, key="observation", **options):
    worker = ProbabilisticActor(PerOption(nn.Linear(num_inputs, 4), 2), Categorical, in_keys=[key, ("option", "index")])
    return Options(2, nn.Linear(num_inputs, 2), worker, in_keys=[key], **options)


def make_rows(running):
    running = torch.tensor(running)
    option = TensorDict({"running": running, "age": torch.ones_like(running)}, running.shape)
    return TensorDict({"observation": torch.ones(*running.shape, 1), "option": option}, running.shape)


def fixed_endings():
    termination = nn.Linear(1, 2)
    termination.weight.data.zero_()
    termination.bias.data = torch.tensor([0.0, 3.0]).log1p()  # β = 1/2 and 4/5
    return termination


def test_the_mean_is_over_steps_that_an_option_runs():
    policy = make_options(termination=fixed_endings())
    loss = TerminationLoss(policy, coef=0.1)
    terms = loss(make_rows([0, 1, 1, 2, 2]))  # 2: none
    assert terms["termination"].item() == pytest.approx((0.5 + 0.8 + 0.8) / 3)
    assert terms["loss_termination"].item() == pytest.approx(0.1 * 0.7)
    terms["loss_termination"].backward()
    # dβ/dlogit = β (1 - β)
    expected = [0.1 * 0.25 / 3, 0.1 * 2 * 0.16 / 3]
    assert policy.termination.module.bias.grad.tolist() == pytest.approx(expected)
    assert all(x.grad is None for part in (policy.chooser, policy.worker) for x in part.parameters())
    assert {id(x) for x in loss.trainable_parameters()} == {id(x) for x in policy.termination.parameters()}


def test_where_no_option_runs_nothing_is_charged():
    terms = TerminationLoss(make_options(termination=nn.Linear(1, 2)))(make_rows([2, 2]))
    assert terms["loss_termination"] == 0 and terms["termination"] == 0


def test_behind_a_memory_it_trains_the_memory_too():
    policy = make_options(8, "hidden", termination=nn.Linear(8, 2))
    policy = Sequence(LSTM(1, 8), policy, out_keys=policy.out_keys)
    batch = make_rows([[0, 1, 1], [2, 0, 0]])
    batch["memory"], batch["is_init"] = torch.zeros(2, 3, 1, 2, 8), torch.zeros(2, 3, 1, dtype=torch.bool)
    loss = TerminationLoss(policy)
    loss(batch)["loss_termination"].backward()
    assert all(x.grad.any() for x in loss.trainable_parameters() if x.numel() != 2)


def test_what_has_no_endings_is_refused():
    with pytest.raises(ConfigError, match="got Options without it"):
        TerminationLoss(make_options(every=3))
    with pytest.raises(ConfigError, match="got ProbabilisticActor"):
        TerminationLoss(ProbabilisticActor(nn.Linear(1, 2), Categorical))
