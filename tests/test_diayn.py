"""The example with parameters of each slot: five skills in one batch, told apart by where they lead."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "diayn" / "diayn.py"


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("seed", "num_batches", "num_workers", "low", "high"),
    [(0, 0, 1, 0.0, 0.6), (1, 150, 2, 0.8, 1.0)],  # 0.2 by chance
)
def test_skills_are_told_apart_after_training_and_not_before(seed, num_batches, num_workers, low, high):
    flags = [f"--seed={seed}", f"--num_batches={num_batches}", f"--num_workers={num_workers}"]
    run = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    accuracy = float(re.search(r"accuracy (\d\.\d+)", run.stdout).group(1))
    assert low <= accuracy <= high, run.stdout


def test_slots_that_cannot_be_shared_out_are_one_message():
    run = subprocess.run([sys.executable, SCRIPT, "--num_workers=3"], capture_output=True, text=True)
    assert run.returncode == 2 and "num_workers" in run.stderr and "Traceback" not in run.stderr
