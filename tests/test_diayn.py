"""The example with parameters of each slot runs, by one worker and by two, and tells its skills apart after a while."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "diayn" / "diayn.py"


@pytest.mark.usefixtures("leaves_nothing")
def test_skills_are_told_apart_better_than_by_chance():
    flags = ["--seed=0", "--num_batches=100", "--num_workers=2"]
    run = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, timeout=60)
    accuracy = float(re.search(r"accuracy (\d\.\d+)", run.stdout).group(1))
    assert accuracy > 0.5, run.stdout + run.stderr  # 0.2 by chance; 1.0 after 400 batches
