"""Memory for items: read in any shape, by numpy or by torch, they are what was written."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from torchrl.data.replay import KeepBest, ReplayBuffer, TensorStorage
from torchrl.data.replay.records import Records, entries_of, values_of


def items(num, *, more=()):
    """Entries of every size that numpy knows; ``more`` of those that it does not, which torch reads."""
    base = torch.arange(num)
    others = {"brain": base.bfloat16(), "nothing": torch.zeros(num, 0)}
    return TensorDict(
        {
            "double": base.double().view(num, 1, 1).repeat(1, 2, 5) / 3,
            "float": base.float().unsqueeze(-1).repeat(1, 17) / 7,
            "half": base.half(),
            "flags": base.view(num, 1).remainder(torch.tensor([2, 3, 4])).bool(),
            "a": {"b": base.int()},
            "a/b": -base,
            "image": base.to(torch.uint8).view(num, 1, 1).repeat(1, 40, 40),
            **{name: others[name] for name in more},
        },
        [num],
    )


def written(batch):
    values = values_of(batch)
    records = Records(len(batch), entries_of(values, 1), lambda name, shape, dtype: torch.zeros(shape, dtype=dtype))
    records.write(np.arange(len(batch)), values)
    return records


@pytest.mark.parametrize("more", [(), ("brain",), ("nothing",), ("brain", "nothing")])
@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3)])
def test_what_is_read_is_what_was_written(more, shape):
    batch = items(9, more=more)
    places = np.random.default_rng(0).integers(0, 9, shape)
    read, due = written(batch).read(places), batch[torch.as_tensor(places)]
    assert read.batch_size == shape and set(read.keys(True, True)) == set(batch.keys(True, True))
    for key, value in read.items(True, True):
        assert torch.equal(value, due[key]) and value.dtype is due[key].dtype and value.is_contiguous(), key


def test_reads_do_not_share_memory():
    records = written(items(4))
    one, other = records.read(np.arange(2)), records.read(np.arange(2))
    for value in one.values(True, True):
        value.zero_()
    assert other["float"][1, 0] == records.read(np.array([1]))["float"][0, 0] == torch.tensor(1.0) / 7


def test_ids_are_those_of_the_places_where_a_writer_jumps():
    buffer = ReplayBuffer(TensorStorage(2), writer=KeepBest("score"), seed=0)
    for score in (1.0, 2.0, 5.0, 4.0, 6.0):  # ids 0 to 4, of which 2 and 4 stay
        buffer.add(TensorDict({"score": torch.tensor(score)}))
    sample = buffer.sample(20)
    ids = {5.0: 2, 6.0: 4}
    assert sample["replay", "id"].tolist() == [ids[score] for score in sample["score"].tolist()]
