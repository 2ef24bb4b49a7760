"""Event files, read back by TensorBoard itself."""

import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from torchrl.errors import SpecError
from torchrl.record import TensorBoardLogger

ROOT = Path(__file__).resolve().parents[2]


def read(folder) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def scalars(folder, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(name)]


def test_numbers_are_there_before_the_logger_is_closed(tmp_path):
    logger = TensorBoardLogger(tmp_path / "run")
    logger.log_scalars({"loss/a": 0.5, "eval/b": 3}, 256)
    logger.log_scalars({"loss/a": math.inf}, 10_000_000_000)
    assert scalars(tmp_path / "run", "loss/a") == [(256, 0.5), (10_000_000_000, math.inf)]
    assert scalars(tmp_path / "run", "eval/b") == [(256, 3.0)]
    logger.close()
    logger.close()


def test_a_text_is_shown_as_one(tmp_path):
    with TensorBoardLogger(tmp_path) as logger:
        logger.log_text("config", "lr = 1 µ", 7)
    events = read(tmp_path)
    assert [metadata.plugin_data.plugin_name for metadata in [events.SummaryMetadata("config")]] == ["text"]
    (event,) = events.Tensors("config")
    assert event.step == 7
    assert make_ndarray(event.tensor_proto).item().decode() == "lr = 1 µ"


def test_a_record_cut_short_hides_no_earlier_one(tmp_path):
    with TensorBoardLogger(tmp_path) as logger:
        logger.log_scalars({"a": 1}, 1)
        logger.log_scalars({"a": 2}, 2)
    logger.path.write_bytes(logger.path.read_bytes()[:-5])
    assert scalars(tmp_path, "a") == [(1, 1.0)]


def test_two_loggers_of_one_folder_write_two_files(tmp_path):
    for step in (1, 2):
        with TensorBoardLogger(tmp_path) as logger:
            logger.log_scalars({"a": step}, step)
    assert len(list(tmp_path.iterdir())) == 2
    assert scalars(tmp_path, "a") == [(1, 1.0), (2, 2.0)]


def test_it_starts_no_thread(tmp_path):
    before = threading.active_count()
    with TensorBoardLogger(tmp_path) as logger:
        logger.log_scalars({"a": 1}, 1)
        assert threading.active_count() == before


def test_what_is_not_one_number_is_refused(tmp_path):
    with TensorBoardLogger(tmp_path) as logger, pytest.raises(SpecError, match="TensorBoardLogger: metric 'a'"):
        logger.log_scalars({"a": [1, 2]}, 1)


def test_importing_the_folder_loads_no_sink_library():
    script = (
        "import sys, torchrl.record\n"
        "print(sorted({'tensorboard', 'matplotlib', 'torch', 'tensorflow'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
