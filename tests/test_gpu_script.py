"""The script that waits for a GPU: every section runs, here small and on the CPU; one that fails is told, alone."""

import importlib
import json
import logging
import sys

import pytest
import torch

from sources import ROOT

FOLDER = ROOT / "benchmarks"
NAMES = ("acting", "step", "returns", "replay", "cartpole", "ppo")


@pytest.fixture(scope="module")
def gpu():
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("gpu")
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(FOLDER) in sys.modules[name].__file__:
                del sys.modules[name]


@pytest.fixture
def place(gpu):
    return gpu.Place(torch.device("cpu"), True)


@pytest.mark.parametrize("name", NAMES)
def test_a_section_runs(gpu, place, monkeypatch, name):
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest would format all it says
    rows = list(gpu.run_section(name, place))
    assert rows and not [row for row in rows if row.failed] and all(row.measured for row in rows)


def test_these_are_all_sections(gpu):
    assert tuple(gpu.SECTIONS) == NAMES
    assert sum(seconds for _, seconds in gpu.SECTIONS.values()) <= 330


def test_a_captured_step_takes_the_rows_and_the_rate_of_each_call(gpu, place, monkeypatch):
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    monkeypatch.setattr(gpu.graphs, "load_program", lambda graph, inputs: lambda values: list(graph(*values)))
    first, second = gpu.make_rows(8, place.device), gpu.make_rows(16, place.device)[8:]
    results = []
    for captured in (False, True):
        loss, optimizer = gpu.make_loss(place.device)
        step = gpu.GraphStep("test", loss, optimizer)
        if captured:
            replay = gpu.CapturedStep(step, first)  # on the CPU a step is taken by it
        else:
            step.commit(step(first))
        optimizer.param_groups[0]["lr"] = 0.1
        outcome = replay(second) if captured else step(second)
        if not captured:
            step.commit(outcome)
        results.append([*[x.detach() for x in loss.parameters()], outcome.values])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def failing(place):
    from _gpu import Row

    yield Row("first", "", "1 µs")
    raise RuntimeError("planted |\n here")


def test_a_section_that_fails_is_told_and_the_others_go_on(gpu, place, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "SECTIONS", {"failing": (failing, 9), "returns": gpu.SECTIONS["returns"]})
    monkeypatch.setattr(gpu, "run_apart", lambda name, place, seconds: list(gpu.run_section(name, place)))
    path = tmp_path / "table.md"
    assert gpu.main(["--device", "cpu", "--table", str(path)]) == 1
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[4:6] == [
        "| first |  | 1 µs |  |  |",
        "| failing |  |  |  | **failed**: RuntimeError: planted \\| here |",
    ]
    assert lines[6].startswith("| GAE | [4, 16] | ") and capsys.readouterr().out.splitlines() == [*lines, ""]
    assert gpu.main(["--device", "cpu", "--table", str(path), "--sections", "returns"]) == 0


def test_a_section_has_a_process_of_its_own_and_a_limit(gpu, place):
    (row,) = gpu.run_apart("returns", place, 600)
    assert row.what == "GAE" and not row.failed
    assert gpu.run_apart("returns", place, 0.01)[0].failed == "not done after 0 s"
    assert json.loads(json.dumps(row)) == list(row)
