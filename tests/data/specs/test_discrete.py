"""Indices and flags: what they may be, and that one-hot vectors are not mistaken for indices."""

import pytest
import torch

from torchrl.data.specs import Binary, Categorical, MultiCategorical
from torchrl.errors import SpecError


def test_contains_zero_to_n_minus_one():
    spec = Categorical(3, [2])
    assert spec.contains(torch.tensor([0, 2]))
    assert not spec.contains(torch.tensor([0, 3]))
    assert not spec.contains(torch.tensor([-1, 0]))


def test_the_message_names_the_index_and_its_place():
    with pytest.raises(SpecError, match=r"action: expected an index from 0 to 2, got 3 at \[1\]\. .*from 0"):
        Categorical(3, [2]).assert_contains(torch.tensor([0, 3]), "action")
    with pytest.raises(SpecError, match=r"got -1\. "):
        Categorical(3).assert_contains(torch.tensor(-1))


def test_a_one_hot_vector_is_recognised_and_refused():
    one_hot = torch.nn.functional.one_hot(torch.tensor([0, 2]), 3)
    with pytest.raises(SpecError, match="one-hot.*argmax"):
        Categorical(3, [2]).assert_contains(one_hot, "action")


def test_an_index_must_have_the_dtype_of_the_spec():
    with pytest.raises(SpecError, match="expected dtype int64, got dtype float32"):
        Categorical(3, [2]).assert_contains(torch.zeros(2))
    assert Categorical(3, [2], torch.int32).contains(torch.zeros(2, dtype=torch.int32))


def test_rand_draws_every_choice_evenly():
    drawn = Categorical(4).rand([40_000], generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    assert torch.allclose(torch.bincount(drawn) / 40_000, torch.full((4,), 0.25), atol=0.01)


def test_project_moves_to_the_nearest_choice():
    assert Categorical(3, [3]).project(torch.tensor([-5, 1, 5])).tolist() == [0, 1, 2]
    assert Categorical(300, [2]).project(torch.tensor([-5, 100], dtype=torch.int8)).tolist() == [0, 100]
    assert Categorical(1, [2], torch.bool).project(torch.tensor([True, False])).tolist() == [False, False]


def test_flags_are_two_choices_of_dtype_bool():
    spec = Categorical(2, [4, 1], torch.bool)
    assert spec.contains(torch.ones(4, 1, dtype=torch.bool))
    assert not spec.contains(torch.ones(4, 1))
    assert set(spec.rand([20]).flatten().tolist()) == {True, False}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8])
def test_a_dtype_that_cannot_hold_the_indices_is_refused(dtype):
    with pytest.raises(SpecError, match="holds 0 to 299"):
        Categorical(300, dtype=dtype)
    with pytest.raises(SpecError, match="holds 0 to 299"):
        Categorical(300).to(dtype)


def test_n_must_be_positive():
    with pytest.raises(SpecError, match="n >= 1, got 0"):
        Categorical(0)


def test_equality_looks_at_n():
    assert Categorical(3, [2]) == Categorical(3, [2])
    assert Categorical(3, [2]) != Categorical(4, [2])
    assert Categorical(3).to(torch.int32) == Categorical(3, dtype=torch.int32)


def test_repr_can_be_read():
    assert repr(Categorical(3, [2])) == "Categorical(n=3, shape=[2], dtype=int64)"


def test_several_choices_have_numbers_of_their_own():
    spec = MultiCategorical([3, 2], [4, 2])
    assert spec.nvec.tolist() == [[3, 2]] * 4
    assert spec.contains(torch.tensor([[2, 1]] * 4))
    with pytest.raises(SpecError, match=r"action: expected an index from 0 to 1, got 2 at \[3, 1\]"):
        spec.assert_contains(torch.tensor([[2, 1]] * 3 + [[0, 2]]), "action")
    assert not spec.contains(torch.tensor([[0, -1]] * 4))


def test_shape_operations_take_the_numbers_along():
    spec = MultiCategorical([3, 2], [4, 2])
    assert spec[0] == MultiCategorical([3, 2])
    assert spec[:, 1] == MultiCategorical(2, [4])
    assert spec.reshape(-1) == MultiCategorical([3, 2] * 4)
    assert spec.unbind(-1)[0] == MultiCategorical(3, [4])
    assert spec != MultiCategorical([2, 3], [4, 2])


