"""Bounded and unbounded numbers: values, bounds, casts, messages."""

import numpy as np
import pytest
import torch

from torchrl.data.specs import Bounded, Unbounded
from torchrl.errors import SpecError

INF = float("inf")


def test_shape_comes_from_the_bounds_unless_given():
    assert Bounded(0.0, 1.0).shape == ()
    assert Bounded([0.0, 0.0], 1.0).shape == (2,)
    assert Bounded(torch.zeros(3, 1), torch.ones(2)).shape == (3, 2)
    assert Bounded([-1.0, -2.0], [1.0, 2.0], [8, 2]).shape == (8, 2)


def test_contains_its_bounds_and_nothing_beyond():
    spec = Bounded([-1.0, -2.0], [1.0, INF])
    assert spec.contains(torch.tensor([-1.0, -2.0]))
    assert spec.contains(torch.tensor([1.0, INF]))
    assert not spec.contains(torch.tensor([1.0001, 0.0]))
    assert not spec.contains(torch.tensor([0.0, -2.0001]))


@pytest.mark.parametrize("spec", [Bounded(-INF, INF, [3]), Unbounded([3])])
def test_nan_is_in_no_spec(spec):
    value = torch.tensor([0.0, float("nan"), 1.0])
    with pytest.raises(SpecError, match=r"observation: .*got NaN at \[1\]"):
        spec.assert_contains(value, "observation")
    assert spec.contains(torch.tensor([0.0, INF, -INF]))
    assert spec.project(value).isnan().tolist() == [False, True, False]


def test_the_message_names_bounds_value_and_place():
    spec = Bounded([-1.0, -2.0], [1.0, 2.0], [3, 2])
    value = torch.zeros(3, 2)
    value[2, 1] = 7.5
    with pytest.raises(SpecError) as caught:
        spec.assert_contains(value, "action")
    assert str(caught.value) == (
        "action: expected values from -2.0 to 2.0, got 7.5 at [2, 1]. Use project() to clip on purpose."
    )


def test_project_clips_each_entry_to_its_own_bounds():
    spec = Bounded([-1.0, -2.0], [1.0, 2.0])
    given = torch.tensor([-3.0, 3.0])
    assert spec.project(given).tolist() == [-1.0, 2.0]
    assert given.tolist() == [-3.0, 3.0]


def test_project_into_narrow_integers_does_not_wrap_around():
    assert Bounded(0, 255, [2], torch.uint8).project(torch.tensor([-3, 300])).tolist() == [0, 255]
    assert Unbounded([2], torch.uint8).project(torch.tensor([-3, 300])).tolist() == [0, 255]
    assert Bounded(0, 300, [2], torch.int64).project(torch.tensor([-3, 100], dtype=torch.int8)).tolist() == [0, 100]


def test_project_of_half_precision_respects_single_precision_bounds():
    spec = Bounded(0.1, 0.3, [2])
    assert spec.contains(spec.project(torch.tensor([0.0, 1.0], dtype=torch.float16)))


def test_rand_covers_every_integer_evenly_and_both_ends():
    drawn = Bounded(-2, 2, dtype=torch.int16).rand([50_000], generator=torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn.long() + 2) / 50_000
    assert torch.allclose(shares, torch.full((5,), 0.2), atol=0.01)


def test_rand_of_the_widest_ranges_stays_inside():
    big = torch.finfo(torch.float32).max
    for spec in (
        Bounded(-big, big, [1000]),
        Bounded(torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max, [1000], torch.int64),
        Unbounded([1000], torch.int64),
        Unbounded([1000], torch.uint8),
    ):
        drawn = spec.rand(generator=torch.Generator().manual_seed(0))
        spec.assert_contains(drawn)
        assert len(drawn.unique()) > 100


def test_rand_is_uniform_inside_two_bounds_and_beside_one_and_without_any():
    spec = Bounded([2.0, 3.0, -INF, -INF], [4.0, INF, 5.0, INF])
    drawn = spec.rand([20_000], generator=torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(0), torch.tensor([3.0, 4.0, 4.0, 0.0]), atol=0.05)
    assert torch.allclose(drawn.std(0), torch.tensor([2 / 12**0.5, 1.0, 1.0, 1.0]), atol=0.05)


def test_zero_is_the_allowed_value_nearest_to_zero():
    assert Bounded([-1.0, 2.0, -5.0], [1.0, 3.0, -4.0]).zero([2]).tolist() == [[0.0, 2.0, -4.0]] * 2
    assert Unbounded([2], torch.int32).zero().tolist() == [0, 0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bounded([0.0, 2.0], [1.0, 1.0]), r"low 2.0 at \[1\], high 1.0 at \[1\]"),
        (lambda: Bounded(float("nan"), 1.0), "no NaN"),
        (lambda: Bounded([0.0, 1.0], 2.0, [3]), r"broadcast to \[3\]"),
        (lambda: Bounded([0.0, 1.0], [2.0, 2.0, 2.0]), "go together"),
        (lambda: Bounded(0.5, 2.0, dtype=torch.int64), "whole numbers"),
        (lambda: Bounded(0, 300, dtype=torch.uint8), "whole numbers that fit torch.uint8, got 300"),
        (lambda: Bounded(0, INF, dtype=torch.int64), "whole numbers"),
        (lambda: Bounded(0, 1, dtype=torch.bool), "Categorical"),
    ],
)
def test_bounds_that_make_no_sense_fail_at_construction(build, message):
    with pytest.raises(SpecError, match=message):
        build()


def test_bounds_do_not_alias_what_they_were_made_from():
    low, high = np.zeros(2, np.float32), torch.tensor([1.0, 2.0])
    spec = Bounded(low, high)
    low += 9
    high += 9
    assert spec == Bounded([0.0, 0.0], [1.0, 2.0])


def test_precision_of_the_bounds_is_that_of_the_dtype():
    assert Bounded(0.1, 0.2, dtype=torch.float64).low.item() == 0.1


def test_specs_with_other_bounds_shapes_or_dtypes_differ():
    spec = Bounded([0.0, 0.0], [1.0, 2.0])
    assert spec == Bounded(0.0, [1.0, 2.0], [2])
    assert spec != Bounded(0.0, [1.0, 3.0])
    assert spec != Bounded(0.0, 1.0, [2])
    assert spec != Bounded(0.0, [1.0, 2.0], dtype=torch.float64)
    assert spec != Unbounded([2])


def test_indexing_takes_the_bounds_along():
    spec = Bounded([-1.0, -2.0], [1.0, 2.0]).expand(8, 2)[0, 1]
    assert spec == Bounded(-2.0, 2.0)


def test_pixels_become_floats_but_floats_do_not_become_integers():
    spec = Bounded(0, 255, [4, 4], torch.uint8).to(torch.float32)
    assert spec == Bounded(0.0, 255.0, [4, 4])
    with pytest.raises(SpecError, match="Bounded.to"):
        spec.to(torch.uint8)
    with pytest.raises(SpecError, match="Unbounded.to"):
        Unbounded([2]).to(torch.int64)
    assert Unbounded([2], torch.int64).to(torch.float32) == Unbounded([2])


def test_repr_can_be_read():
    assert repr(Bounded(-1.0, 1.0, [2])) == "Bounded(low=-1.0, high=1.0, shape=[2], dtype=float32)"
    assert repr(Bounded([-1.0, 0.0], 1.0)) == "Bounded(low=[...], high=1.0, shape=[2], dtype=float32)"
    assert repr(Unbounded([2]).to("meta")) == "Unbounded(shape=[2], dtype=float32, device=meta)"
