"""The tool that mixes up flags finds the places it should, and tells a test that notices from one that does not."""

import textwrap

import pytest
from mutate import find_mutants, main


def changes(source):
    """What each mutant changes, as (line, before, after)."""
    return [(mutant.line, mutant.old, mutant.new) for mutant in find_mutants(textwrap.dedent(source))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('batch.get("done")', [('"done"', '"terminated"')]),
        ("batch['next', 'terminated']", [("'terminated'", "'done'")]),
        ("(rows.done, self._terminated)", [("done", "terminated"), ("_terminated", "_done")]),
        ('"not done yet" + "truncated"', []),
        ('f"{done} done"', []),
        ('{"done": 1}', []),
        ('{"x": batch["done"]}', [('"done"', '"terminated"')]),
    ],
)
def test_keys_and_attributes(line, expected):
    assert changes(f"x = {line}") == [(1, *pair) for pair in expected]


def test_what_is_written_or_said_is_left_alone():
    source = '''
    def f(batch, done: "done", terminated):
        """done"""
        batch["done"] = batch.done = 1
        if batch:
            raise ValueError(done, "terminated")
    '''
    assert changes(source) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("def f(done, terminated): return done", ["terminated"]),
        ("def f(terminated, truncated): return ~terminated", ["truncated", "(terminated | truncated)"]),
        ("def f(terminated, truncated): return terminated | truncated", ["truncated"]),
        ("def f(terminated, truncated): return terminated or truncated", ["truncated"]),
        ("def f(terminated, truncated): return is_done(terminated, truncated=truncated)", ["truncated"]),
        ("def f(terminated, truncated): return gae(terminated, truncated)", ["truncated", "(terminated | truncated)"]),
        ("def f(terminated, truncated): return lambda: terminated", ["truncated", "(terminated | truncated)"]),
        ("def f(terminated): return ~terminated", []),  # a NameError would prove nothing
    ],
)
def test_variables(line, expected):
    assert [after for _, _, after in changes(line)] == expected


def test_applied_changes_one_place():
    source = "é = 'é', batch['done'], batch['done']\nkept = 1\n"
    first, second = find_mutants(source)
    assert first.applied(source) == "é = 'é', batch['terminated'], batch['done']\nkept = 1\n"
    assert second.applied(source) == "é = 'é', batch['done'], batch['terminated']\nkept = 1\n"


def test_marker_needs_a_reason():
    with_reason, without = (
        "x = batch.done  # mutate: equivalent - the same here",
        "x = batch.done  # mutate: equivalent",
    )
    assert [mutant.is_equivalent for mutant in find_mutants(f"{with_reason}\n{without}")] == [True, False]


@pytest.fixture
def project(tmp_path):
    """A package with one module, whose test does what the parameter says."""
    (tmp_path / "torchrl" / "data").mkdir(parents=True)
    (tmp_path / "tests" / "data").mkdir(parents=True)
    (tmp_path / "torchrl" / "__init__.py").touch()
    (tmp_path / "torchrl" / "data" / "__init__.py").touch()
    (tmp_path / "torchrl" / "data" / "flags.py").write_text("def read(row):\n    return row['done']\n")

    def with_test(line):
        test = f"from torchrl.data.flags import read\ndef test():\n    {line}\n"
        (tmp_path / "tests" / "data" / "test_flags.py").write_text(test)
        return tmp_path

    return with_test


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("assert read({'done': 1, 'terminated': 0}) == 1", 0, "1 killed, 0 survived"),
        ("assert read({'done': 1, 'terminated': 1}) == 1", 1, "0 killed, 1 survived"),
    ],
)
def test_outcome(project, capsys, line, status, said):
    assert main(["--jobs", "1"], root=project(line)) == status
    assert said in capsys.readouterr().out


def test_tests_that_fail_anyway_prove_nothing(project, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--jobs", "1"], root=project("assert False"))
    assert stop.value.code == 2
    assert "tests/data/test_flags.py" in capsys.readouterr().out
