"""Specs of TensorDicts: nested keys, batch size, and messages that name the key."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.data.specs import Binary, Bounded, Categorical, Composite, Unbounded
from torchrl.errors import KeyMissing, SpecError


@pytest.fixture
def spec() -> Composite:
    return Composite(
        {
            "observation": Bounded(-1.0, 1.0, [8, 4]),
            "camera": {"left": Bounded(0, 255, [8, 3, 2, 2], torch.uint8)},
            ("camera", "right"): Bounded(0, 255, [8, 3, 2, 2], torch.uint8),
            "action": Categorical(3, [8]),
        },
        [8],
    )


def test_nested_keys_work_as_in_a_tensordict(spec):
    assert list(spec.keys()) == ["observation", "camera", "action"]
    assert spec["camera", "left"] is spec["camera"]["left"]
    assert spec["camera"].shape == (8,)
    assert ("camera", "right") in spec
    assert ("camera", "up") not in spec
    assert ("observation", "left") not in spec
    assert len(spec) == len(list(spec)) == 3
    assert [key for key, _ in spec.leaves()] == ["observation", ("camera", "left"), ("camera", "right"), "action"]
    assert dict(spec.leaves())["camera", "left"] is spec["camera", "left"]


@pytest.mark.parametrize("leaf", [Unbounded(()), Bounded(-1.0, 1.0, ()), Binary((), torch.float32)])
def test_a_leaf_without_dimensions_refuses_nan_before_one_that_fits(leaf):
    """The place of the NaN is the empty index, which is false."""
    spec, nan = Composite({"one": leaf, "two": Unbounded(())}), torch.tensor(float("nan"))
    assert not spec.contains(TensorDict({"one": nan, "two": torch.tensor(0.0)}))
    with pytest.raises(SpecError, match=r"one: expected .*got NaN at \[\]"):
        spec.assert_contains(TensorDict({"one": nan, "two": torch.tensor(0.0)}))


def test_set_and_delete(spec):
    spec["deep", "deeper", "deepest"] = Unbounded([8])
    assert spec["deep", "deeper"].shape == (8,)
    del spec["deep", "deeper", "deepest"]
    assert ("deep", "deeper", "deepest") not in spec
    del spec["deep"]
    assert "deep" not in spec
    for key in ("deep", ("camera", "up"), ("observation", "x")):
        with pytest.raises(KeyMissing):
            del spec[key]


def test_get_has_a_default_and_indexing_names_the_nearest_key(spec):
    assert spec.get("nothing", 3) == 3
    assert spec.get(("observation", "nothing")) is None
    with pytest.raises(KeyMissing, match="'obsrvation'.*Did you mean 'observation'"):
        spec["obsrvation"]
    with pytest.raises(KeyMissing, match=r"Did you mean \('camera', 'left'\)"):
        spec["camera", "lift"]


def test_an_entry_must_start_with_the_batch_size(spec):
    with pytest.raises(SpecError, match=r'starts with \[8\] for "reward", got \[1\]. .*expand'):
        spec["reward"] = Unbounded([1])
    with pytest.raises(SpecError, match="a spec for"):
        spec["reward"] = torch.float32
    with pytest.raises(SpecError, match='a level at "action"'):
        spec["action", "left"] = Unbounded([8])
    with pytest.raises(SpecError, match="a string or a tuple"):
        spec.set(3, Unbounded([8]))


def test_shape_operations_move_batch_dimensions_only(spec):
    wide = spec.expand(5, 8)
    assert wide["camera"].shape == (5, 8)
    assert wide["camera", "left"].shape == (5, 8, 3, 2, 2)
    assert spec.reshape(2, 4)["observation"].shape == (2, 4, 4)
    assert spec[0]["action"].shape == ()
    assert spec[..., :3]["observation"].shape == (3, 4)
    assert [row["observation"].shape for row in spec.unbind(0)] == [(4,)] * 8


def test_a_copy_can_be_changed_alone(spec):
    copy = spec.clone()
    del copy["camera", "left"]
    copy["new"] = Unbounded([8])
    assert ("camera", "left") in spec
    assert "new" not in spec
    assert spec != copy


def test_rand_has_the_batch_size(spec):
    drawn = spec.rand([5])
    assert drawn.batch_size == (5, 8)
    assert drawn["camera", "left"].shape == (5, 8, 3, 2, 2)
    assert drawn["camera"].batch_size == (5, 8)
    assert not spec.zero()["action"].any()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda value: value.set("action", torch.full((8,), 3)),
            r"root\.action: expected an index from 0 to 2, got 3",
        ),
        (
            lambda value: value.set(("camera", "left"), torch.zeros(8, 3, 2, 2)),
            r"root\.camera\.left: expected dtype uint8, got dtype float32\. Cast it",
        ),
        (lambda value: value.pop("observation"), r"root: expected keys .* Missing: \['observation'\]"),
        (lambda value: value.set("extra", torch.zeros(8)), r"root: .*Not in the spec: \['extra'\]; select"),
        (lambda value: value.pop(("camera", "left")), r"root\.camera: .*Missing: \['left'\]"),
        (
            lambda value: value.set("camera", torch.zeros(8)),
            r"root\.camera: expected a TensorDict .*got Tensor",
        ),
        (lambda value: setattr(value, "batch_size", []), r"root: expected batch size \[8\], got batch size \[\]"),
    ],
)
def test_a_mismatch_names_the_nested_key(spec, edit, message):
    value = spec.rand()
    edit(value)
    with pytest.raises(SpecError, match=message):
        spec.assert_contains(value, "root")
    assert not spec.contains(value)


def test_project_returns_a_new_tensordict(spec):
    value = spec.rand()
    value["observation"] = torch.full((8, 4), 7.0)
    projected = spec.project(value)
    spec.assert_contains(projected)
    assert projected["observation"].unique().tolist() == [1.0]
    assert value["observation"].unique().tolist() == [7.0]
    with pytest.raises(SpecError, match="Missing"):
        spec.project(value.exclude("action"))


def test_a_dtype_belongs_to_a_leaf(spec):
    with pytest.raises(SpecError, match="Cast the leaf"):
        spec.to(torch.float64)


def test_a_device_is_named_only_if_it_is_one(spec):
    assert spec.device == torch.device("cpu")
    spec["elsewhere"] = Unbounded([8], device="meta")
    assert spec.device is None
    assert Composite().device is None
    assert spec[0]["elsewhere"].device.type == "meta"


def test_equality_compares_keys_shapes_and_leaves(spec):
    assert spec == spec.clone()
    assert Composite({"a": Unbounded([2])}) != Composite({"a": Unbounded([2])}, [2])
    assert Composite({"a": Unbounded()}) != Composite({"b": Unbounded()})
    assert Composite({"a": Unbounded()}) != Unbounded()


def test_repr_shows_the_tree(spec):
    lines = repr(spec).splitlines()
    assert lines[0] == "Composite(shape=[8]"
    assert lines[2] == "    camera: Composite(shape=[8]"
    assert lines[3].startswith("        left: Bounded(low=0, high=255")


def test_an_empty_spec_describes_an_empty_tensordict():
    Composite(shape=[3]).assert_contains(TensorDict({}, [3]))
