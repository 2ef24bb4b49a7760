"""Dimensions that move, by hand; those of the batch stay where they are."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings, strategies as st

from cases.specs import leaves
from cases.transform_steps import Scripted, act, specs
from torchrl.data.specs import Binary, Bounded, Categorical, MultiCategorical, OneHot, Unbounded
from torchrl.envs import SerialEnv
from torchrl.envs.transforms import Compose, Flatten, Permute, Squeeze, TransformedEnv, Unsqueeze
from torchrl.errors import KeyMissing, SpecError

STILL = np.arange(6.0, dtype=np.float32).reshape(2, 3, 1)


PICTURE = spaces.Dict(
    picture=spaces.Box(STILL, STILL + 20, dtype=np.float32),
    body=spaces.Dict(height=spaces.Box(-np.inf, np.inf, ())),
)
HEIGHT = ("body", "height")


def pictures(transform, num_envs=None):
    """Step t: picture 0 to 5 plus 10 t, and height t; one episode has two steps."""

    def observe(t):
        return {"picture": STILL + 10 * t, "body": {"height": np.float32(t)}}

    return TransformedEnv(SerialEnv(lambda: Scripted(PICTURE, observe), num_envs), transform)


@pytest.mark.parametrize(
    ("transform", "due"),
    [
        (Permute((2, 0, 1), ["picture"]), [[[0, 1, 2], [3, 4, 5]]]),
        (Permute((-2, -1, 0), ["picture"]), [[[0, 3]], [[1, 4]], [[2, 5]]]),
        (Flatten(in_keys=["picture"]), [0, 1, 2, 3, 4, 5]),
        (Flatten(0, 1, in_keys=["picture"]), [[0], [1], [2], [3], [4], [5]]),
        (Flatten(-2, -1, in_keys=["picture"]), [[0, 1, 2], [3, 4, 5]]),
        (Flatten(1, 1, in_keys=["picture"]), STILL.tolist()),
        (Squeeze(2, ["picture"]), [[0, 1, 2], [3, 4, 5]]),
        (Squeeze(-1, ["picture"]), [[0, 1, 2], [3, 4, 5]]),
        (Unsqueeze(0, ["picture"]), [STILL.tolist()]),
        (Unsqueeze(1, ["picture"]), [[STILL[0].tolist()], [STILL[1].tolist()]]),
        (Unsqueeze(-1, ["picture"]), STILL[..., None].tolist()),
        (Unsqueeze(-4, ["picture"]), [STILL.tolist()]),
    ],
)
@pytest.mark.parametrize("num_envs", [None, 1, 2])
def test_values_and_bounds_by_hand(transform, due, num_envs):
    transform = type(transform)(**arguments(transform))  # one of its own for every environment
    env = pictures(transform, num_envs)
    due = torch.tensor(due, dtype=torch.float32)
    rows = [] if num_envs is None else [num_envs]
    batch = env.rollout(3, act)
    for number, t in enumerate((0, 1, 0)):
        step = batch[..., number]
        assert torch.equal(step["picture"], (due + 10 * t).expand(*rows, *due.shape))
        assert torch.equal(step["next", "picture"], (due + 10 * (t + 1)).expand(*rows, *due.shape))
    leaf = env.observation_spec["picture"]
    assert isinstance(leaf, Bounded) and leaf.shape == (*rows, *due.shape)
    assert torch.equal(leaf.low, due.expand(leaf.shape)) and torch.equal(leaf.high, (due + 20).expand(leaf.shape))


def arguments(transform):
    return {
        name: getattr(transform, name)
        for name in ("dim", "dims", "first", "last", "in_keys")
        if name in vars(transform)
    }


@pytest.mark.parametrize("transform", [Flatten(in_keys=[HEIGHT]), Flatten(-1, 0, in_keys=[HEIGHT])])
def test_a_scalar_flattened_is_a_vector_of_one(transform):
    env = pictures(transform, 2)
    assert env.observation_spec[HEIGHT] == Unbounded((2, 1))
    root = env.reset()
    assert root[HEIGHT].tolist() == [[0.0], [0.0]]
    assert env.step_and_reset(act(root))[1][HEIGHT].tolist() == [[1.0], [1.0]]


def test_a_scalar_becomes_a_feature_and_a_scalar_again():
    env = pictures(Unsqueeze(0, [HEIGHT]), 2)
    assert env.observation_spec[HEIGHT] == Unbounded((2, 1))
    assert env.rollout(2, act)["next", "body", "height"].tolist() == [[[1], [2]]] * 2
    env = pictures(Compose(Unsqueeze(-1, [HEIGHT]), Squeeze(0, [HEIGHT])), 2)
    assert env.observation_spec[HEIGHT] == Unbounded((2,))
    assert env.rollout(2, act)["next", "body", "height"].tolist() == [[1, 2]] * 2


def test_a_batch_of_several_dimensions_is_never_touched():
    value = torch.arange(24.0).reshape(2, 3, 4)
    for transform, shape in ((Flatten(), (2, 3, 4)), (Unsqueeze(0), (2, 3, 1, 4)), (Permute([0]), (2, 3, 4))):
        transform.read_specs(specs(2, 3, observation=Unbounded((2, 3, 4))))
        assert torch.equal(transform(value), value.reshape(shape))
        assert transform.transform_spec(Unbounded((2, 3, 4))) == Unbounded(shape)
    with pytest.raises(SpecError):
        Squeeze(0).read_specs(specs(1, observation=Unbounded((1, 4))))


def test_choices_stay_choices_where_they_stay_whole():
    flags, wide = Categorical(2, (2, 3, 4), torch.bool), OneHot(4, (2, 3, 4))
    for transform, leaf, due in (
        (Flatten(), flags, Categorical(2, (2, 12), torch.bool)),
        (Flatten(), MultiCategorical([[2, 3], [4, 5]], (2, 2, 2)), MultiCategorical([2, 3, 4, 5], (2, 4))),
        (Flatten(), wide, Binary((2, 12), torch.int64)),
        (Unsqueeze(1), wide, OneHot(4, (2, 3, 1, 4))),
        (Unsqueeze(-1), wide, Binary((2, 3, 4, 1), torch.int64)),
        (Permute((1, 0)), wide, Binary((2, 4, 3), torch.int64)),
    ):
        transform.read_specs(specs(2, observation=leaf))
        assert transform.transform_spec(leaf) == due


@st.composite
def leaves_and_transforms(draw):
    """A leaf of any kind with batch dimensions, and a transform that fits its other dimensions."""
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    leaf = draw(leaves(batch))
    num = leaf.ndim - len(batch)
    dims = st.integers(-num, num - 1) if num else st.nothing()
    made = [st.builds(Unsqueeze, st.integers(-num - 1, num))]
    made.append(st.permutations(range(num)).flatmap(lambda order: st.just(Permute([dim - num for dim in order]))))
    if num:
        made.append(st.tuples(dims, dims).map(lambda ends: Flatten(*sorted(ends, key=lambda dim: dim % num))))
    ones = [dim for dim in range(-num, num) if leaf.shape[len(batch) :][dim] == 1]
    if ones:
        made.append(st.sampled_from(ones).map(Squeeze))
    return batch, leaf, draw(st.one_of(made))


@given(leaves_and_transforms())
@settings(max_examples=300, deadline=None)
def test_the_spec_of_any_leaf_describes_its_values(drawn):
    batch, leaf, transform = drawn
    transform.read_specs(specs(*batch, observation=leaf))
    value = leaf.rand()
    moved = transform(value)
    transform.transform_spec(leaf).assert_contains(moved)
    assert moved.shape[: len(batch)] == value.shape[: len(batch)]
    assert sorted(moved.flatten().tolist()) == sorted(value.flatten().tolist())


@pytest.mark.parametrize(
    ("transform", "match"),
    [
        (Unsqueeze(4, ["picture"]), "room for a dimension 4 in 'picture', got Bounded of shape [2, 3, 1]"),
        (Unsqueeze(-5, ["picture"]), "room for a dimension -5"),
        (Unsqueeze(1, [HEIGHT]), "in ('body', 'height'), got Unbounded of shape []"),
        (Squeeze(0, ["picture"]), "a dimension 0 of size 1 in 'picture', got Bounded of shape [2, 3, 1]"),
        (Squeeze(3, ["picture"]), "a dimension 3 of size 1"),
        (Squeeze(0, [HEIGHT]), "a dimension 0 of size 1"),
        (Flatten(1, 0, in_keys=["picture"]), "dimensions 1 to 0, in this order"),
        (Flatten(0, 3, in_keys=["picture"]), "dimensions 0 to 3"),
        (Flatten(-4, in_keys=["picture"]), "dimensions -4 to -1"),
        (Flatten(0, 1, in_keys=[HEIGHT]), "dimensions 0 to 1"),
        (Permute((1, 0), ["picture"]), "the dimensions [1, 0], each once"),
        (Permute((0, 1, 1), ["picture"]), "dimensions [0, 1, 1]"),
        (Permute((0, 1, -1, 2), ["picture"]), "dimensions [0, 1, -1, 2]"),
        (Permute((0, 1, 3), ["picture"]), "dimensions [0, 1, 3]"),
    ],
)
def test_what_does_not_fit_is_refused_when_wrapping(transform, match):
    with pytest.raises(SpecError) as info:
        pictures(transform, 2)
    assert str(info.value).startswith(f"{type(transform).__name__}: expected ") and match in str(info.value)


def test_an_unknown_key_is_refused():
    with pytest.raises(KeyMissing, match="Flatten.*'observation'"):
        pictures(Flatten())
