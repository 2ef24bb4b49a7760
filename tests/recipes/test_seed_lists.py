"""Lists of seeds: ranges, single ones, and what is neither."""

import argparse

import pytest

from torchrl.recipes.seed_lists import seed_list, seeds


@pytest.mark.parametrize(
    ("text", "found"),
    [("0..3", [0, 1, 2, 3]), ("0,3,5", [0, 3, 5]), ("7", [7]), ("4..4", [4]), ("1..2, 9", [1, 2, 9])],
)
def test_seeds_are_read(text, found):
    assert seeds(text) == text and seed_list(text) == found


@pytest.mark.parametrize("text", ["", "a", "-1", "3..1", "0,0", "0..2,1", "1.5", "0...3", ","])
def test_other_texts_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="each once"):
        seeds(text)
