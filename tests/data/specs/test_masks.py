"""Drawing under a mask: only what is allowed, all of it, evenly; and what is refused."""

import pytest
import torch
from tensordict import TensorDict

from cases.devices import DEVICES
from torchrl.data.specs import Bounded, Categorical, Composite, MultiCategorical, MultiOneHot, OneHot
from torchrl.errors import KeyMissing, SpecError

MILLION = 1_000_000


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("spec", "mask", "probability"),
    [
        (Categorical(5), [0, 1, 0, 1, 1], [0, 1 / 3, 0, 1 / 3, 1 / 3]),
        (OneHot(5), [0, 1, 0, 1, 1], [0, 1 / 3, 0, 1 / 3, 1 / 3]),
        (MultiCategorical([3, 2]), [1, 0, 1, 0, 1], [1 / 2, 0, 1 / 2, 0, 1]),
        (MultiOneHot([3, 2]), [1, 0, 1, 0, 1], [1 / 2, 0, 1 / 2, 0, 1]),
    ],
)
def test_a_million_draws_none_illegal_and_all_legal_ones_even(spec, mask, probability, device):
    spec = spec.to(device)
    generator = torch.Generator(device).manual_seed(0)
    mask = torch.tensor(mask, dtype=torch.bool, device=device)
    drawn = spec.rand([MILLION], generator=generator, mask=mask.expand(MILLION, 5))
    spec.expand(MILLION, *spec.shape).assert_contains(drawn)
    if isinstance(spec, Categorical):
        counts = torch.bincount(drawn, minlength=5)
    elif isinstance(spec, MultiCategorical):
        counts = torch.cat([torch.bincount(column, minlength=n) for column, n in zip(drawn.T, [3, 2], strict=True)])
    else:
        counts = drawn.sum(0)
    assert not counts[~mask].any()
    assert torch.allclose(counts.cpu() / MILLION, torch.tensor(probability), atol=0.002)


def test_each_row_follows_its_own_mask():
    mask = torch.eye(4, dtype=torch.bool)
    assert Categorical(4, [4]).rand(mask=mask).tolist() == [0, 1, 2, 3]
    assert torch.equal(OneHot(4, [4, 4]).rand(mask=mask), mask.long())
    assert MultiCategorical([2, 2], [4, 2]).rand(mask=~mask | mask.roll(2, -1)).shape == (4, 2)


def test_batch_dimensions_stand_in_front_of_the_mask():
    mask = torch.zeros(3, 2, 4, dtype=torch.bool)
    mask[torch.arange(3), :, torch.arange(3)] = True
    assert Categorical(4, [2]).rand([3], mask=mask).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_the_number_of_dimensions_of_the_mask_says_what_is_a_row():
    spec = MultiCategorical([[2, 3], [2, 3]])
    allowed = torch.tensor([[0, 1, 0, 0, 1], [1, 0, 1, 0, 0]], dtype=torch.bool)
    assert spec.rand(mask=allowed).tolist() == [[1, 2], [0, 0]]
    assert spec.rand(mask=allowed.flatten()).tolist() == [[1, 2], [0, 0]]
    uneven = MultiCategorical([[2, 1], [1, 3]])
    assert uneven.rand(mask=torch.tensor([0, 1, 1, 1, 0, 0, 1], dtype=torch.bool)).tolist() == [[1, 0], [0, 2]]
    with pytest.raises(SpecError, match="the same nvec in every row"):
        uneven.rand(mask=torch.ones(2, 4, dtype=torch.bool))
    assert MultiCategorical(3).rand(mask=torch.tensor([False, False, True])).item() == 2


def test_the_dtype_of_the_spec_is_kept():
    mask = torch.tensor([True, False])
    assert Categorical(2, dtype=torch.bool).rand(mask=mask).dtype == torch.bool
    assert OneHot(2, dtype=torch.float32).rand(mask=mask).tolist() == [1.0, 0.0]
    assert MultiCategorical([2], dtype=torch.int16).rand(mask=mask).dtype == torch.int16


