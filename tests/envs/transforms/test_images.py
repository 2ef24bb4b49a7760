"""Images by hand: grey, and of another size."""

import pytest
import torch
from PIL import Image

from cases.devices import DEVICES
from cases.transform_steps import specs
from cases.transform_worlds import camera, film
from torchrl.data.specs import Bounded, Unbounded
from torchrl.envs.transforms import Compose, GrayScale, Permute, Resize, TransformedEnv
from torchrl.errors import ConfigError, KeyMissing, SpecError


def test_grey_is_the_luma_and_bytes_are_rounded():
    colours = torch.tensor([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [10, 20, 30], [0, 0, 0]]])
    due = torch.tensor([[[76.245], [149.685], [29.07]], [[255.0], [18.15], [0.0]]])
    torch.testing.assert_close(GrayScale()(colours.float()), due)
    grey = GrayScale()(colours.to(torch.uint8))
    assert grey.dtype == torch.uint8 and grey.flatten().tolist() == [76, 150, 29, 255, 18, 0]
    many = colours.to(torch.uint8).expand(4, 5, 2, 3, 3)
    assert torch.equal(GrayScale()(many), grey.expand(4, 5, 2, 3, 1))


def test_what_is_shown_is_not_written_to():
    for value in (torch.rand(2, 3, 3), torch.randint(0, 256, (2, 3, 3), dtype=torch.uint8)):
        before = value.clone()
        GrayScale()(value), Resize(5)(value), Resize(2, 3)(value)
        assert torch.equal(value, before)


def test_an_image_of_half_the_size_weighs_by_a_triangle():
    rows = torch.tensor([0.0, 8.0, 16.0, 240.0]).reshape(4, 1, 1).expand(4, 4, 1)
    # New pixel 0 lies at 1.0 in old pixels, whose middles are 0.5, 1.5, 2.5: weights 3 : 3 : 1 (of a triangle 2 wide).
    due = torch.tensor([(0 * 3 + 8 * 3 + 16) / 7, (8 + 16 * 3 + 240 * 3) / 7])
    torch.testing.assert_close(Resize(2)(rows), due.reshape(2, 1, 1).expand(2, 2, 1))
    torch.testing.assert_close(Resize(4, 2)(rows.transpose(0, 1)), due.reshape(1, 2, 1).expand(4, 2, 1))
    assert (Resize(2)(rows.to(torch.uint8)).float() - due.reshape(2, 1, 1)).abs().max() <= 1


def test_no_new_size_is_no_change():
    for value in (torch.rand(3, 4, 2), torch.randint(0, 256, (3, 4, 3), dtype=torch.uint8)):
        torch.testing.assert_close(Resize(3, 4)(value), value)


@pytest.mark.parametrize("size", [(84, 84), (30, 50), (100, 200)])
def test_bytes_become_what_pillow_makes_of_them(size):
    images = torch.randint(0, 256, (2, 60, 90, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image, ours in zip(images, Resize(*size)(images), strict=True):
        theirs = Image.fromarray(image.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        theirs = torch.frombuffer(bytearray(theirs.tobytes()), dtype=torch.uint8).reshape(*size, 3)
        assert (ours.int() - theirs.int()).abs().max() <= 1
        assert (ours == theirs).float().mean() > 0.99


def test_bounds_follow():
    low, high = torch.zeros(1, 2, 3), torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    leaf = Bounded(low, high, (1, 2, 3))
    grey = GrayScale().transform_spec(leaf)
    assert grey.shape == (1, 2, 1) and grey.high.flatten().tolist() == pytest.approx([1.815, 4.815])
    small = Resize(1).transform_spec(leaf)
    assert small.shape == (1, 1, 3) and small.high.flatten().tolist() == pytest.approx([2.5, 3.5, 4.5])
    assert Resize(7).transform_spec(Unbounded((2, 3, 1))) == Unbounded((7, 7, 1))
    assert GrayScale().transform_spec(Bounded(0, 255, (2, 3, 3), torch.uint8)) == Bounded(
        0, 255, (2, 3, 1), torch.uint8
    )


def test_a_chain_from_a_picture_to_what_convolutions_take():
    env = TransformedEnv(film(2), Compose(Resize(4), GrayScale(), Permute((2, 0, 1), ["pixels"])))
    assert env.observation_spec["pixels"] == Bounded(0, 255, (2, 1, 4, 4), torch.uint8)
    raw = film(2)
    raw.set_seed(0), env.set_seed(0)
    due, got = raw.reset()["pixels"], env.reset()["pixels"]
    assert got.shape == (2, 1, 4, 4)
    assert torch.equal(GrayScale()(Resize(4)(due)).movedim(-1, 1), got)


@pytest.mark.parametrize(
    ("transform", "leaf", "message"),
    [
        (GrayScale(), Bounded(0, 255, (4, 5, 1), torch.uint8), r"GrayScale: .*images \[H, W, 3\] .*\[4, 5, 1\]"),
        (GrayScale(), Bounded(0, 255, (3, 4, 5), torch.uint8), r"Permute afterwards"),
        (Resize(3), Bounded(0, 255, (4, 5), torch.uint8), r"Resize: .*images \[H, W, C\] .*\[4, 5\]"),
        (Resize(3), Bounded(0, 255, (4, 5, 3), torch.int64), r"Resize: .*uint8, float32 or float64.*int64"),
        (Resize(3), Bounded(0, 1, (4, 5, 3), torch.float16), r"Resize: .*uint8, float32 or float64.*float16"),
    ],
)
def test_what_is_no_image_is_refused(transform, leaf, message):
    with pytest.raises(SpecError, match=message):
        transform.read_specs(specs(pixels=leaf))


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="Resize: expected at least one pixel each way"):
        Resize(4, 0)
    with pytest.raises(ConfigError, match="list of keys"):
        GrayScale("pixels")
    with pytest.raises(KeyMissing, match="pixels"):
        TransformedEnv(camera(1), Resize(3, in_keys=["pixel"]))


@pytest.mark.parametrize("device", DEVICES)
def test_devices_agree_to_one(device):
    image = torch.randint(0, 256, (2, 40, 60, 3), dtype=torch.uint8)
    for transform in (Resize(21), GrayScale(), Resize(90, 100)):
        ours = transform(image.to(device))
        assert ours.dtype == torch.uint8 and ours.device.type == device
        assert (ours.cpu().float() - transform(image.float())).abs().max() <= 1
