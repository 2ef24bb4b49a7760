"""The form of a config file."""

import pytest
from hypothesis import given, strategies as st

from torchrl.errors import ConfigError
from torchrl.recipes.config_file import format_value, read_entries, write_entries


def read(text: str) -> dict[str, str]:
    return dict(read_entries(text.splitlines(keepends=True), "a.txt"))


def test_comments_spaces_and_empty_lines_are_no_entries():
    text = "# reaches 475\n\n  lr = 1e-3   # tuned\nname=run#2\n\t# end\npath = a b\n"
    assert read(text) == {"lr": "1e-3", "name": "run#2", "path": "a b"}


def test_an_entry_knows_its_line():
    assert read_entries(["# head\n", "\n", "lr = 3\n"], "a.txt")["lr"].place == "a.txt, line 3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpu cuda:0", ["cpu", "cuda:0"]),
        ("  64\t64 ", ["64", "64"]),
        ('"a b" c', ["a b", "c"]),
        ('"a \\"b\\"" c', ['a "b"', "c"]),
        ("a # b c", ["a"]),
        ('"# a" b', ["# a", "b"]),
        ("[]", []),
        ('"[]"', ["[]"]),
    ],
)
def test_a_list_is_split_at_spaces_outside_of_quotes(text, words):
    assert read_entries([f"key = {text}\n"], "a.txt")["key"].words() == words


@pytest.mark.parametrize("line", ["lr", "lr =", "= 3", "lr 3"])
def test_a_line_of_another_form_is_an_error_with_its_number(line):
    with pytest.raises(ConfigError, match="a.txt, line 2: expected key = value"):
        read(f"a = 1\n{line}\n")


def test_a_repeated_key_is_an_error_with_both_lines():
    with pytest.raises(ConfigError, match="a.txt, line 4: .*'lr' again, which stands on line 2 already"):
        read("# head\nlr = 1\ngamma = 1\nlr = 1\n")


@pytest.mark.parametrize("value", ['"a', 'b "a', 'a"'])
def test_open_quotes_are_an_error(value):
    entry = read_entries([f"key = {value}"], "a.txt")["key"]
    if value == 'a"':
        assert entry.words() == ['a"']  # inside of a word a quote is a character
        return
    with pytest.raises(ConfigError, match="line 1"):
        entry.words()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "none"),
        (3, "3"),
        (3e-4, "0.0003"),
        ("CartPole-v1", "CartPole-v1"),
        ("", '""'),
        ("a # b", '"a # b"'),
        ([64, 64], "64 64"),
        (("a b", "c"), '"a b" c'),
        ([], "[]"),
    ],
)
def test_values_are_written_as_a_person_would(value, text):
    assert format_value(value) == text


def test_a_value_that_no_flag_could_hold_is_refused():
    with pytest.raises(TypeError, match="expected numbers, text"):
        format_value({"a": 1})


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
nasty = st.sampled_from(['"', "#", " #", "# a", " a", "a ", "\n", "\\", '\\"', "[]", "\u2028", "=", "none", "\r", "\0"])


@given(st.one_of(texts, nasty, st.tuples(texts, nasty, texts).map("".join)))
def test_every_text_comes_back(text):
    lines = write_entries({"key": text}).split("\n")
    assert read_entries(lines, "a.txt")["key"].text() == text


@given(st.lists(st.one_of(texts, nasty, st.tuples(texts, nasty, texts).map("".join)), max_size=4))
def test_every_list_comes_back(words):
    lines = write_entries({"key": words}, comment="of a\nrun").split("\n")
    assert read_entries(lines, "a.txt")["key"].words() == words


@given(st.floats(allow_nan=False))
def test_every_number_comes_back(value):
    assert float(read_entries([write_entries({"key": value})], "a.txt")["key"].text()) == value
