"""Numbers and factories of networks: what is accepted, and what a refusal says."""

import numpy as np
import pytest
from torch import nn

from torchrl.errors import ConfigError
from torchrl.modules.models.arguments import factory, positive, sizes


def test_whole_numbers_of_any_kind_become_ints():
    assert positive("who", np.int64(3)) == 3 and type(positive("who", np.int64(3))) is int
    assert sizes("who", [np.int32(4), 5]) == (4, 5) and sizes("who", ()) == ()


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, True])
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(ConfigError, match="who: expected a positive integer, got"):
        positive("who", value)


@pytest.mark.parametrize(("values", "message"), [(32, r"One layer is \(32,\)"), ("64", "sequence"), ([4, 0], "got 0")])
def test_sizes_are_a_sequence_of_positive_integers(values, message):
    with pytest.raises(ConfigError, match=message):
        sizes("who", values)


def test_a_module_is_no_factory():
    assert factory("who", nn.ReLU) is nn.ReLU
    with pytest.raises(ConfigError, match="Pass the class: ReLU"):
        factory("who", nn.ReLU())
    with pytest.raises(ConfigError, match="got 'relu'"):
        factory("who", "relu")
