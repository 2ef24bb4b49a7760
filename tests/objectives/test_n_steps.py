"""Sums of several rewards inside sequences: by hand, and against MultiStep on features that a plain loop computed."""

import pytest
import torch
from tensordict import TensorDict

from cases.sequences import MASK, SHAPE, VALUE_LOSSES, make_batch, without_memory
from torchrl.data import MultiStep
from torchrl.functional.endings import is_done
from torchrl.modules import LSTM, Sequence
from torchrl.objectives import total_loss
from torchrl.objectives.n_steps import LAST, at_last, sum_rewards_

DQN = [name for name in VALUE_LOSSES if "DQN" in name]


@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
def test_by_hand(is_masked):
    """Two sequences of four: an ending behind the second step of the first; the last step of the second is masked."""
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    reward = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, torch.nan if is_masked else 128.0]]).unsqueeze(-1)
    batch = TensorDict({"next": {"reward": reward}}, [2, 4])
    follows = torch.tensor([[True, False, True, False], [True, True, not is_masked, False]]).unsqueeze(-1)
    rows = TensorDict({}, [7] if is_masked else [2, 4])
    if is_masked:
        batch[MASK] = mask
    sum_rewards_(rows, batch, follows, n_steps=3, gamma=0.5)
    first = [1 + 0.5 * 2, 2.0, 4 + 0.5 * 8, 8.0]
    second = [16 + 0.5 * 32 + 0.25 * 64, 32 + 0.5 * 64, 64.0]
    second = second if is_masked else [second[0], 32 + 0.5 * 64 + 0.25 * 128, 64 + 0.5 * 128, 128.0]
    assert rows["next", "reward"].flatten().tolist() == first + second
    powers = [2, 1, 2, 1, 3, 2, 1] if is_masked else [2, 1, 2, 1, 3, 3, 2, 1]
    assert rows["next", "gamma"].flatten().tolist() == [0.5**power for power in powers]
    last = [1, 1, 3, 3, 6, 6, 6] if is_masked else [1, 1, 3, 3, 6, 7, 7, 7]
    assert rows[LAST].flatten().tolist() == last
    value = torch.arange(float(len(last))).view(*rows.batch_size, 1)
    assert at_last(rows, value).flatten().tolist() == last


@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", DQN)
def test_a_loss_is_that_of_multi_step_on_features(name, is_masked):
    action, build = VALUE_LOSSES[name]
    cell, batch = LSTM(4, 4, out_key="observation"), make_batch(action, is_masked=is_masked)
    batch["next", "done"] = is_done(batch["next", "terminated"], batch["next", "truncated"])
    torch.manual_seed(1)
    loss = build(lambda net: Sequence(cell, net), n_steps=3)
    torch.manual_seed(1)
    plain = build(lambda net: net)
    sums = MultiStep(3, loss.gamma)(without_memory(cell, batch))
    terms, expected = loss(batch), plain(sums)
    for key in ("loss_value", "td_error", "target_value"):
        torch.testing.assert_close(terms[key], expected[key], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(terms["td_error"], plain(without_memory(cell, batch))["td_error"])
    total_loss(terms).backward()


@pytest.mark.parametrize("name", DQN)
def test_behind_a_burn_in_sums_are_those_of_the_whole_sequence(name):
    action, build = VALUE_LOSSES[name]
    cell, batch, errors = LSTM(4, 4, out_key="observation"), make_batch(action), []
    for options in ({}, {"burn_in": 3}):
        torch.manual_seed(1)
        errors.append(build(lambda net: Sequence(cell, net), n_steps=3, **options)(batch)["td_error"])
    torch.testing.assert_close(errors[0].view(SHAPE)[:, 3:].flatten(), errors[1], rtol=1e-5, atol=1e-5)
