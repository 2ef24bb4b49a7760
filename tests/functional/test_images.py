"""Windows and colours of images: by hand, against torch's own padding and against Python's colorsys, and refusals."""

import colorsys

import pytest
import torch
from torch.nn import functional as F

from torchrl.errors import SpecError
from torchrl.functional import cut_images, jitter_colors

ROWS = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)  # 0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15


@pytest.mark.parametrize(
    "corner, seen",
    [
        ([0, 0], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]),
        ([1, 0], [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [12, 13, 14, 15]]),  # down: the last row repeats
        ([0, -2], [[0, 0, 0, 1], [4, 4, 4, 5], [8, 8, 8, 9], [12, 12, 12, 13]]),
        ([-1, 1], [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]]),
        ([9, 9], [[15] * 4] * 4),
    ],
)
def test_a_window_by_hand(corner, seen):
    assert cut_images(ROWS, torch.tensor([corner]), 4, 4).tolist() == [[seen]]


def test_a_small_window_by_hand():
    assert cut_images(ROWS, torch.tensor([[1, 2]]), 2, 2).tolist() == [[[[6, 7], [10, 11]]]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_each_row_has_its_own_window_and_all_its_frames_the_same(dtype):
    images = torch.randint(256, (5, 2, 3, 6, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    corners = torch.tensor([[-2, 2], [0, 0], [1, -1], [2, 2], [-2, -2]])
    cut = cut_images(images, corners, 6, 7)
    assert cut.dtype == dtype and cut.shape == images.shape
    padded = F.pad(images.double().view(5, 6, 6, 7), (2, 2, 2, 2), mode="replicate").view(5, 2, 3, 10, 11)
    for row, (top, left) in enumerate((corners + 2).tolist()):
        assert torch.equal(cut[row].double(), padded[row, ..., top : top + 6, left : left + 7])


def test_images_that_are_no_copy_of_their_own_are_cut_alike_and_no_row_is_fine():
    wide = torch.arange(48.0).view(2, 4, 6).transpose(1, 2)
    corners = torch.tensor([[1, 0], [0, 1]])
    assert torch.equal(cut_images(wide, corners, 6, 4), cut_images(wide.contiguous(), corners, 6, 4))
    assert cut_images(torch.zeros(0, 3, 4, 4), torch.zeros(0, 2, dtype=torch.long), 2, 2).shape == (0, 3, 2, 2)


def test_corners_that_are_not_one_per_row_are_refused():
    with pytest.raises(SpecError, match=r"corners \[N, 2\], got images \[1, 1, 4, 4\] and corners \[2, 2\]"):
        cut_images(ROWS, torch.zeros(2, 2, dtype=torch.long), 4, 4)


def color(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).view(1, 3, 1, 1)


def test_brightness_by_hand():
    assert jitter_colors(color(100, 200, 0, dtype=torch.uint8), brightness=torch.tensor([0.5])).flatten().tolist() == [
        50,
        100,
        0,
    ]
    assert jitter_colors(color(100, 200, 0, dtype=torch.uint8), brightness=torch.tensor([2.0])).flatten().tolist() == [
        200,
        255,
        0,
    ]


def test_contrast_by_hand():
    image = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2).expand(1, 3, 1, 2)  # two grey pixels, 0.4 in the mean
    torch.testing.assert_close(
        jitter_colors(image, contrast=torch.tensor([0.5]))[0, :, 0], torch.tensor([[0.3, 0.5]]).expand(3, 2)
    )
    assert jitter_colors(image, contrast=torch.tensor([9.0]))[0, 0, 0].tolist() == [0.0, 1.0]


def test_saturation_by_hand():
    grey = jitter_colors(color(1.0, 0.0, 0.0), saturation=torch.tensor([0.0])).flatten()
    torch.testing.assert_close(grey, torch.full((3,), 0.299))
    half = jitter_colors(color(0.0, 1.0, 0.0), saturation=torch.tensor([0.5])).flatten()
    torch.testing.assert_close(half, torch.tensor([0.2935, 0.7935, 0.2935]))


@pytest.mark.parametrize("turn", [-0.5, -0.21, 0.0, 0.13, 1 / 3, 0.5])
def test_hue_as_pythons_colorsys_turns_it(turn):
    images = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    images[0, :, 0, 0] = 0.5  # a grey
    images[0, :, 0, 1] = torch.tensor([0.0, 1.0, 1.0])
    images[0, :, 0, 2] = 0.0
    turned = jitter_colors(images, hue=torch.tensor([turn]))
    for pixel, result in zip(images[0].flatten(1).T.tolist(), turned[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        assert result == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=1e-5)


def test_rows_have_factors_of_their_own_and_stacked_frames_share_them():
    frames = torch.full((2, 6, 2, 2), 0.5)
    darker = jitter_colors(frames, brightness=torch.tensor([0.5, 1.0]), hue=torch.tensor([0.2, 0.1]))
    assert darker[0].unique().tolist() == [0.25] and darker[1].unique().tolist() == [0.5]
    slices = jitter_colors(frames.view(2, 1, 6, 2, 2), brightness=torch.tensor([0.5, 1.0]))
    assert slices.shape == (2, 1, 6, 2, 2) and slices[0].unique().tolist() == [0.25]


def test_nothing_to_change_returns_equal_images():
    pixels = torch.randint(256, (3, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    ones, zeros = torch.ones(3), torch.zeros(3)
    assert torch.equal(jitter_colors(pixels, brightness=ones, contrast=ones, saturation=ones, hue=zeros), pixels)


@pytest.mark.parametrize(
    "images, options, message",
    [
        (torch.zeros(2, 4, 3, 3), {}, r"3 k, H, W\] of uint8 or floats, got \[2, 4, 3, 3\].*--no-grayscale"),
        (torch.zeros(2, 3, 3, 3, dtype=torch.int64), {}, "got .*int64"),
        (torch.zeros(2, 3, 3, 3), {"hue": torch.zeros(1)}, r"hue of shape \[2\], got \[1\]"),
    ],
)
def test_other_images_or_factors_are_refused(images, options, message):
    with pytest.raises(SpecError, match=message):
        jitter_colors(images, **options)
