"""Where a batch lies in memory: names, dtypes, and what a simulator may write there."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from torchrl.data.specs import Composite
from torchrl.envs.conversions import spec_from_space
from torchrl.envs.vector.buffers import Leaf, allocate, allocate_observations, observation_leaves
from torchrl.errors import EnvError, SpecError

LEAVES = [
    spaces.Box(-1, 1, (2, 3), np.float64),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Box(0, 1, (2,), np.float16),
    spaces.Box(0, 255, (2, 2, 3), np.uint8),
    spaces.Box(0, 9, (2,), np.uint16),
    spaces.Box(0, 9, (2,), np.uint32),
    spaces.Box(0, 1, (2,), np.bool_),
    spaces.Discrete(3, dtype=np.int8),
    spaces.MultiDiscrete([2, 3], dtype=np.int32),
    spaces.MultiBinary((2, 2)),
]
NESTED = spaces.Dict({"b": spaces.Tuple([LEAVES[0], spaces.Dict({"c": LEAVES[7]})]), "a": LEAVES[3]})


@pytest.mark.parametrize("space", [*LEAVES, NESTED], ids=str)
def test_memory_has_the_shapes_and_dtypes_of_the_spec(space):
    spec = spec_from_space(space, [4])
    spec = spec if isinstance(spec, Composite) else Composite({"observation": spec}, [4])
    tree = allocate_observations(space, 4)

    def matches(tree, spec):
        assert tree.keys() == spec.keys()
        for key, part in tree.items():
            if isinstance(part, dict):
                matches(part, spec[key])
            else:
                assert torch.from_numpy(part).dtype is spec[key].dtype and part.shape == spec[key].shape

    matches(tree, spec)


def test_paths_are_names_and_keys_lead_through_tuples():
    leaves = [(leaf.path, leaf.keys) for leaf in observation_leaves(NESTED)]
    assert leaves == [(("a",), ("a",)), (("b", "0"), ("b", 0)), (("b", "1", "c"), ("b", 1, "c"))]
    assert [leaf.path for leaf in observation_leaves(LEAVES[0])] == [("observation",)]


def test_the_two_roots_and_the_outcome_by_hand():
    buffers = allocate(spaces.Discrete(3), 2)
    statistics = {"episode_return", "episode_length"}
    assert all(root.keys() == {"observation", "is_init", *statistics} for root in buffers.roots)
    assert buffers.next.keys() == {"observation", "reward", "terminated", "truncated", "done", *statistics}
    assert not np.shares_memory(buffers.roots[0]["observation"], buffers.roots[1]["observation"])


def test_memory_can_come_from_elsewhere():
    made = []

    def make(shape, dtype):
        made.append((shape, np.dtype(dtype).name))
        return np.zeros(shape, dtype)

    allocate(spaces.Box(0, 1, (3,)), 5, make)
    assert made.count(((5, 3), "float32")) == 3 and len(made) == 3 * 3 + 2 + 4


def tuple_leaves(num_envs=2):
    space = spaces.Tuple([spaces.Box(0, 9, (2,)), spaces.Discrete(3)])
    tree = allocate_observations(space, num_envs)
    return tree, [Leaf(tree, leaf, lambda index: f"row {index}") for leaf in observation_leaves(space)]


def test_values_go_where_they_belong():
    tree, leaves = tuple_leaves()
    for leaf in leaves:
        leaf.write(((np.array([1, 2]), 0), ([3.0, 4.0], np.int64(2))))
    assert tree["0"].tolist() == [[1, 2], [3, 4]] and tree["1"].tolist() == [0, 2]
    for leaf in leaves:
        leaf.write_one(1, (np.array([7, 8]), 1))
        leaf.write_batch((tree["0"] + 1, tree["1"]))
    assert tree["0"].tolist() == [[2, 3], [8, 9]] and tree["1"].tolist() == [0, 1]
    rows = np.array([False, True])
    assert leaves[0].write_rows(rows, (np.array([[2.0, 3.0], [0.0, 0.0]]), None)) is True
    assert leaves[0].write_rows(rows, (np.array([[5.0, 5.0], [1.0, 1.0]]), None)) is False
    assert tree["0"].tolist() == [[2, 3], [1, 1]]
    leaves[0].write_part(np.array([1]), (np.array([[6.0, 7.0]]), None))
    assert tree["0"].tolist() == [[2, 3], [6, 7]]
    leaves[0].write_part(np.array([1, 0]), (np.array([[1.0, 2.0], [3.0, 4.0]]), None))
    assert tree["0"].tolist() == [[3, 4], [1, 2]]
    with pytest.raises(SpecError, match=r"'0': expected shape \[2, 2\]"):
        leaves[0].write_part(np.array([1, 0]), (np.array([[1.0, 2.0]]), None))


@pytest.mark.parametrize(
    ("observation", "kind", "message"),
    [
        (([1.0, 2.0],), EnvError, "observation of row 1: expected the key '1', got tuple of 1"),
        ({"0": [1.0, 2.0], "1": 1}, EnvError, r"observation of row 1: expected the key '0', got \['0', '1'\]"),
        (np.zeros(2), EnvError, "observation of row 1: expected the key '0', got ndarray"),
        (([1.0], 1), SpecError, r"observation '0' of row 1: expected shape \[2\] .*got shape \[1\]"),
        (([1.0, 2.0], 0.5), SpecError, "observation '1' of row 1: .*got shape .* dtype float64"),
    ],
)
def test_what_does_not_fit_is_named_with_its_row(observation, kind, message):
    _, leaves = tuple_leaves()
    with pytest.raises(kind, match=message):
        for leaf in leaves:
            leaf.write((([1.0, 2.0], 0), observation))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((np.zeros((2, 1)), np.zeros(2, int)), r"'0': expected shape \[2, 2\] .*got shape \[2, 1\]"),
        ((np.zeros((2, 2)), np.zeros(2)), r"'1': expected shape \[2\] and dtype int64 .*float64"),
        ((np.zeros((2, 2)),), "an array at the key '1', got IndexError"),
        ((np.zeros((2, 2)), [0, 1]), "an array at the key '1', got AttributeError"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(batch, message):
    _, leaves = tuple_leaves()
    with pytest.raises(SpecError, match=message):
        for leaf in leaves:
            leaf.write_batch(batch)


def test_parts_of_which_only_one_comes_are_refused():
    with pytest.raises(SpecError, match="values have one shape, got OneOf"):
        observation_leaves(spaces.Dict({"a": spaces.OneOf([spaces.Discrete(2), spaces.Discrete(3)])}))
