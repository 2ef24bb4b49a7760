"""Indices: what they may be, and that one-hot vectors are not mistaken for them."""

import pytest
import torch

from torchrl.data.specs import Categorical
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
