"""Batches of trajectories of different lengths: values by hand, round trips, and the law of padding."""

import pytest
import torch
from tensordict import TensorDict

from cases.devices import needs_cuda
from cases.padding import MASK, poisoned
from cases.same import assert_same
from torchrl.data import (
    alive_at,
    at_step,
    concatenate,
    last_step,
    length_mask,
    lengths_of,
    pack,
    pad,
    shorten,
    split_trajectories,
    stitch,
    time_slice,
    unpack,
    unpad,
)
from torchrl.errors import KeyMissing, SpecError

TRAJ_IDS = ("collector", "traj_ids")
LENGTHS = [2, 4, 1]


def make_padded(lengths=LENGTHS, num_steps=5):
    """Row n counts 10 n, 10 n + 1 … as floats, integers, bytes and under ``next``; padding is zero."""
    mask = torch.arange(num_steps) < torch.tensor(lengths)[:, None]
    count = torch.arange(len(lengths))[:, None] * 10 + torch.arange(num_steps)
    count = torch.where(mask, count, 0)
    source = {
        "observation": count[..., None].expand(-1, -1, 2).float().clone(),
        "action": count,
        "pixels": count[..., None].byte(),
        "next": {"done": (count % 2 == 1)[..., None]},
        "collector": {"mask": mask},
    }
    return TensorDict(source, batch_size=mask.shape)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_lengths_are_the_leading_true_entries():
    batch = make_padded()
    assert lengths_of(batch).tolist() == [2, 4, 1] and lengths_of(batch).dtype is torch.int64
    assert lengths_of(batch.exclude(MASK)).tolist() == [5, 5, 5]
    assert lengths_of(make_padded([0, 3])).tolist() == [0, 3]
    assert lengths_of(batch[:0]).tolist() == []


def test_the_mask_of_lengths():
    mask = length_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]] and mask.dtype is torch.bool
    with pytest.raises(SpecError, match="lengths from 0 to 2, got 0 to 3"):
        length_mask(torch.tensor([0, 3]), 2)
    with pytest.raises(SpecError, match="int64 lengths"):
        length_mask(torch.tensor([0.0]), 2)


def test_shorten_cuts_to_the_longest_row():
    batch = shorten(make_padded())
    assert batch.batch_size == (3, 4) and batch["action"].tolist() == [[0, 1, 0, 0], [10, 11, 12, 13], [20, 0, 0, 0]]
    assert shorten(make_padded([0, 0])).batch_size == (2, 0)
    assert shorten(make_padded().exclude(MASK)).batch_size == (3, 5)


def test_the_last_step_is_the_last_valid_one():
    last = last_step(make_padded())
    assert last.batch_size == (3,) and last["action"].tolist() == [1, 13, 20] and last[MASK].all()
    assert last_step(make_padded().exclude(MASK))["action"].tolist() == [0, 0, 0]
    with pytest.raises(SpecError, match=r"at least one valid step, got none in the rows \[1\]"):
        last_step(make_padded([2, 0, 3]))


def test_one_step_per_row():
    steps = at_step(make_padded(), torch.tensor([1, 0, 2]))
    assert steps["action"].tolist() == [1, 10, 0] and steps[MASK].tolist() == [True, True, False]
    for index in (torch.tensor([0, 0]), torch.tensor([0.0, 0.0, 0.0])):
        with pytest.raises(SpecError, match=r"an int64 index of shape \[3\]"):
            at_step(make_padded(), index)
    for index in ([0, 0, 5], [-1, 0, 0]):
        with pytest.raises(SpecError, match="steps from 0 to 4"):
            at_step(make_padded(), torch.tensor(index))


def test_rows_alive_and_which_they_are():
    steps, rows = alive_at(make_padded(), 1)
    assert steps["action"].tolist() == [1, 11] and rows.tolist() == [0, 1]
    steps, rows = alive_at(make_padded(), 4)
    assert steps.batch_size == (0,) and rows.tolist() == []
    for step in (-1, 5):
        with pytest.raises(SpecError, match="a step from 0 to 4"):
            alive_at(make_padded(), step)


def test_a_time_slice_has_its_own_lengths():
    part = time_slice(make_padded(), 1, 3)
    assert lengths_of(part).tolist() == [1, 2, 0] and part["action"].tolist() == [[1, 0], [11, 12], [0, 0]]
    assert lengths_of(time_slice(make_padded(), 3, 9)).tolist() == [0, 1, 0]
    for start, stop in ((-2, 3), (3, 2)):
        with pytest.raises(SpecError, match="0 <= start <= stop"):
            time_slice(make_padded(), start, stop)


