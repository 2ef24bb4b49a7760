"""Specs of dm_env and their values, across the border and back."""

import numpy as np
import pytest
import torch

from torchrl.data.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, OneHot, Unbounded
from torchrl.envs.conversions import dm_env_from_spec, spec_from_dm_env
from torchrl.envs.values import decode, encode
from torchrl.errors import SpecError

specs = pytest.importorskip("dm_env.specs")
INF = np.inf

DM_ENV = [
    (specs.Array((3,), np.float32), Unbounded([3])),
    (specs.Array((), bool), Categorical(2, [], torch.bool)),
    (specs.Array((2,), np.uint8), Bounded(0, 255, [2], torch.uint8)),
    (specs.BoundedArray((2,), np.float32, -1.0, [1.0, INF]), Bounded(-1.0, [1.0, INF])),
    (specs.BoundedArray((2,), np.int32, 1, 5), Bounded(1, 5, [2], torch.int32)),
    (specs.DiscreteArray(4, np.int64), Categorical(4)),
    (
        {"a": specs.DiscreteArray(4, np.int64), "b": [specs.Array((1,), np.float32)]},
        Composite({"a": Categorical(4), ("b", "0"): Unbounded([1])}),
    ),
]
DM_ENV_CHANGED = [
    (specs.Array((3,), np.float64, name="x"), Unbounded([3])),
    (specs.BoundedArray((2,), np.float64, -0.1, 0.1), Bounded(-0.1, 0.1, [2])),
    (specs.BoundedArray((), np.float64, -INF, INF), Unbounded()),
    (specs.BoundedArray((2,), bool, False, True), Categorical(2, [2], torch.bool)),
    (specs.DiscreteArray(256, np.uint8), Categorical(256)),
    ((specs.DiscreteArray(4),), Composite({"0": Categorical(4)})),
]


@pytest.mark.parametrize(("source", "spec"), DM_ENV + DM_ENV_CHANGED)
def test_specs_of_dm_env_become_specs(source, spec):
    assert spec_from_dm_env(source) == spec
    assert spec_from_dm_env(source, [8]) == spec.expand(8, *spec.shape)


@pytest.mark.parametrize(("source", "spec"), DM_ENV)
def test_a_spec_becomes_its_spec_of_dm_env_again(source, spec):
    assert dm_env_from_spec(spec) == source


@pytest.mark.parametrize(
    ("spec", "made"),
    [
        (MultiCategorical([3, 2]), specs.BoundedArray((2,), np.int64, 0, [2, 1])),
        (MultiOneHot([3, 2]), specs.BoundedArray((2,), np.int64, 0, [2, 1])),
        (OneHot(3), specs.DiscreteArray(3, np.int64)),
        (Binary([2]), specs.BoundedArray((2,), np.int8, 0, 1)),
        (
            Composite({"index": Categorical(1), "0": Unbounded()}),
            {"index": specs.DiscreteArray(1, np.int64), "0": specs.Array((), np.float32)},
        ),
    ],
)
def test_what_dm_env_has_no_word_for_is_widened(spec, made):
    assert dm_env_from_spec(spec) == made


@pytest.mark.parametrize("source", [source for source, _ in DM_ENV if isinstance(source, specs.Array)])
def test_values_of_dm_env_go_both_ways(source):
    spec = spec_from_dm_env(source)
    for seed in range(5):
        tensor = spec.rand(generator=torch.Generator().manual_seed(seed))
        value = source.validate(decode(source, tensor))
        assert bool((encode(source, value) == tensor).all())


def test_values_of_dm_env_have_its_dtypes_and_stay_in_its_bounds():
    source = specs.BoundedArray((1,), np.float64, -0.1, 0.1)
    assert source.validate(decode(source, torch.tensor([0.1]))).tolist() == [0.1]
    assert decode(specs.DiscreteArray(4), torch.tensor(2)).dtype == np.int32
    nest = {"a": specs.DiscreteArray(4), "b": [specs.Array((1,), np.float64)]}
    assert encode(nest, {"a": 3, "b": [[0.5]]})["b", "0"].tolist() == [0.5]
    assert spec_from_dm_env(nest, one_hot=True)["a"] == OneHot(4)


@pytest.mark.parametrize("source", [specs.StringArray(()), specs.Array((), object), specs.Array((), np.uint64), 3])
def test_other_specs_of_dm_env_are_refused_by_name(source):
    with pytest.raises(
        SpecError, match="spec_from_dm_env: expected an Array, BoundedArray or DiscreteArray of numbers"
    ):
        spec_from_dm_env(source)
