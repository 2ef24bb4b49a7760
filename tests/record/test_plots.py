"""Pictures of a run."""

import math
import struct
import sys

import numpy as np
import pytest

from torchrl.errors import KeyMissing, MissingExtraError
from torchrl.record import CSVLogger, bootstrap_interval, group_curves, learning_curve, spread_curve
from torchrl.record.plots import latest_points, running_mean, spread_of


@pytest.fixture
def table(tmp_path):
    with CSVLogger(tmp_path) as logger:
        for step in range(200):
            logger.log_scalars({"train/episode_return": step % 17, "loss/a": math.nan}, step * 256)
            if step % 50 == 0:
                logger.log_scalars({"eval/return_mean": step, "eval/return_std": 5.0}, step * 256)
    return logger.path


def size_of(png) -> tuple[int, int]:
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def test_by_default_the_returns_are_drawn_one_panel_each(table, tmp_path):
    pytest.importorskip("matplotlib")
    learning_curve(table, tmp_path / "both.png", title="CartPole-v1")
    learning_curve(table, tmp_path / "one.png", ["train/episode_return"])
    assert size_of(tmp_path / "both.png")[0] == size_of(tmp_path / "one.png")[0] == 1080
    assert size_of(tmp_path / "both.png")[1] > 1.5 * size_of(tmp_path / "one.png")[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.png", "one.png", "progress.csv"]


def test_drawing_touches_no_global_state_of_matplotlib(table, tmp_path):
    pytest.importorskip("matplotlib")
    loaded = "matplotlib.pyplot" in sys.modules
    learning_curve(table, tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_the_suffix_chooses_the_format(table, tmp_path):
    pytest.importorskip("matplotlib")
    learning_curve(table, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_a_metric_without_any_number_is_an_empty_panel(table, tmp_path):
    pytest.importorskip("matplotlib")
    learning_curve(table, tmp_path / "a.png", ["loss/a"])
    assert size_of(tmp_path / "a.png")


def test_a_metric_that_is_not_there_names_the_nearest(table, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(KeyMissing, match="expected the metric 'eval/return_men'.*Did you mean 'eval/return_mean'"):
        learning_curve(table, tmp_path / "a.png", ["eval/return_men"])
    assert not (tmp_path / "a.png").exists()


def test_without_matplotlib_it_says_which_extra_is_missing(table, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"\[plots\]"):
        learning_curve(table, tmp_path / "a.png")


def test_of_repeated_frames_the_later_rows_count():
    frames, values = latest_points([1, 2, 3, 2, 3, 4], [10.0, 20.0, 30.0, 21.0, math.nan, 41.0])
    assert (frames, values) == ([1, 2, 4], [10.0, 21.0, 41.0])


def test_the_running_mean_starts_with_what_there_is():
    assert running_mean([2.0, 4.0, 6.0, 9.0], 3) == pytest.approx([2.0, 3.0, 4.0, 19 / 3])
    assert running_mean([1.0, 2.0], 1) == [1.0, 2.0]
    assert running_mean([], 3) == []


def test_the_spread_of_runs_is_over_those_that_have_come_so_far():
    runs = [([0, 10, 20], [0.0, 10.0, 20.0]), ([0, 10], [4.0, 14.0]), ([], [])]
    frames, mean, low, high, number = spread_of(runs)
    assert frames.tolist() == [0, 10, 20] and mean.tolist() == [2, 12, 20] and number.tolist() == [2, 2, 1]
    assert low[:2].tolist() == [0, 10] and high[:2].tolist() == [4, 14]  # of two values, each drawn alone
    assert np.isnan([low[2], high[2]]).all()
    many = [(range(1000), np.arange(1000.0) + seed) for seed in range(3)]
    frames, mean, low, high, _ = spread_of(many, max_points=11)
    assert len(frames) == 11 and (frames[0], frames[-1]) == (0, 999) and np.allclose(mean, frames + 1)
    assert np.allclose([low[5], high[5]], bootstrap_interval(frames[5] + np.arange(3.0)))


def test_groups_are_drawn_and_returned(tmp_path):
    tables = {}
    for lr, offset in (("1e-3", 0.0), ("1e-4", 10.0)):
        for seed in (0, 1):
            with CSVLogger(tmp_path / lr / str(seed)) as logger:
                for step in (64, 128):
                    logger.log_scalars({"loss": step + seed + offset, "time/seconds": step / 64}, step=step)
        tables[lr] = [tmp_path / lr / str(seed) / "progress.csv" for seed in (0, 1)]
    drawn = group_curves({"Cart": tables}, tmp_path / "a.svg", "loss", x="time/seconds", title="two rates")
    first = {"task": "Cart", "group": "1e-3", "time/seconds": 1.0, "mean": 64.5, "low": 64.0, "high": 65.0, "runs": 2}
    assert drawn[0] == first and drawn[2]["group"] == "1e-4" and drawn[3]["mean"] == 138.5
    picture = (tmp_path / "a.svg").read_text()
    assert "svg" in picture[:200]
    many = {str(number): tables["1e-3"] for number in range(6)}  # more than there are colours
    group_curves({"Cart": many}, tmp_path / "many.svg", "loss")
    assert (tmp_path / "many.svg").read_text().count("stroke-dasharray") > picture.count("stroke-dasharray")
    with pytest.raises(KeyMissing, match="Did you mean 'loss'"):
        group_curves({"Cart": tables}, tmp_path / "b.svg", "los")


def test_a_table_without_the_metric_is_named(tmp_path):
    for seed in (0, 1):
        with CSVLogger(tmp_path / str(seed)) as logger:
            logger.log_scalars({"eval/return_mean": 1.0}, step=1)
    tables = [tmp_path / str(seed) / "progress.csv" for seed in (0, 1)]
    spread_curve(tables, tmp_path / "curves.svg", title="two seeds")
    assert "svg" in (tmp_path / "curves.svg").read_text()[:200]
    with pytest.raises(KeyMissing, match="Did you mean 'eval/return_mean'"):
        spread_curve(tables, tmp_path / "curves.png", ["eval/return_men"])
