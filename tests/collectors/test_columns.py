"""Entries of many places: what was written where, nested entries, another layout."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.collectors.columns import Columns
from torchrl.errors import SpecError


def entries(*numbers):
    numbers = torch.tensor(numbers)
    return TensorDict({"x": numbers.float().unsqueeze(-1), "next": {"done": numbers > 2}}, numbers.shape)


def test_places_hold_what_was_written_last_and_a_copy_is_read():
    columns = Columns("test", entries(0, 0), 4)
    columns.write_(entries(1, 2), torch.tensor([3, 0]))
    columns.write_(entries(5), torch.tensor([0]))
    read = columns.read(torch.tensor([[3, 0], [1, 3]]))
    assert read["x"].squeeze(-1).tolist() == [[1, 5], [0, 1]] and read.batch_size == (2, 2)
    assert read["next", "done"].tolist() == [[False, True], [False, False]] and read["next"].batch_size == (2, 2)
    read["x"].fill_(9)
    assert columns.read(torch.tensor([0]))["x"].item() == 5


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda one: one.set("y", one["x"]), "'y' is new"),
        (lambda one: one.set("x", one["x"].double()), "'x' is"),
        (lambda one: one.exclude("x"), "'x' is missing"),
    ],
)
def test_another_layout_is_refused(edit, message):
    columns = Columns("test", entries(0, 0), 4)
    with pytest.raises(SpecError, match=message):
        columns.write_(edit(entries(1, 2)), torch.tensor([0, 1]))
