"""Lines of JSON: whole ones only, readable while they are written, and nothing that JSON does not know."""

import json
import math

import pytest

from torchrl.errors import TorchRLError
from torchrl.record import JSONLinesLogger, read_json_lines


def test_a_line_is_there_before_the_logger_is_closed_and_is_plain_json(tmp_path):
    logger = JSONLinesLogger(tmp_path)
    logger.log_scalars({"a": math.nan, "b": -math.inf, "c": 0.1}, 128)

    def refuse(name):
        raise AssertionError(name)

    (line,) = logger.path.read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {"frames": 128, "scalars": {"a": "nan", "b": "-inf", "c": 0.1}}
    (first,) = read_json_lines(logger.path)
    assert math.isnan(first["scalars"]["a"]) and first["scalars"]["b"] == -math.inf
    logger.close()
    logger.close()


def test_a_line_that_was_cut_short_is_left_out_and_overwritten(tmp_path):
    with JSONLinesLogger(tmp_path) as logger:
        logger.log_scalars({"a": 1.0}, 1)
        logger.log_scalars({"a": 2.0}, 2)
    logger.path.write_bytes(logger.path.read_bytes()[:-2])
    assert [line["frames"] for line in read_json_lines(logger.path)] == [1]
    with JSONLinesLogger(tmp_path) as logger:
        logger.log_scalars({"a": 3.0}, 3)
    assert [line["frames"] for line in read_json_lines(logger.path)] == [1, 3]


def test_what_json_has_no_form_for_becomes_text(tmp_path):
    with JSONLinesLogger(tmp_path) as logger:
        logger.log_config({"path": tmp_path, "sizes": (1, 2), "inside": {"x": math.inf}, "none": None})
    expected = {"path": str(tmp_path), "sizes": [1, 2], "inside": {"x": "inf"}, "none": None}
    assert read_json_lines(logger.path) == [{"frames": 0, "config": expected}]


def test_a_film_is_named_from_the_folder_on(tmp_path):
    with JSONLinesLogger(tmp_path / "run") as logger:
        logger.log_video("eval/film", tmp_path / "run" / "videos" / "1.mp4", 1)
    assert read_json_lines(logger.path)[0]["video"] == {"name": "eval/film", "path": "videos/1.mp4"}


@pytest.mark.parametrize("line", ["{", "[]", '{"frames": 1, "scalars": {"a": "high"}}'])
def test_a_file_of_another_kind_is_refused(tmp_path, line):
    (tmp_path / "other.jsonl").write_text(line + "\n")
    with pytest.raises(TorchRLError, match="read_json_lines: expected a JSON object in every line"):
        read_json_lines(tmp_path / "other.jsonl")
