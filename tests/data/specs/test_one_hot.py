"""One-hot vectors: a single 1 per group, and what becomes of them when the last dimension is torn apart."""

import pytest
import torch

from torchrl.data.specs import Binary, Categorical, MultiOneHot, OneHot
from torchrl.errors import SpecError


def test_contains_vectors_with_a_single_one():
    spec = OneHot(3, [2, 3])
    assert spec.n == 3
    assert spec.contains(torch.tensor([[0, 1, 0], [0, 0, 1]]))
    assert not spec.contains(torch.tensor([[0, 1, 0], [0, 0, 0]]))
    assert not spec.contains(torch.tensor([[0, 1, 0], [1, 0, 1]]))
    assert not spec.contains(torch.tensor([[0, 1, 0], [0, 2, 0]]))


def test_contains_a_single_one_per_group():
    spec = MultiOneHot([3, 2])
    assert spec.shape == (5,)
    assert spec.nvec == (3, 2)
    assert spec.contains(torch.tensor([0, 0, 1, 1, 0]))
    assert not spec.contains(torch.tensor([0, 1, 1, 0, 0]))  # two ones, but not one per group


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0, 1, 0], [1, 0, 1]], r"action: expected a single 1 among 3 choices, got 2 ones in row \[1\]\. project"),
        ([[0, 0, 0], [1, 0, 1]], r"got 0 ones in row \[0\]"),
        ([[0, 1, 0], [0, -1, 2]], r"action: expected 0 or 1, got -1 at \[1, 1\]"),
    ],
)
def test_the_message_names_the_row(value, message):
    with pytest.raises(SpecError, match=message):
        OneHot(3, [2, 3]).assert_contains(torch.tensor(value), "action")


def test_the_message_names_the_group():
    with pytest.raises(SpecError, match=r"a single 1 among 2 choices, got 2 ones, group 1"):
        MultiOneHot([3, 2]).assert_contains(torch.tensor([0, 0, 1, 1, 1]))
    with pytest.raises(SpecError, match=r"got 0 ones in row \[1\], group 0"):
        MultiOneHot([3, 2], [2, 5]).assert_contains(torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]))


def test_an_index_is_recognised_and_refused():
    with pytest.raises(
        SpecError, match=r"shape \[8, 3\], got shape \[8\]. This looks like an index; .* one_hot\(index, 3"
    ):
        OneHot(3, [8, 3]).assert_contains(torch.zeros(8, dtype=torch.int64), "action")
    with pytest.raises(SpecError, match="one index per group"):
        MultiOneHot([3, 2], [8, 5]).assert_contains(torch.zeros(8, 2, dtype=torch.int64), "action")
    with pytest.raises(SpecError, match=r"batch dimensions \[8\] are missing"):
        OneHot(3, [8, 3]).assert_contains(torch.tensor([0, 0, 1]))


def test_nan_is_named():
    with pytest.raises(SpecError, match=r"got NaN at \[2\]"):
        OneHot(3, dtype=torch.float32).assert_contains(torch.tensor([0.0, 1.0, float("nan")]))


def test_project_keeps_the_first_of_the_largest_of_each_group():
    assert OneHot(3, [2, 3]).project(torch.tensor([[5, 7, 7], [-3, -2, -9]])).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert MultiOneHot([2, 3]).project(torch.tensor([0, 0, 1, 2, 3])).tolist() == [1, 0, 0, 0, 1]
    assert OneHot(3, dtype=torch.bool).project(torch.tensor([False, True, True])).tolist() == [False, True, False]


