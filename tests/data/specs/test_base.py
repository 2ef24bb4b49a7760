"""What all specs share: operations that do not fit, mismatches by name, devices. The laws have their own file."""

import pytest
import torch
from tensordict import TensorDict

from torchrl.data.specs import Bounded, Categorical, Composite, Unbounded
from torchrl.errors import SpecError


@pytest.mark.parametrize("spec", [Unbounded([2, 3]), Composite({"a": Unbounded([2, 3, 4])}, [2, 3])])
@pytest.mark.parametrize(
    ("op", "name"),
    [
        (lambda spec: spec.reshape(5), "reshape"),
        (lambda spec: spec.expand(3, 3), "expand"),
        (lambda spec: spec[0, 0, 0], "index"),
        (lambda spec: spec[7], "index"),
        (lambda spec: spec.unsqueeze(3), "unsqueeze"),
        (lambda spec: spec.squeeze(-3), "squeeze"),
        (lambda spec: spec.unbind(2), "unbind"),
        (lambda spec: spec.permute(0), "permute"),
        (lambda spec: spec.permute(0, 0), "permute"),
    ],
)
def test_an_operation_that_does_not_fit_names_itself_and_the_shape(spec, op, name):
    with pytest.raises(SpecError, match=rf"{type(spec).__name__}\.{name}.*\[2, 3\]"):
        op(spec)


def test_squeeze_leaves_a_dimension_that_is_not_one():
    assert Unbounded([1, 2, 1]).squeeze(1).shape == (1, 2, 1)
    assert Unbounded([1, 2, 1]).squeeze(-1).shape == (1, 2)


def test_bounds_that_are_the_same_everywhere_take_no_memory():
    spec = Bounded(torch.zeros(84, 84), torch.full((84, 84), 255), dtype=torch.uint8).expand(64, 4, 84, 84)
    assert all(bound.numel() == 1 for bound in spec.bounds.values())
    assert spec.low.shape == spec.shape


def test_a_leaf_is_not_silently_iterated():
    with pytest.raises(TypeError, match="unbind"):
        list(Unbounded([2]))


@pytest.mark.parametrize(
    ("value", "expected", "got", "hint"),
    [
        (torch.zeros(8, 1, dtype=torch.float64), "float32", "float64", "to(torch.float32)"),
        (torch.zeros(8), "[8, 1]", "shape [8]", "unsqueeze(-1)"),
        (torch.zeros(8, 1, 1), "[8, 1]", "[8, 1, 1]", "squeeze(-1)"),
        (torch.zeros(1), "[8, 1]", "shape [1]", "batch dimensions [8] are missing"),
        (torch.zeros(5, 8, 1), "[8, 1]", "[5, 8, 1]", "extra batch dimensions [5]"),
        (torch.zeros(8, 1, device="meta"), "device cpu", "device meta", '.to("cpu")'),
        ([0.0], "a tensor", "list", "torch.as_tensor"),
        (TensorDict({}, [8]), "a tensor", "TensorDict", "key"),
    ],
)
def test_a_mismatch_names_the_key_what_was_expected_what_came_and_what_to_do(value, expected, got, hint):
    spec = Unbounded([8, 1])
    with pytest.raises(SpecError) as caught:
        spec.assert_contains(value, "reward")
    message = str(caught.value)
    assert message.startswith("reward: ")
    assert all(part in message for part in (expected, got, hint))
    assert not spec.contains(value)


def test_project_refuses_another_shape_and_another_kind():
    with pytest.raises(SpecError, match=r"expected shape \[8, 1\], got shape \[8\].*unsqueeze"):
        Unbounded([8, 1]).project(torch.zeros(8))
    with pytest.raises(SpecError, match="expected dtype int64, got float32"):
        Categorical(3, [8]).project(torch.zeros(8))


def test_to_another_device():
    spec = Composite({"a": Bounded([0.0, 1.0], [2.0, 3.0]), "b": {"c": Categorical(3)}})
    moved = spec.to("meta")
    assert moved.device == torch.device("meta")
    assert all(leaf.device.type == "meta" for _, leaf in moved.leaves())
    assert spec.device == torch.device("cpu")
    assert spec["a"] != spec["a"].to(torch.float64)