def test_packed_trajectories_lie_behind_one_another():
    flat, lengths = pack(make_padded())
    assert flat["action"].tolist() == [0, 1, 10, 11, 12, 13, 20] and lengths.tolist() == LENGTHS
    assert "collector" not in flat.keys()
    with pytest.raises(SpecError, match="6 steps"):
        unpack(flat, torch.tensor([2, 4]))
    with pytest.raises(SpecError, match="at least 0"):
        unpack(flat, torch.tensor([8, -1]))


def test_unpadded_trajectories_have_their_own_lengths():
    assert [row["action"].tolist() for row in unpad(make_padded([2, 0, 1]))] == [[0, 1], [], [20]]


def test_pad_keeps_dtypes_and_fills_with_zeros():
    rows = [TensorDict({"x": torch.full((n, 2), n, dtype=dtype)}, [n]) for n in (3, 1) for dtype in [torch.int16]]
    batch = pad(rows)
    assert batch["x"].dtype is torch.int16
    assert batch["x"].tolist() == [[[3, 3]] * 3, [[1, 1], [0, 0], [0, 0]]] and lengths_of(batch).tolist() == [3, 1]


def test_pad_refuses_what_does_not_belong_together():
    one = TensorDict({"x": torch.zeros(2, 3)}, [2])
    others = {
        r"'x' is \[3\] torch.int64 .* instead of": TensorDict({"x": torch.zeros(2, 3, dtype=torch.int64)}, [2]),
        "'y'": TensorDict({"x": torch.zeros(2, 3), "y": torch.zeros(2)}, [2]),
        r"\[4\]": TensorDict({"x": torch.zeros(2, 4)}, [2]),
        r"got \[2, 3\]": TensorDict({"x": torch.zeros(2, 3)}, [2, 3]),
        "with a mask": TensorDict({"x": torch.zeros(2, 3), "collector": {"mask": torch.tensor([True, False])}}, [2]),
    }
    for message, other in others.items():
        with pytest.raises(SpecError, match=message):
            pad([one, other])
    with pytest.raises(SpecError, match="at least one piece, got none"):
        pad([])


def test_concatenate_pads_to_the_longest_row():
    batch = concatenate([make_padded([2, 1], 3), make_padded([4], 6), make_padded([1], 2).exclude(MASK)])
    assert batch.batch_size == (4, 4) and lengths_of(batch).tolist() == [2, 1, 4, 2]
    assert batch["action"].tolist() == [[0, 1, 0, 0], [10, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 0]]
    assert batch["pixels"].dtype is torch.uint8 and batch["next", "done"].dtype is torch.bool


def make_collected():
    """Two slots, six steps: slot 0 plays 2 + 3 + 1 steps, slot 1 goes on with one that began before, then 2."""
    done = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 1]]).bool()
    is_init = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0]]).bool()
    source = {
        "step": torch.tensor([[0, 1, 0, 1, 2, 0], [7, 8, 9, 10, 0, 1]]),
        "is_init": is_init[..., None],
        "next": {"done": done[..., None]},
        "collector": {"traj_ids": torch.tensor([[1, 1, 2, 2, 2, 4], [0, 0, 0, 0, 3, 3]])},
    }
    return TensorDict(source, [2, 6])


KEYS = ["all", TRAJ_IDS, "is_init", ("next", "done")]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_trajectories_are_found_by_each_of_the_keys(key):
    batch = make_collected() if key == "all" else make_collected().select("step", key)
    rows = split_trajectories(batch)
    assert rows["step"].tolist() == [[0, 1, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0], [7, 8, 9, 10], [0, 1, 0, 0]]
    assert lengths_of(rows).tolist() == [2, 3, 1, 4, 2]


def test_splitting_without_a_key_is_refused():
    with pytest.raises(KeyMissing, match=r"split_trajectories: expected one of the keys"):
        split_trajectories(make_collected().select("step"))


def test_steps_that_are_masked_out_are_left_out_and_cut():
    batch = make_collected()
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 1] = mask[0, 3] = mask[1, 0] = False
    rows = split_trajectories(batch.set(MASK, mask))
    assert [row["step"].tolist() for row in unpad(rows)] == [[0], [0], [2], [0], [8, 9, 10], [0, 1]]
    assert split_trajectories(batch.set(MASK, mask & False)).batch_size == (0, 0)


def test_splitting_takes_any_number_of_rows():
    batch = make_collected()
    assert_same(split_trajectories(batch.reshape(2, 1, 6)), split_trajectories(batch))
    assert_same(split_trajectories(batch[0]), split_trajectories(batch[:1]))