def test_rand_draws_every_choice_of_every_entry_evenly():
    drawn = MultiCategorical([3, 2]).rand([30_000], generator=torch.Generator().manual_seed(0))
    for column, n in zip(drawn.T, [3, 2], strict=True):
        assert torch.allclose(torch.bincount(column) / 30_000, torch.full((n,), 1 / n), atol=0.01)
    flags = MultiCategorical([2, 1], dtype=torch.bool).rand([1000], generator=torch.Generator().manual_seed(0))
    assert flags.double().mean(0).tolist() == [pytest.approx(0.5, abs=0.05), 0.0]


def test_project_moves_each_entry_to_its_nearest_choice():
    assert MultiCategorical([3, 2, 300]).project(torch.tensor([5, 5, 5])).tolist() == [2, 1, 5]
    assert MultiCategorical([3, 2]).project(torch.tensor([-5, 1])).tolist() == [0, 1]
    assert MultiCategorical([3, 300]).project(torch.tensor([9, 100], dtype=torch.int8)).tolist() == [2, 100]
    assert MultiCategorical([2, 1], dtype=torch.bool).project(torch.tensor([True, True])).tolist() == [True, False]


def test_one_hot_groups_are_recognised_and_refused():
    with pytest.raises(SpecError, match="looks one-hot; one index per entry"):
        MultiCategorical([3, 2], [4, 2]).assert_contains(torch.zeros(4, 5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MultiCategorical([3, 0]), r"whole numbers >= 1, got \[3, 0\]"),
        (lambda: MultiCategorical([3.5, 2]), "whole numbers >= 1"),
        (lambda: MultiCategorical([3, 2], [4, 3]), r"broadcasts to \[4, 3\], got nvec of shape \[2\]"),
        (lambda: MultiCategorical([3, 2], [1]), r"broadcasts to \[1\]"),
        (lambda: MultiCategorical([3, 2], dtype=torch.bool), "MultiCategorical: .*holds 0 to 2"),
        (lambda: MultiCategorical([3, 300]).to(torch.uint8), "holds 0 to 299"),
        (lambda: MultiCategorical([3, 2], dtype=torch.float32), "holds 0 to 2"),
        (lambda: Binary(dtype=torch.complex64), "bool, an integer or a floating dtype"),
        (lambda: Binary().to(torch.complex64), "bool, an integer or a floating dtype"),
    ],
)
def test_what_makes_no_sense_fails_at_construction(build, message):
    with pytest.raises(SpecError, match=message):
        build()


def test_the_numbers_do_not_alias_what_they_were_made_from():
    nvec = torch.tensor([3, 2])
    spec = MultiCategorical(nvec)
    nvec += 5
    assert spec == MultiCategorical([3, 2])


def test_binary_entries_are_zero_or_one():
    spec = Binary([3])
    assert spec.dtype == torch.int8
    assert spec.contains(torch.tensor([0, 1, 1], dtype=torch.int8))
    with pytest.raises(SpecError, match=r"buttons: expected 0 or 1, got 2 at \[1\]"):
        spec.assert_contains(torch.tensor([0, 2, 1], dtype=torch.int8), "buttons")
    with pytest.raises(SpecError, match=r"got 0.5 at \[0\]"):
        Binary([1], torch.float32).assert_contains(torch.tensor([0.5]))
    with pytest.raises(SpecError, match=r"got NaN at \[0\]"):
        Binary([1], torch.float32).assert_contains(torch.tensor([float("nan")]))


def test_binary_projects_to_the_nearer_one_and_keeps_nan():
    assert Binary([4], torch.int64).project(torch.tensor([-3, 0, 1, 9])).tolist() == [0, 0, 1, 1]
    assert Binary([4], torch.float32).project(torch.tensor([-1.0, 0.5, 0.51, 7.0])).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert Binary([1], torch.float32).project(torch.tensor([float("nan")])).isnan().all()
    assert Binary([2], torch.bool).project(torch.tensor([True, False])).tolist() == [True, False]


def test_binary_draws_both_evenly_and_changes_dtype_freely():
    drawn = Binary([2]).rand([10_000], generator=torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.float().mean(0), torch.full((2,), 0.5), atol=0.02)
    assert Binary([2]).to(torch.bool).to(torch.float32) == Binary([2], torch.float32)


def test_repr_of_several_choices_shows_a_row():
    assert repr(MultiCategorical([3, 2], [4, 2])) == "MultiCategorical(nvec=[3, 2], shape=[4, 2], dtype=int64)"
    assert repr(MultiCategorical([[3], [2]])) == "MultiCategorical(nvec=[...], shape=[2, 1], dtype=int64)"
    assert repr(MultiCategorical(3)) == "MultiCategorical(nvec=3, shape=[], dtype=int64)"
    assert repr(Binary([2])) == "Binary(shape=[2], dtype=int8)"
