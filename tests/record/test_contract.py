"""What every logger keeps: the same calls go to each of them, and come back by the reader of its format."""

import io
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cases.records import KINDS, MAKERS
from torchrl.errors import MissingExtraError, SpecError
from torchrl.record import MLflowLogger, WandbLogger

PICTURE = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
CONFIG = {"lr": 0.001, "num_cells": [64, 64], "target_kl": None, "norm": True, "name": "a b"}
SUMMARY = {"env": "CartPole-v1", "eval_return_mean": 497.25, "frames": 128}
SCALARS = {
    "loss/a": [(128, 0.1 + 0.2), (256, 1e-30)],
    "eval/b": [(64, 3.0)],  # of an evaluation that ended later than it began
    "not_a_number": [(256, math.nan)],
    "infinite": [(256, math.inf)],
}
# What a format has no form for; docs/concepts/records.md shows the same as a table.
LEAVES_OUT = {
    "csv": {"histograms", "pictures", "videos"},
    "tensorboard": {"videos"},
    "mlflow": {"histograms"},
}


@pytest.fixture(scope="module", params=KINDS)
def record(request, tmp_path_factory):
    """What one logger has kept of calls of every kind, and its name; written and read once."""
    kind = request.param
    make, read = MAKERS[kind]
    folder = tmp_path_factory.mktemp("records")
    film = folder / "film.mp4"
    film.write_bytes(b"a film")
    with make(folder / kind) as logger:
        logger.log_config(CONFIG)
        logger.log_scalars({"loss/a": torch.tensor(0.1 + 0.2, dtype=torch.float64)}, 128)
        logger.log_scalars({"eval/b": 3}, 64)
        logger.log_scalars({"loss/a": np.float64(1e-30), "not_a_number": math.nan, "infinite": math.inf}, 256)
        logger.log_text("notes", "all is *well*, 1 µ\n", 128)
        logger.log_histogram("weights", torch.tensor([[0.0, 0.0], [0.5, 30.0]], requires_grad=True), 128)
        logger.log_picture("first", torch.from_numpy(PICTURE), 128)
        logger.log_video("eval/film", film, 128)
        logger.log_summary(SUMMARY, 256)
        for mistake in ({"a": [1, 2]}, {"frames": 1}):
            with pytest.raises(SpecError, match=f"{make.__name__}.*(one number|no metric named 'frames')"):
                logger.log_scalars(mistake, 512)
    logger.close()
    return kind, read(folder / kind)


def test_numbers_come_back_as_they_were(record):
    kind, read = record
    expected = {name: list(points) for name, points in SCALARS.items()}
    if kind == "mlflow":  # whose database has no infinity
        expected["infinite"] = [(256, sys.float_info.max)]
    to = np.float32 if kind == "tensorboard" else float
    expected = {name: [(step, float(to(value))) for step, value in points] for name, points in expected.items()}
    np.testing.assert_equal(dict(read.scalars), expected)


def test_settings_texts_and_results_come_back(record):
    _, read = record
    assert read.config == {name: str(value) for name, value in CONFIG.items()}
    assert read.texts == {"notes": "all is *well*, 1 µ\n"}
    assert {name: str(read.summary[name]) for name in SUMMARY} == {name: str(value) for name, value in SUMMARY.items()}


def test_of_histograms_pictures_and_films_each_keeps_what_it_has_a_form_for(record):
    kind, read = record
    kept = {name for name in ("histograms", "pictures", "videos") if getattr(read, name)}
    assert kept == {"histograms", "pictures", "videos"} - LEAVES_OUT.get(kind, set())
    if read.histograms:
        (counts,) = read.histograms.values()
        assert len(counts) == 30 and {at: count for at, count in enumerate(counts) if count} == {0: 3, 29: 1}
    if read.pictures:
        (png,) = read.pictures.values()
        np.testing.assert_array_equal(pixels_of(png), PICTURE)
    if read.videos:
        assert read.videos == {"eval/film": b"a film"}


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("kind", ["jsonlines", "tensorboard"])
def test_what_is_no_picture_and_no_distribution_is_refused(kind, tmp_path):
    make, _ = MAKERS[kind]
    with make(tmp_path) as logger:
        for picture in (PICTURE / 255.0, PICTURE[..., :2], PICTURE[0]):
            with pytest.raises(SpecError, match=r"log_picture: expected a picture, uint8 \[H, W, 3\]"):
                logger.log_picture("a", picture, 1)
        for values in ([], [1.0, math.nan]):
            with pytest.raises(SpecError, match="log_histogram: expected finite numbers, at least one"):
                logger.log_histogram("a", np.array(values), 1)


@pytest.mark.parametrize(("make", "library"), [(WandbLogger, "wandb"), (MLflowLogger, "sqlalchemy")])
def test_without_its_library_it_says_which_extra_is_missing(make, library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"\[(wandb|mlflow)\]"):
        make(tmp_path)
