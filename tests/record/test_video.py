"""Films hold every picture that was added, play at their speed, and are whole or absent."""

import av
import numpy as np
import pytest
import torch

from torchrl.errors import ConfigError, MissingExtraError, SpecError
from torchrl.record import video_writer


def read(path):
    """Return the pictures ``[T, H, W, 3]`` and the pictures a second of a film."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        return pictures, float(stream.average_rate)


def grey(value, height=32, width=48):
    return np.full((height, width, 3), value, np.uint8)


def test_every_picture_is_there_in_order_at_its_speed(tmp_path):
    path = tmp_path / "deep" / "film.mp4"
    with video_writer(path, fps=20) as add:
        for step in range(11):
            add(grey(20 * step))
    pictures, fps = read(path)
    assert pictures.shape == (11, 32, 48, 3) and fps == 20
    np.testing.assert_allclose(pictures.mean((1, 2, 3)), 20 * np.arange(11), atol=4)
    assert [file.name for file in path.parent.iterdir()] == ["film.mp4"]


def test_colours_are_red_green_and_blue_and_tensors_do(tmp_path):
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    with video_writer(tmp_path / "film.mp4") as add:
        for colour in colours:
            add(colour.expand(64, 64, 3))
    pictures, _ = read(tmp_path / "film.mp4")
    assert pictures.mean((1, 2)).argmax(-1).tolist() == [0, 1, 2]


def test_odd_sizes_get_one_more_like_the_last(tmp_path):
    with video_writer(tmp_path / "film.mp4") as add:
        add(grey(100, 33, 47))
    pictures, _ = read(tmp_path / "film.mp4")
    assert pictures.shape == (1, 34, 48, 3) and abs(pictures.astype(int) - 100).max() <= 4


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([grey(0).astype(np.float32)], r"expected a picture, uint8 \[H, W, 3\], got float32"),
        ([grey(0)[..., :1]], r"expected a picture, uint8 \[H, W, 3\], got uint8 of shape \[32, 48, 1\]"),
        (
            [grey(0), grey(0, 34)],
            r"expected a picture, uint8 \[32, 48, 3\], .* the first, got .*\[34, 48, 3\]",
        ),
        ([], "expected at least one picture, got none"),
    ],
)
def test_what_is_no_film_is_refused_and_leaves_nothing(pictures, message, tmp_path):
    with pytest.raises(SpecError, match=f"^video_writer: {message}"), video_writer(tmp_path / "film.mp4") as add:
        for picture in pictures:
            add(picture)
    assert not list(tmp_path.iterdir())


def test_an_older_film_stays_where_the_new_one_fails(tmp_path):
    path = tmp_path / "film.mp4"
    with video_writer(path) as add:
        add(grey(50))
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), video_writer(path) as add:
        add(grey(60))
        raise ZeroDivisionError
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_bad_arguments_and_a_missing_package_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="fps of at least 1, got 0"), video_writer(tmp_path / "a.mp4", fps=0):
        pass
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"A video needs .*\[video\]"), video_writer(tmp_path / "a.mp4"):
        pass