def test_project_is_the_nearest_one_hot_vector():
    spec = MultiOneHot([3, 2], dtype=torch.float64)
    scores = torch.randn(500, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    every = [[*a, *b] for a in torch.eye(3).tolist() for b in torch.eye(2).tolist()]
    nearest = torch.cdist(scores, torch.tensor(every, dtype=torch.float64)).argmin(-1)
    assert torch.equal(spec.expand(500, 5).project(scores), torch.tensor(every, dtype=torch.float64)[nearest])


def test_project_keeps_nan_and_refuses_scores_for_integers():
    projected = OneHot(3, dtype=torch.float32).project(torch.tensor([0.0, float("nan"), 2.0]))
    assert projected.isnan().tolist() == [False, True, False]
    with pytest.raises(SpecError, match="expected dtype int64, got float32"):
        OneHot(3).project(torch.zeros(3))


def test_rand_draws_every_choice_evenly():
    drawn = MultiOneHot([3, 2]).rand([30_000], generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    assert torch.allclose(drawn.double().mean(0), torch.tensor([1 / 3] * 3 + [1 / 2] * 2).double(), atol=0.01)


def test_zero_is_the_first_choice():
    assert OneHot(3).zero([2]).tolist() == [[1, 0, 0]] * 2
    assert MultiOneHot([2, 3], dtype=torch.bool).zero().tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (lambda spec: spec.expand(2, 8, 5), [2, 8, 5]),
        (lambda spec: spec.reshape(2, 4, 5), [2, 4, 5]),
        (lambda spec: spec.reshape(-1, 5), [8, 5]),
        (lambda spec: spec.unsqueeze(0), [1, 8, 5]),
        (lambda spec: spec.unsqueeze(-2), [8, 1, 5]),
        (lambda spec: spec.squeeze(), [8, 5]),
        (lambda spec: spec.unbind(0)[3], [5]),
        (lambda spec: spec[2:4], [2, 5]),
        (lambda spec: spec[torch.tensor([3, 3, 0])], [3, 5]),
        (lambda spec: spec[torch.zeros(8, dtype=torch.bool)], [0, 5]),
        (lambda spec: spec[:, None], [8, 1, 5]),
        (lambda spec: spec.reshape(2, 4, 5).permute(1, 0, 2), [4, 2, 5]),
        (lambda spec: spec[..., :5], [8, 5]),
        (lambda spec: spec.to("meta").unsqueeze(0).to("cpu"), [1, 8, 5]),
    ],
)
def test_an_operation_that_keeps_the_last_dimension_keeps_the_kind(op, shape):
    assert op(OneHot(5, [8, 5], torch.float32)) == OneHot(5, shape, torch.float32)
    assert op(MultiOneHot([3, 2], [8, 5])) == MultiOneHot([3, 2], shape)


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (lambda spec: spec.reshape(-1), [40]),
        (lambda spec: spec.reshape(5, 8), [5, 8]),
        (lambda spec: spec.reshape(8, 5, 1), [8, 5, 1]),
        (lambda spec: spec.unsqueeze(-1), [8, 5, 1]),
        (lambda spec: spec.unbind(-1)[0], [8]),
        (lambda spec: spec[:, :3], [8, 3]),
        (lambda spec: spec[0, 1], []),
        (lambda spec: spec[..., torch.tensor([0, 0, 1, 2, 3])], [8, 5]),
        (lambda spec: spec[:5, 0], [5]),
        (lambda spec: spec.permute(1, 0), [5, 8]),
        (lambda spec: spec[torch.arange(5), torch.arange(5)], [5]),
    ],
)
def test_an_operation_that_tears_the_last_dimension_leaves_zeros_and_ones(op, shape):
    assert op(OneHot(5, [8, 5], torch.float32)) == Binary(shape, torch.float32)
    assert op(MultiOneHot([3, 2], [8, 5], torch.bool)) == Binary(shape, torch.bool)


def test_a_single_choice_is_not_taken_for_many():
    assert OneHot(1, [4, 1]).squeeze(-1) == Binary([4], torch.int64)
    assert OneHot(1).expand(3) == Binary([3], torch.int64)
    assert OneHot(1, [4, 1]).unsqueeze(-1) == OneHot(1, [4, 1, 1])


def test_equality_looks_at_the_groups_and_the_kind():
    assert MultiOneHot([3, 2]) != MultiOneHot([2, 3])
    assert OneHot(5) != MultiOneHot([3, 2])
    assert OneHot(5) != MultiOneHot([5])
    assert OneHot(5) != Binary([5], torch.int64)
    assert OneHot(3).to(torch.bool) == OneHot(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OneHot(0), "OneHot: expected numbers of choices >= 1"),
        (lambda: MultiOneHot([]), "MultiOneHot: expected numbers of choices >= 1"),
        (lambda: MultiOneHot([3, 0]), r"got \[3, 0\]"),
        (lambda: OneHot(3, [8]), r"ends with 3, got \[8\]\. .*\[\*B, 3\]"),
        (lambda: OneHot(3, []), "ends with 3"),
        (lambda: MultiOneHot([3, 2], [8, 2]), "ends with 5"),
        (lambda: OneHot(3, dtype=torch.complex64), "bool, an integer or a floating dtype, got complex64"),
        (lambda: OneHot(3).to(torch.complex64), "OneHot.to"),
    ],
)
def test_what_makes_no_sense_fails_at_construction(build, message):
    with pytest.raises(SpecError, match=message):
        build()


def test_repr_can_be_read():
    assert repr(OneHot(3, [8, 3])) == "OneHot(n=3, shape=[8, 3], dtype=int64)"
    assert repr(MultiOneHot([3, 2], dtype=torch.bool)) == "MultiOneHot(nvec=[3, 2], shape=[5], dtype=bool)"


def test_both_ways_of_writing_a_choice_refuse_the_other():
    index, vector = torch.tensor([1, 2]), torch.tensor([[0, 1, 0], [0, 0, 1]])
    assert Categorical(3, [2]).contains(index) and not Categorical(3, [2]).contains(vector)
    assert OneHot(3, [2, 3]).contains(vector) and not OneHot(3, [2, 3]).contains(index)
