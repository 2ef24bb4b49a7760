import pytest
import torch

from torchrl.errors import SpecError
from torchrl.functional import bootstraps, is_done, next_step_follows, trace_goes_on

TABLE = [
    # event, terminated, truncated, done, bootstrap, trace goes on
    ("ordinary step", False, False, False, True, True),
    ("task over", True, False, True, False, False),
    ("time limit", False, True, True, True, False),
    ("both", True, True, True, False, False),
]


@pytest.mark.parametrize(("event", "terminated", "truncated", "done", "bootstrap", "trace"), TABLE)
def test_table(event, terminated, truncated, done, bootstrap, trace):
    terminated, truncated = torch.tensor([[terminated]]), torch.tensor([[truncated]])
    assert is_done(terminated, truncated).tolist() == [[done]], event
    assert bootstraps(terminated).tolist() == [[bootstrap]], event
    assert trace_goes_on(terminated, truncated).tolist() == [[trace]], event


def test_edge_of_the_batch():
    """The last row of the table: nothing ended, the value counts, but no row follows."""
    flag = torch.zeros(2, 3, 1, dtype=torch.bool)
    assert bootstraps(flag).all()
    assert next_step_follows(flag, flag).squeeze(-1).tolist() == [[True, True, False]] * 2


def flags(*values):
    return torch.tensor(values, dtype=torch.bool).unsqueeze(-1)


def test_no_row_follows_an_ending():
    follows = next_step_follows(flags(0, 1, 0, 0, 0), flags(0, 0, 0, 1, 0))
    assert follows.squeeze(-1).tolist() == [True, False, True, False, False]


def test_no_row_follows_where_the_next_one_starts_an_episode_though_no_flag_is_set():
    none = flags(0, 0, 0, 0)
    follows = next_step_follows(none, none, is_init=flags(1, 0, 1, 0))
    assert follows.squeeze(-1).tolist() == [True, False, True, False]


def test_masked_rows_neither_follow_nor_are_followed():
    none = flags(0, 0, 0, 0, 0)
    follows = next_step_follows(none, none, mask=flags(1, 1, 0, 1, 1))
    assert follows.squeeze(-1).tolist() == [True, False, False, True, False]


def test_arguments_are_left_alone():
    terminated, truncated = flags(0, 1, 0), flags(0, 0, 1)
    is_init, mask = flags(1, 0, 1), flags(1, 1, 0)
    next_step_follows(terminated, truncated, is_init=is_init, mask=mask)
    for kept, expected in ((terminated, (0, 1, 0)), (truncated, (0, 0, 1)), (is_init, (1, 0, 1)), (mask, (1, 1, 0))):
        assert torch.equal(kept, flags(*expected))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_numbers_are_refused(dtype):
    """``~`` of the byte 1 is 254, which counts as true."""
    good, bad = torch.ones(3, 1, dtype=torch.bool), torch.ones(3, 1, dtype=dtype)
    for call in (lambda: bootstraps(bad), lambda: is_done(good, bad), lambda: next_step_follows(good, good, mask=bad)):
        with pytest.raises(SpecError, match="torch.bool"):
            call()
