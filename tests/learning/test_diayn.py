"""Five skills in one batch, by parameters of the rows: they can be told apart by where they lead."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "diayn" / "diayn.py"


@pytest.mark.learn
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_skills_can_be_told_apart(seed):
    run = subprocess.run([sys.executable, SCRIPT, f"--seed={seed}"], capture_output=True, text=True, timeout=300)
    accuracy = float(re.search(r"accuracy (\d\.\d+)", run.stdout).group(1))
    assert accuracy >= 0.8, run.stdout + run.stderr