def test_fragments_are_stitched_to_whole_trajectories():
    batch = make_collected()
    for cuts in ([6], [1, 5], [2, 4], [1, 1, 1, 1, 1, 1]):
        rows, is_complete = stitch(batch.split(cuts, 1))
        assert_same(rows, split_trajectories(batch))
        assert is_complete.tolist() == [True, True, False, False, True]


def test_fragments_with_and_without_a_mask_are_stitched():
    first, second = (part.clone() for part in make_collected().split([2, 4], 1))
    second[MASK] = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    rows, is_complete = stitch([first, second])
    assert [row["step"].tolist() for row in unpad(rows)] == [[0, 1], [0, 1, 2], [7, 8, 9, 10]]
    assert is_complete.tolist() == [True, True, False]


def test_fragments_of_other_rows_are_refused():
    with pytest.raises(SpecError, match=r"the same rows, got \[2, 6\], \[1, 6\]"):
        stitch([make_collected(), make_collected()[:1]])
    with pytest.raises(SpecError, match="at least one piece"):
        stitch([])


# ---- laws ------------------------------------------------------------------------------------------------------------

READERS = {
    "lengths_of": lambda batch: TensorDict({"lengths": lengths_of(batch)}),
    "last_step": last_step,
    "alive_at": lambda batch: alive_at(batch, 1)[0],
    "pack": lambda batch: pack(batch)[0],
    "unpad": lambda batch: pad(unpad(batch)),
    "concatenate": lambda batch: concatenate([batch, batch]),
    "split_trajectories": lambda batch: split_trajectories(batch.set(TRAJ_IDS, batch["action"] // 10)),
    "stitch": lambda batch: stitch([batch.set("is_init", batch["next", "done"])])[0],
    "shorten": lambda batch: pack(shorten(batch))[0],
    "time_slice": lambda batch: pack(time_slice(batch, 1, 3))[0],
}


@pytest.mark.parametrize("function", READERS.values(), ids=READERS)
def test_what_lies_in_padding_reaches_nothing(function):
    batch = make_padded()
    assert_same(function(poisoned(batch, batch[MASK])), function(batch))


@pytest.mark.parametrize("function", READERS.values(), ids=READERS)
def test_a_mask_that_is_true_everywhere_changes_nothing(function):
    batch = make_padded([5, 5])
    with_mask, without = (function(b).exclude(MASK, "collector") for b in (batch, batch.exclude(MASK, "collector")))
    assert_same(with_mask, without)


@pytest.mark.parametrize(
    "function", [lengths_of, shorten, last_step, pack, unpad, lambda b: alive_at(b, 0), lambda b: concatenate([b])]
)
def test_a_mask_with_a_hole_is_refused(function):
    batch = make_padded()
    batch[MASK][1, 2] = False
    with pytest.raises(SpecError, match=r"valid steps behind others in the rows \[1\]"):
        function(batch)


@pytest.mark.parametrize("lengths", [[2, 4, 1], [3], [0, 2], [5, 5]])
def test_round_trips(lengths):
    batch = shorten(make_padded(lengths))
    assert_same(unpack(*pack(batch)), batch)
    assert_same(pad(unpad(batch)), batch)
    assert_same(concatenate([batch[:1], batch[1:]]) if len(lengths) > 1 else concatenate([batch]), batch)
    again = pad(unpad(poisoned(batch, batch[MASK])))
    assert_same(again, batch)


def test_splitting_undoes_joining_in_time():
    batch = pad(unpad(split_trajectories(make_collected())))
    flat, _ = pack(batch)
    assert_same(split_trajectories(flat), batch)


def test_the_argument_stays_as_it_is():
    for function in (pack, unpad, shorten, lambda b: concatenate([b, b]), lambda b: split_trajectories(b)):
        batch = make_padded().set(TRAJ_IDS, torch.arange(15).reshape(3, 5))
        copy = batch.clone()
        function(batch)
        assert_same(batch, copy)


def test_gradients_pass():
    flat = torch.ones(7, requires_grad=True)
    batch = unpack(TensorDict({"x": flat * 2}, [7]), torch.tensor(LENGTHS))
    pack(batch)[0]["x"].sum().backward()
    assert flat.grad.tolist() == [2.0] * 7


def test_other_shapes_are_refused():
    for function in (lengths_of, pack, shorten):
        with pytest.raises(SpecError, match=r"a batch \[N, T\], got \[3\]"):
            function(make_padded()[:, 0])


@needs_cuda
def test_everything_stays_on_the_device():
    batch = make_padded().to("cuda")
    for function in READERS.values():
        assert all(leaf.device.type == "cuda" for leaf in function(batch.clone()).values(True, True))
