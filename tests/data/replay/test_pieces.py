"""Saves in pieces: what was overwritten after a save is in it, what an earlier save holds is linked, not written."""

import numpy as np
import pytest
import torch

from cases.replay_rows import num_torn, rows
from torchrl.data.replay import KeepBest, MemmapStorage, PrioritizedSampler, ReplayBuffer, TensorStorage
from torchrl.data.replay.saving import MAX_PIECES
from torchrl.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("leaves_nothing")


def made(storage, seed=0):
    return ReplayBuffer(storage, sampler=PrioritizedSampler(), batch_size=16, seed=seed)


def pieces_of(folder):
    """Return first id, end and number of links of each piece in a folder, in order."""
    found = [(*map(int, path.name.split("-")[1:3]), path.stat().st_nlink) for path in folder.glob("items-*")]
    return sorted(found)


def go_on(buffer, start):
    """Draw, set priorities and add by turns; return all that was drawn."""
    drawn = []
    for at in range(3):
        drawn.append(buffer.sample())
        buffer.update_priority(drawn[-1], drawn[-1]["key"].double() % 7 + at)
        buffer.extend(rows(0, start + 5 * at, 5, in_time=True))
    return torch.stack(drawn)


@pytest.mark.parametrize("kind", ["list", "tensor", "memmap"])
def test_a_buffer_of_any_save_goes_on_as_it_did_then(kind, storage_of, tmp_path):
    buffer, expected, written, last = made(storage_of(kind, 50)), {}, 0, None
    for number, num in enumerate([20, 7, 40, 1, 50, 13, 0, 30]):  # the ring of 50 is overwritten more than twice
        buffer.extend(rows(0, written, num, in_time=True))
        written += num
        folder = tmp_path / f"save-{number}"
        buffer.save_in_pieces(folder, since=last)
        drawn = go_on(buffer, written)
        written += 15
        expected[folder], last = (written - 15, drawn), folder
    for folder, (written_then, drawn) in expected.items():
        other = made(storage_of(kind, 50), seed=1)
        other.load(folder)
        assert other[:]["key"].sort().values.tolist() == list(range(max(written_then - 50, 0), written_then))
        assert not num_torn(other[:])
        again = go_on(other, written_then)
        assert all(torch.equal(again[key], drawn[key]) for key in drawn.keys(True, True))


def test_only_new_items_are_written_and_the_earlier_folder_may_go(tmp_path):
    buffer = made(MemmapStorage(100, tmp_path / "files"))
    buffer.extend(rows(0, 0, 60, in_time=True))
    buffer.save_in_pieces(tmp_path / "a")
    assert pieces_of(tmp_path / "a") == [(0, 60, 1)]
    buffer.extend(rows(0, 60, 70, in_time=True))  # 60..99, then round the ring: 30..99 and 100..129 are left
    buffer.save_in_pieces(tmp_path / "b", since=tmp_path / "a")
    assert pieces_of(tmp_path / "b") == [(0, 60, 2), (60, 100, 1), (100, 130, 1)]
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    buffer.extend(rows(0, 130, 40, in_time=True))  # 70..169 are left: the first piece is needed no more
    buffer.save_in_pieces(tmp_path / "c", since=tmp_path / "b")
    assert pieces_of(tmp_path / "c") == [(60, 100, 2), (100, 130, 2), (130, 170, 1)]
    buffer.empty()
    buffer.save_in_pieces(tmp_path / "d", since=tmp_path / "c")
    assert pieces_of(tmp_path / "d") == []
    buffer.close()
    other = made(TensorStorage(100))
    other.load(tmp_path / "b")  # of another kind of storage: the layout is the same
    assert other[:]["key"].sort().values.tolist() == list(range(30, 130))


def test_pieces_of_another_history_are_not_linked(tmp_path):
    buffer = made(TensorStorage(100))
    buffer.extend(rows(0, 0, 20, in_time=True))
    buffer.save_in_pieces(tmp_path / "a")
    buffer.extend(rows(0, 20, 20, in_time=True))
    buffer.save_in_pieces(tmp_path / "b", since=tmp_path / "a")
    buffer.load(tmp_path / "a")  # ids from 20 on are given to other items now
    buffer.extend(rows(3, 0, 20, in_time=True))
    buffer.save_in_pieces(tmp_path / "c", since=tmp_path / "b")
    assert pieces_of(tmp_path / "c") == [(0, 40, 1)]
    other = made(TensorStorage(100))
    other.load(tmp_path / "c")
    assert torch.equal(other[:]["key"], buffer[:]["key"])


def test_many_small_pieces_become_one_again(tmp_path):
    buffer, last = made(TensorStorage(500)), None
    for number in range(MAX_PIECES + 2):
        buffer.extend(rows(0, 3 * number, 3, in_time=True))
        buffer.save_in_pieces(tmp_path / str(number), since=last)
        last = tmp_path / str(number)
    assert pieces_of(last) == [(0, 195, 2), (195, 198, 1)]
    other = made(TensorStorage(500))
    other.load(last)
    assert other[:]["key"].tolist() == list(range(198)) and not num_torn(other[:])


def test_where_places_are_not_used_in_turn_all_is_written(tmp_path):
    buffer = ReplayBuffer(TensorStorage(10), writer=KeepBest("key"), seed=0)
    for number in range(3):
        buffer.extend(rows(0, 8 * number, 8))
        buffer.save_in_pieces(tmp_path / str(number), since=tmp_path / str(number - 1))
    assert [path.name for path in (tmp_path / "2").iterdir()] == ["replay.pt"]
    other = ReplayBuffer(TensorStorage(10), writer=KeepBest("key"), seed=0)
    other.load(tmp_path / "2")
    assert np.array_equal(other[:]["key"].sort().values, np.arange(14, 24))


def test_a_lost_piece_and_a_full_disk_are_refused(small_disk, tmp_path):
    buffer = ReplayBuffer(TensorStorage(50_000), seed=0)
    buffer.extend(rows(0, 0, 30, in_time=True))
    buffer.save_in_pieces(tmp_path / "a")
    next((tmp_path / "a").glob("items-*")).unlink()
    with pytest.raises(CheckpointError, match="^ReplayBuffer.load: expected a whole file"):
        ReplayBuffer(TensorStorage(50_000)).load(tmp_path / "a")
    buffer.extend(rows(0, 30, 20_000, in_time=True))
    with pytest.raises(CheckpointError, match="^ReplayBuffer.save_in_pieces: expected a folder with room"):
        buffer.save_in_pieces(small_disk / "b")
