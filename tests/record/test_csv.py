"""The table of a run: what it holds, and that no moment leaves a torn one."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes import wait_until
from torchrl.errors import ConfigError, SpecError, TorchRLError
from torchrl.record import CSVLogger, TensorBoardLogger, read_csv

ROOT = Path(__file__).resolve().parents[2]


def test_rows_are_written_as_they_come(tmp_path):
    logger = CSVLogger(tmp_path / "run")
    logger.log_scalars({"loss/a": torch.tensor(0.5), "eval/b": np.float64(1e-7)}, 256)
    assert (tmp_path / "run" / "progress.csv").read_text() == "frames,loss/a,eval/b\n256,0.5,1e-07\n"
    logger.log_scalars({"loss/a": 2}, 512)
    assert (tmp_path / "run" / "progress.csv").read_text().splitlines()[2] == "512,2.0,"
    logger.close()
    logger.close()


def test_a_metric_that_comes_later_gets_a_column(tmp_path):
    with CSVLogger(tmp_path) as logger:
        logger.log_scalars({"a": 1}, 1)
        logger.log_scalars({"b, the second": 2}, 2)
        logger.log_scalars({"a": 3, "c": math.nan}, 3)
    table = read_csv(logger.path)
    assert list(table) == ["frames", "a", "b, the second", "c"]
    np.testing.assert_equal(table["frames"], [1, 2, 3])
    np.testing.assert_equal(table["a"], [1, math.nan, 3])
    np.testing.assert_equal(table["b, the second"], [math.nan, 2, math.nan])
    assert os.listdir(tmp_path) == ["progress.csv"]


def test_every_float_comes_back_as_it_was(tmp_path):
    values = [0.1 + 0.2, 1e300, -5e-324, math.inf]
    with CSVLogger(tmp_path) as logger:
        for step, value in enumerate(values):
            logger.log_scalars({"a": value}, step)
    assert read_csv(logger.path)["a"] == values


def test_a_line_that_was_cut_short_is_left_out_and_overwritten(tmp_path):
    with CSVLogger(tmp_path) as logger:
        logger.log_scalars({"a": 1.5}, 100)
        logger.log_scalars({"a": 2.5}, 200)
    logger.path.write_text(logger.path.read_text()[:-3])  # "200,2" would look like a row
    assert read_csv(logger.path)["frames"] == [100]
    with CSVLogger(tmp_path) as logger:
        logger.log_scalars({"a": 3.5}, 200)
    assert logger.path.read_text() == "frames,a\n100,1.5\n200,3.5\n"


def test_a_killed_process_leaves_complete_rows(tmp_path):
    script = (
        "import sys; from torchrl.record import CSVLogger\n"
        "logger = CSVLogger(sys.argv[1])\n"
        "for step in range(10**9):\n"
        "    logger.log_scalars({f'metric/{step // 50}': step, 'always': step}, step)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    try:
        wait_until((tmp_path / "progress.csv").exists)
        wait_until(lambda: len(read_csv(tmp_path / "progress.csv")["always"]) > 200)  # every reading must succeed
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    table = read_csv(tmp_path / "progress.csv")
    assert len(table["always"]) > 200
    assert table["always"] == table["frames"] == list(range(len(table["frames"])))


@pytest.mark.parametrize("value", [[1.0], "high", None, np.zeros(2), torch.zeros(3)])
def test_what_is_not_one_number_is_refused_and_nothing_written(tmp_path, value):
    logger = CSVLogger(tmp_path)
    with pytest.raises(SpecError, match="metric 'loss/a': expected one number, got"):
        logger.log_scalars({"loss/a": value}, 1)
    assert not logger.path.exists()


def test_a_metric_may_not_take_the_column_of_the_step(tmp_path):
    with pytest.raises(SpecError, match="'frames'"):
        CSVLogger(tmp_path).log_scalars({"frames": 1}, 1)


def test_another_table_of_that_name_is_not_touched(tmp_path):
    (tmp_path / "progress.csv").write_text("epoch,a\n1,2\n")
    with pytest.raises(TorchRLError, match="whose first column is frames"):
        CSVLogger(tmp_path)
    assert (tmp_path / "progress.csv").read_text() == "epoch,a\n1,2\n"


def test_texts_become_files(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_text("run/config", "lr = 1\n", 0)
    assert (tmp_path / "run_config.txt").read_text() == "lr = 1\n"


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="progress.csv"):
        read_csv(tmp_path / "progress.csv")


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path, kind):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=f"{kind.__name__}: expected a folder that can be written to, got .*file"):
            kind(folder)
