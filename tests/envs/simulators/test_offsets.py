"""Choices that start elsewhere, presented as counted from 0: at every depth, in both directions, one or a batch."""

import numpy as np
import pytest
from gymnasium import spaces

from torchrl.envs.simulators.offsets import count_from_zero

SHIFTED = spaces.Dict(
    {
        "one": spaces.Discrete(3, start=-1),
        "many": spaces.MultiDiscrete([2, 4], start=[5, 0], dtype=np.int16),
        "deep": spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(2, start=1), spaces.MultiBinary(3)]),
    }
)
PLAIN = spaces.Dict(
    {
        "one": spaces.Discrete(3),
        "many": spaces.MultiDiscrete([2, 4]),
        "deep": spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(2), spaces.MultiBinary(3)]),
    }
)


def test_the_presented_space_and_its_values_by_hand():
    presented, inward, outward = count_from_zero(SHIFTED)
    assert presented == PLAIN and list(presented) == list(SHIFTED)
    inside = {"one": 0, "many": np.array([1, 3]), "deep": (np.zeros(2, np.float32), 1, np.ones(3, np.int8))}
    outside = inward(inside)
    assert SHIFTED.contains(outside)
    assert (outside["one"], outside["many"].tolist(), outside["deep"][1]) == (-1, [6, 3], 2)
    back = outward(outside)
    assert (back["one"], back["many"].tolist(), back["deep"][1]) == (0, [1, 3], 1)
    assert back["deep"][0] is inside["deep"][0]


def test_every_sample_comes_back():
    presented, inward, outward = count_from_zero(SHIFTED)
    SHIFTED.seed(0)
    for _ in range(50):
        value = SHIFTED.sample()
        assert presented.contains(outward(value))
        again = inward(outward(value))
        assert again["one"] == value["one"] and again["many"].tolist() == value["many"].tolist()
        assert again["many"].dtype == np.int16


def test_batches_are_translated_alike():
    _, inward, outward = count_from_zero(spaces.MultiDiscrete([2, 4], start=[5, -1]))
    assert inward(np.array([[0, 0], [1, 3]])).tolist() == [[5, -1], [6, 2]]
    assert outward(np.array([[5, -1], [6, 2]])).tolist() == [[0, 0], [1, 3]]
    _, inward, _ = count_from_zero(spaces.Discrete(3, start=2))
    assert inward(np.array([0, 2])).tolist() == [2, 4]


def test_small_dtypes_do_not_wrap_around():
    space = spaces.Discrete(100, start=-100, dtype=np.int8)
    presented, inward, outward = count_from_zero(space)
    assert presented == spaces.Discrete(100)
    assert outward(np.int8(-1)) == 99 and outward(np.int8(-1)).dtype == np.int64
    assert inward(np.int64(99)) == -1 and space.contains(inward(np.int64(99)))


def test_the_chosen_part_of_a_one_of_is_translated():
    space = spaces.OneOf([spaces.Discrete(2), spaces.Discrete(2, start=4)])
    presented, inward, outward = count_from_zero(space)
    assert presented == spaces.OneOf([spaces.Discrete(2), spaces.Discrete(2)])
    assert inward((1, 1)) == (1, 5) and inward((0, 1)) == (0, 1)
    assert outward((1, 4)) == (1, 0)


@pytest.mark.parametrize("space", [PLAIN, spaces.Discrete(2), spaces.Box(0, 1), spaces.MultiBinary(2), spaces.Text(3)])
def test_what_starts_at_zero_is_left_alone(space):
    assert count_from_zero(space) == (space, None, None)


def test_a_float_is_no_choice():
    _, _, outward = count_from_zero(spaces.Discrete(3, start=1))
    with pytest.raises(TypeError, match="float64"):
        outward(np.float64(2.7))
