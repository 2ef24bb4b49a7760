"""Which loggers a command makes, and which of them may fail."""

import pytest

from cases.examples import settings_of
from torchrl.errors import ConfigError
from torchrl.recipes import Recording
from torchrl.recipes.config import make_parser
from torchrl.recipes.loggers import make_logger
from torchrl.recipes.sense import remarks
from torchrl.record import CSVLogger, JSONLinesLogger, read_csv, read_json_lines


@pytest.mark.parametrize(
    "flags", [["--loggers=csv,jsonlines"], ["--loggers", "csv", "jsonlines"], ["--loggers", "csv,jsonlines"]]
)
def test_loggers_are_named_with_commas_or_spaces(flags):
    assert settings_of("ppo", *flags).recording.loggers == ("csv", "jsonlines")


def test_a_list_of_words_in_a_config_file_has_commas_or_spaces(tmp_path):
    for text in ("a b", "a,b"):
        parser = make_parser("Test.")
        parser.add_argument("--words", nargs="*", choices=("a", "b", "c"), default=["c"], help="words")
        (tmp_path / "config.txt").write_text(f"words = {text}\n")
        assert parser.parse_args([f"--config={tmp_path / 'config.txt'}"]).words == ["a", "b"]
        assert parser.parse_args([]).words == ["c"] and parser.parse_args(["--words"]).words == []
    with pytest.raises(ConfigError, match=r"--words: invalid choice: 'd' \(choose from 'a', 'b', 'c'\)"):
        parser.parse_args(["--words=a,d"])


def test_a_flag_of_a_tracker_that_is_not_there_has_no_effect():
    for flags, expected in ([("--loggers=csv",), 1], [("--loggers=csv,wandb",), 0]):
        flags = (*flags, "--wandb_mode=online")
        said = [line for line in remarks(settings_of("ppo", *flags), flags) if "wandb" in line]
        assert said == ["no effect: --wandb_mode, which needs --loggers=wandb"] * expected


def test_a_run_goes_on_without_a_tracker_and_not_without_its_table(tmp_path, monkeypatch):
    def full(self, metrics, step):
        raise OSError("disk full")

    log_scalars = JSONLinesLogger.log_scalars
    monkeypatch.setattr(JSONLinesLogger, "log_scalars", full)
    with make_logger(Recording(loggers=("jsonlines", "csv")), tmp_path) as logger:
        with pytest.warns(UserWarning, match="jsonlines: log_scalars failed with OSError: disk full. The run goes on"):
            logger.log_scalars({"loss": 1.0}, 1)
        monkeypatch.setattr(JSONLinesLogger, "log_scalars", log_scalars)
        logger.log_scalars({"loss": 2.0}, 2)
        monkeypatch.setattr(CSVLogger, "log_scalars", full)
        with pytest.raises(OSError, match="disk full"):
            logger.log_scalars({"loss": 3.0}, 3)
    assert read_csv(tmp_path / "progress.csv")["loss"] == [1.0, 2.0]
    assert [line["frames"] for line in read_json_lines(tmp_path / "progress.jsonl")] == [2, 3]