@pytest.mark.parametrize(
    ("spec", "width", "where"),
    [
        (Categorical(3, [4]), 3, r"none in row \[2\]\."),
        (OneHot(3, [4, 3]), 3, r"OneHot.rand: .*none in row \[2\]\."),
        (MultiCategorical([2, 3], [4, 2]), 5, r"none in row \[2\] for entry 1\."),
        (MultiOneHot([2, 3], [4, 5]), 5, r"MultiOneHot.rand: .*none in row \[2\] for entry 1\."),
    ],
)
def test_a_row_without_a_choice_is_named(spec, width, where):
    mask = torch.ones(4, width, dtype=torch.bool)
    mask[2, -3:] = False
    with pytest.raises(SpecError, match=where + " Where nothing is allowed, the episode should have ended"):
        spec.rand(mask=mask)


@pytest.mark.parametrize("spec", [Categorical(5, [4]), OneHot(5, [4, 5]), MultiCategorical([3, 2], [4, 2])])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(5, dtype=torch.bool), r"bool mask of shape \[4, 5\].*got shape \[5\]"),
        (torch.ones(4, 6, dtype=torch.bool), r"got shape \[4, 6\]"),
        (torch.ones(1, 5, dtype=torch.bool), r"got shape \[1, 5\]"),
        (
            torch.full((4, 5), 2, dtype=torch.int8),
            r"0 and 1 .*, got 2 at \[0, 0\], int8\. Write it as a condition",
        ),
        (torch.full((4, 5), 0.5), "got 0.5 at"),
        (torch.full((4, 5), torch.nan), "got nan at"),
        ([[True] * 5] * 4, "got list"),
        (torch.ones(4, 5, dtype=torch.bool, device="meta"), "a mask on cpu, got one on meta"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(spec, mask, message):
    if mask is not None and getattr(mask, "shape", None) == (5,) and isinstance(spec, MultiCategorical):
        message = r"bool mask of shape \[20\].*got shape \[5\]"  # one dimension: everything is an entry
    with pytest.raises(SpecError, match=message):
        spec.rand(mask=mask)


def composite():
    return Composite(
        {"steer": Categorical(3, [2]), "arm": {"grip": OneHot(2, [2, 2]), "force": Bounded(0.0, 1.0, [2])}}, [2]
    )


def test_a_composite_takes_masks_by_key_and_draws_the_others_freely():
    steer = torch.tensor([[True, False, False], [False, False, True]])
    grip = torch.tensor([[False, True], [True, False]])
    mask = TensorDict({"steer": steer, "arm": {"grip": grip}}, [2])
    drawn = composite().rand(mask=mask)
    composite().assert_contains(drawn)
    assert drawn["steer"].tolist() == [0, 2]
    assert drawn["arm", "grip"].tolist() == [[0, 1], [1, 0]]
    free = composite().rand([1000], mask=TensorDict({"steer": steer.expand(1000, 2, 3)}, [1000, 2]))
    assert free["steer"].unique(dim=0).tolist() == [[0, 2]]
    assert free["arm", "grip"].double().mean() == 0.5
    assert len(free["arm", "grip"].flatten(0, 1).unique(dim=0)) == 2


def test_a_composite_names_what_is_wrong_with_its_masks():
    with pytest.raises(KeyMissing, match="'stear'.*Did you mean 'steer'"):
        composite().rand(mask=TensorDict({"stear": torch.ones(2, 3, dtype=torch.bool)}))
    with pytest.raises(SpecError, match="a TensorDict with masks by key, got Tensor"):
        composite().rand(mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(SpecError, match="a TensorDict with masks by key, got Tensor"):
        composite().rand(mask=TensorDict({"arm": torch.ones(2, 3, dtype=torch.bool)}))
    with pytest.raises(SpecError, match="Bounded.rand: expected no mask"):
        composite().rand(mask=TensorDict({"arm": {"force": torch.ones(2, dtype=torch.bool)}}))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("spec", [Categorical(3, [2]), OneHot(3, [2, 3]), MultiCategorical([2, 1], [2, 2])])
def test_zeros_and_ones_of_any_dtype_are_a_mask(spec, dtype):
    mask = torch.tensor([[0, 1, 1], [1, 0, 1]])
    due, drawn = (
        spec.rand(mask=one, generator=torch.Generator().manual_seed(0)) for one in (mask.bool(), mask.to(dtype))
    )
    assert torch.equal(drawn, due)
