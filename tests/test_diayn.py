"""The example with parameters of each row: five skills in one batch, told apart by where they lead."""

import re
import sys
from pathlib import Path

import pytest

from test_docs import load

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "diayn" / "diayn.py"


@pytest.fixture
def run(monkeypatch):
    """Run the example in this process."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *flags])
        load(SCRIPT).main()

    return run


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("seed", "num_batches", "num_workers", "low", "high"),
    [(0, 0, 1, 0.0, 0.6), (1, 150, 2, 0.8, 1.0)],  # 0.2 by chance
)
def test_skills_are_told_apart_after_training_and_not_before(seed, num_batches, num_workers, low, high, run, capsys):
    run(f"--seed={seed}", f"--num_batches={num_batches}", f"--num_workers={num_workers}")
    printed = capsys.readouterr().out
    accuracy = float(re.search(r"accuracy (\d\.\d+)", printed).group(1))
    assert low <= accuracy <= high, printed


def test_rows_that_cannot_be_shared_out_are_one_message(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("--num_workers=3")
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "num_workers" in told and "Traceback" not in told
