"""Ranges in a config file: what they mean, what fits a flag, and what an ordinary command says of them."""

import pytest

from torchrl.errors import ConfigError
from torchrl.recipes.config import make_parser
from torchrl.recipes.config_file import Entry
from torchrl.recipes.ranges import Choice, Range, read_sweep
from torchrl.recipes.value_types import or_none, positive_float, positive_int


@pytest.fixture
def parser():
    parser = make_parser("Train something.")
    parser.add_argument("--lr", type=positive_float, default=0.1, help="learning rate")
    parser.add_argument("--num_epochs", type=positive_int, default=4, help="epochs")
    parser.add_argument("--num_cells", type=int, nargs="+", default=[8], help="widths")
    parser.add_argument("--limit", type=or_none(positive_float), default=None, help="of gradients")
    parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam", help="kind")
    parser.add_argument("--name", type=str, default="x", help="of the run")
    parser.add_switch("--norm", default=False, help="normalise")
    return parser


@pytest.fixture
def read(parser, tmp_path):
    """Read the lines of a file."""

    def read(*lines, without=()):
        (tmp_path / "lr.txt").write_text("\n".join(lines))
        return read_sweep(parser, tmp_path / "lr.txt", without=without)

    return read


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lr = range(1e-5, 1e-2, log)  # as Adam", Range(1e-5, 1e-2, is_log=True)),
        ("lr = range(1, 2)", Range(1.0, 2.0)),
        ("limit = range(.5, 2)", Range(0.5, 2.0)),
        ("num_epochs = range(3, 2e1)", Range(3, 20)),
        ("num_cells = choice(64 64, 256 256)", Choice(("64 64", "256 256"))),
        ("norm = choice(true, false)", Choice(("true", "false"))),
        ("limit = choice(none, 0.5)", Choice(("none", "0.5"))),
        ("optimizer = choice(adam, sgd)", Choice(("adam", "sgd"))),
        ('name = choice("a, b", c)', Choice(('"a, b"', "c"))),
        ("num_epochs=choice( 4,8 )", Choice(("4", "8"))),
    ],
)
def test_a_range_is_read_by_its_flag(line, expected, read):
    sweep = read(line)
    (value,) = sweep.ranges.values()
    assert value == expected and sweep.fixed == {}
    if isinstance(value, Range):
        assert type(value.low) is type(expected.low) and value.is_whole is isinstance(expected.low, int)


def test_values_stay_entries_and_flags_of_the_command_line_go_before(read):
    sweep = read("lr = range(1, 2)", "", "num_epochs = range(3, 4)", "num_cells = 8 8", without=["num_epochs", "norm"])
    assert sweep.fixed == {"num_cells": "8 8"} and sweep.ranges == {"lr": Range(1.0, 2.0)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lr = range(0, 1)", "line 1: lr: expected a number above 0, got '0'"),
        ("num_epochs = range(1, 2.5)", "line 1: num_epochs: expected a whole number, got '2.5'"),
        ("lr = range(2, 1)", "expected lr = range(LOW, HIGH) with LOW below HIGH, got range(2, 1)"),
        ("lr = range(1)", "expected lr = range(LOW, HIGH) or range(LOW, HIGH, log), got range(1)"),
        ("lr = range(1, 2, 3)", "expected lr = range(LOW, HIGH) or range(LOW, HIGH, log)"),
        ("num_cells = range(1, 2)", "expected a range for a flag that takes one number, got num_cells = range(1, 2)"),
        ("norm = range(true, false)", "expected a range for a flag that takes one number"),
        ("name = range(1, 2)", "Write the values as name = choice(A, B, ...)"),
        ("limit = range(none, 2)", "expected a range for a flag that takes one number"),
        ("optimizer = choice(adam, sdg)", "invalid choice: 'sdg'"),
        ("norm = choice(yes, no)", "expected norm = true or norm = false"),
        ("lr = choice(1)", "expected lr = choice(A, B, ...), two options or more, each once"),
        ("lr = choice(1, 1)", "each once"),
        ("lr = choice(1, )", "two options or more"),
        ("lrr = range(1, 2)", "expected a known key, got 'lrr'. Did you mean 'lr'?"),
        ("lr = uniform(1, 2)", "lr: expected a number, got 'uniform(1, 2)'"),
        ("lr = 0.1", "expected a range for at least one key, got values alone. Write one as lr = range("),
    ],
)
def test_what_fits_no_flag_is_refused(line, message, read):
    with pytest.raises(ConfigError) as error:
        read(line)
    assert message in str(error.value) and "lr.txt" in str(error.value)


def test_a_file_that_is_not_there_is_refused(parser, tmp_path):
    with pytest.raises(ConfigError, match=r"none.txt: expected a file of text in UTF-8"):
        read_sweep(parser, tmp_path / "none.txt")


def test_an_ordinary_command_says_whose_file_it_is(parser, tmp_path):
    path = tmp_path / "lr.txt"
    path.write_text("norm = true\nlr = range(1e-5, 1e-2, log)")
    with pytest.raises(ConfigError) as error:
        parser.parse_args([f"--config={path}"])
    assert str(error.value) == (
        f"{path}, line 2: expected a value of lr, got range(1e-5, 1e-2, log). "
        f"This is a sweep's config: torchrl sweep {path}"
    )
    path.write_text('name = "range(1, 2)"')
    assert parser.parse_args([f"--config={path}"]).name == "range(1, 2)"


def test_the_words_of_an_entry_set_what_it_sets(parser):
    entries = {"norm": "false", "num_cells": "8 -1", "name": '"a b"', "lr": "1e-3"}
    words = [word for key, text in entries.items() for word in parser.words_of(key, Entry(text, "here"))]
    assert words == ["--no-norm", "--num_cells", "8", "-1", "--name=a b", "--lr=1e-3"]
