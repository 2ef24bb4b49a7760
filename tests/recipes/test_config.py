"""Flags and config files: what a user may write, and what every mistake says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from torchrl.errors import ConfigError
from torchrl.recipes import config, value_types
from torchrl.recipes.config_file import read_entries

ROOT = Path(__file__).resolve().parents[2]


def make_parser() -> config.ConfigParser:
    parser = config.make_parser("Train something.")
    group = parser.add_argument_group("learner")
    group.add_argument("--lr", type=value_types.positive_float, default=3e-4, help="learning rate")
    group.add_argument("--gamma", type=value_types.fraction, default=0.99, help="discount")
    group.add_argument("--num_cells", type=value_types.positive_int, nargs="+", default=(64, 64), help="hidden units")
    group.add_argument(
        "--shifts", type=value_types.real, nargs="*", default=[], help="added to the rewards, 100% optional"
    )
    group.add_switch("--norm", default=False, help="normalise")
    group.add_switch("--shared", default=True, help="share")
    run = parser.add_argument_group("run")
    run.add_argument("--name", default="run", help="name of the run")
    run.add_argument("--distance", choices=("l1", "l2"), default="l2", help="of the critic")
    run.add_argument("--collection_devices", nargs="+", default=["cpu"], help="devices")
    run.add_argument("--max_steps", type=value_types.positive_int, default=None, help="limit of an episode")
    return parser


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "task.txt"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def parse(*flags: str):
    return make_parser().parse_args(flags)


def mistake(*flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*flags)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestSources:
    def test_without_flags_the_defaults_hold(self):
        args = parse()
        assert (args.lr, args.num_cells, args.norm, args.shared, args.max_steps) == (3e-4, [64, 64], False, True, None)

    def test_a_file_overrides_defaults_and_flags_override_the_file(self, write):
        path = write("# reaches 1\nlr = 1e-3\ngamma = 0.5\nname = of the file  # a comment\nmax_steps = 7\n")
        args = parse(f"--config={path}", "--gamma=0.25", "--max_steps=none")
        assert (args.lr, args.gamma, args.name, args.max_steps, args.config) == (1e-3, 0.25, "of the file", None, path)
        assert parse("--gamma", "0.25", "-c", path).gamma == 0.25

    def test_switches_can_be_set_in_a_file_and_undone_by_a_flag(self, write):
        path = write("norm = true\nshared = false\n")
        args = parse("--config", path)
        assert (args.norm, args.shared) == (True, False)
        args = parse("--config", path, "--no-norm", "--shared")
        assert (args.norm, args.shared) == (False, True)

    def test_a_list_of_the_command_line_replaces_that_of_the_file(self, write):
        path = write("collection_devices = cpu cuda:0\nnum_cells = 256 256\nshifts = -1e-3 2\n")
        args = parse("--config", path, "--collection_devices=cuda:1")
        assert args.collection_devices == ["cuda:1"]
        assert args.num_cells == [256, 256]
        assert args.shifts == [-1e-3, 2.0]
        assert parse("--collection_devices", "cpu", "cuda:0").collection_devices == ["cpu", "cuda:0"]

    def test_a_negative_number_in_scientific_form_is_a_value(self):
        assert parse("--shifts", "-1e-3", "-2").shifts == [-1e-3, -2.0]

    def test_the_environment_is_not_read(self, monkeypatch):
        parser = make_parser()
        parser.add_argument("--depth", type=int, default=1, help="depth", env_var="DEPTH")
        monkeypatch.setenv("DEPTH", "5")
        monkeypatch.setenv("LR", "5")
        args = parser.parse_args([])
        assert (args.depth, args.lr) == (1, 3e-4)


class TestMistakes:
    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--gama=0.5"], ["command line", "--gama", "Did you mean --gamma?"]),
            (["--gam", "0.5"], ["--gam.", "Did you mean --gamma?"]),
            (["--no-nrm"], ["--no-nrm", "Did you mean --no-norm?"]),
            (["--collection-devices=cpu"], ["--collection-devices", "Did you mean --collection_devices?"]),
            (["--qqq"], ["--qqq", "--help lists them"]),
            (["0.5"], ["'0.5'", "--name=value"]),
            (["--lr=abc"], ["command line", "--lr", "'abc'", "a number"]),
            (["--lr=0"], ["--lr", "'0'", "above 0"]),
            (["--lr=nan"], ["--lr", "'nan'", "finite"]),
            (["--gamma=1.5"], ["--gamma", "'1.5'", "from 0 to 1"]),
            (["--num_cells", "64", "6.5"], ["--num_cells", "'6.5'", "whole number"]),
            (["--max_steps=0"], ["--max_steps", "'0'", "at least 1"]),
            (["--lr=none"], ["--lr", "'none'"]),
            (["--distance=l3"], ["--distance", "'l3'", "l1"]),
            (["--norm=true"], ["--norm", "takes no value"]),
            (["--lr"], ["--lr", "expected one argument"]),
            (["--config"], ["--config", "expected one argument"]),
            (["-c", "a.txt", "--config=b.txt"], ["one --config", "a.txt and b.txt"]),
        ],
    )
    def test_a_mistake_on_the_command_line_says(self, flags, words):
        message = mistake(*flags)
        assert not [word for word in words if word not in message], message

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("gama = 0.5", ["'gama'", "Did you mean 'gamma'?"]),
            ("lr = abc", ["lr", "'abc'"]),
            ("lr = 1 2", ["lr", "'1 2'"]),
            ("num_cells = 64 x", ["num_cells", "'x'"]),
            ("distance = l3", ["distance", "'l3'"]),
            ("norm = yes", ["norm", "norm = yes", "norm = true or norm = false"]),
            ("no-norm = true", ["'no-norm'"]),
            ("config = b.txt", ["'config'"]),
            ("help = true", ["'help'"]),
            ("--lr = 1", ["'--lr'", "Did you mean 'lr'?"]),
            ("collection_devices = cpu --lr=3", ["collection_devices", "'--lr=3'"]),
        ],
    )
    @pytest.mark.parametrize("overridden", [False, True])
    def test_a_mistake_in_a_file_says_where_even_if_a_flag_overrides_it(self, write, line, words, overridden):
        path = write(f"# head\n\n{line}\n")
        message = mistake(f"--config={path}", *(["--lr=1", "--norm", "--distance=l1"] if overridden else []))
        assert message.startswith(f"{path}, line 3: ")
        assert not [word for word in words if word not in message], message

    def test_a_repeated_key_names_both_lines(self, write):
        path = write("lr = 1\nlr = 1\n")
        assert re.search("line 2: .*line 1", mistake("--config", path))

    def test_a_missing_file_is_one_message_that_names_the_nearest(self, write):
        path = write("lr = 1\n")
        message = mistake("--config", path.replace("task.txt", "taks.txt"))
        assert "expected a file that exists" in message
        assert message.endswith(f"Did you mean {path}?")
        assert "expected a file that exists" in mistake("--config=/no/such/folder/a.txt")

    def test_bytes_and_folders_are_no_config_files(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"lr = \xff\xfe\n")
        assert "UTF-8" in mistake(f"--config={tmp_path / 'a.txt'}")
        assert "expected a file" in mistake(f"--config={tmp_path}")


class TestHelp:
    def test_it_shows_group_meaning_and_default_of_every_flag(self):
        text = " ".join(make_parser().format_help().split())
        assert "learner:" in text
        assert "run:" in text
        for words in (
            "--lr X learning rate (default: 0.0003)",
            "--num_cells X [X ...] hidden units (default: 64 64)",
            "--norm, --no-norm normalise (default: false)",
            "--max_steps X limit of an episode (default: none)",
            "100% optional (default: [])",
        ):
            assert words in text
        assert text.count("(default: ") == 10 + 1  # the flags and --config

    def test_it_is_printed_even_if_the_file_is_missing(self, capsys):
        with pytest.raises(SystemExit) as caught:
            parse("--config=missing.txt", "--help")
        assert caught.value.code == 0
        assert "Train something." in capsys.readouterr().out

    def test_none_is_taken_beside_another_default_where_the_flag_says_so(self):
        parser = config.ConfigParser("Test.")
        parser.add_argument("--max_grad_norm", type=value_types.positive_float, default=0.5, or_none=True, help="limit")
        parser.add_argument("--max_grad_value", type=value_types.positive_float, help="limit")
        assert parser.parse_args([]).max_grad_norm == 0.5
        assert parser.parse_args(["--max_grad_norm=none", "--max_grad_value=1"]).max_grad_norm is None
        assert parser.parse_args(["--max_grad_norm=2"]).max_grad_norm == 2.0

    def test_a_flag_without_a_meaning_is_a_defect(self):
        with pytest.raises(TypeError, match="--lr: expected a help text"):
            config.make_parser("").add_argument("--lr", default=1)


class TestSavedConfig:
    def test_it_gives_the_same_configuration_back(self, tmp_path):
        args = parse("--lr=1e-5", "--name= # odd\n", "--norm", "--no-shared", "--shifts", "-1", "--num_cells", "3", "4")
        path = tmp_path / "logs" / "config.txt"
        config.save_config(args, path, comment="from a test")
        assert path.read_text().startswith("# from a test\n")
        again = config.load_config(make_parser(), path)
        assert again.config == str(path)
        assert {**vars(again), "config": None} == vars(args)

    def test_flags_go_before_it(self, tmp_path):
        config.save_config(parse("--lr=1e-5", "--gamma=0.5"), tmp_path / "config.txt")
        again = config.load_config(make_parser(), tmp_path / "config.txt", ["--lr=1"])
        assert (again.lr, again.gamma) == (1.0, 0.5)

    def test_a_value_that_cannot_be_written_leaves_the_old_file(self, tmp_path):
        args = parse()
        config.save_config(args, tmp_path / "config.txt")
        before = (tmp_path / "config.txt").read_text()
        args.name = object()
        with pytest.raises(TypeError):
            config.save_config(args, tmp_path / "config.txt")
        assert (tmp_path / "config.txt").read_text() == before
        assert os.listdir(tmp_path) == ["config.txt"]


class TestTypes:
    @pytest.mark.parametrize(
        ("convert", "text", "value"),
        [
            (value_types.integer, "1_000", 1000),
            (value_types.integer, "1e6", 1_000_000),
            (value_types.integer, "-3", -3),
            (value_types.non_negative_int, "0", 0),
            (value_types.non_negative_float, "0", 0.0),
            (value_types.fraction, "1", 1.0),
            (value_types.real, "-1e-3", -1e-3),
        ],
    )
    def test_they_read(self, convert, text, value):
        assert convert(text) == value
        assert type(convert(text)) is type(value)

    @pytest.mark.parametrize(
        ("convert", "text"),
        [
            (value_types.integer, "1.5"),
            (value_types.integer, "1e-1"),
            (value_types.integer, "inf"),
            (value_types.positive_int, "0"),
            (value_types.non_negative_int, "-1"),
            (value_types.real, "inf"),
            (value_types.positive_float, "0"),
            (value_types.non_negative_float, "-0.1"),
            (value_types.fraction, "1.01"),
            (value_types.fraction, "nan"),
        ],
    )
    def test_they_refuse(self, convert, text):
        with pytest.raises(config.argparse.ArgumentTypeError, match=re.escape(f"got {text!r}")):
            convert(text)


class TestDefaultOf:
    class Part:
        def __init__(self, size, *, gamma=0.9):
            pass

    def test_it_reads_the_signature(self):
        assert value_types.default_of(self.Part, "gamma") == 0.9

    @pytest.mark.parametrize("parameter", ["size", "gama"])
    def test_a_parameter_without_default_is_a_defect(self, parameter):
        with pytest.raises(TypeError, match=rf"Part\): expected one of \['gamma'\], got '{parameter}'"):
            value_types.default_of(self.Part, parameter)


def test_a_command_shows_no_traceback(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "from torchrl.recipes import exit_on_mistake, make_parser\n"
        "with exit_on_mistake():\n"
        "    make_parser('Train.').parse_args()\n"
    )
    command = [sys.executable, str(script), "--lr=3"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "train.py: command line: expected a known flag, got --lr. --help lists them.\n"


CONFIGS = sorted((ROOT / "configs").rglob("*.txt"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_config_is_well_formed_and_first_says_what_it_should_reach(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert re.match(r"# .{20,}", lines[0])
    assert read_entries(lines, path.name)
