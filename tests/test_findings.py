"""The scripts of findings/: each is listed, pins what it installs, and knows nothing of this package. None is run."""

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def test_the_list_is_complete():
    listed = re.findall(r"^\| `(\w+\.sh)` \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [path.name for path in SCRIPTS]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_finding_stands_alone(path):
    text = path.read_text(encoding="utf-8")
    (packages,) = re.findall(r"^venv/bin/pip install (.*)$", text, re.MULTILINE)
    names = [word for word in packages.split() if not word.startswith("--")]
    assert names and all(re.fullmatch(r'"[\w.-]+==[\w.]+"', name) for name in names), names
    assert "torchrl" not in text
    (code,) = re.findall(r"<<'END'\n(.*)\nEND\n", text, re.DOTALL)
    assert compile(code, path.name, "exec") and "assert " in code  # it fails when the behaviour changes
    assert subprocess.run(["sh", "-n", path], check=False).returncode == 0
