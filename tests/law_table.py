"""Run the law suites and write `docs/laws.md`: what was held against which law, from the run itself.

    python tests/law_table.py

A test function of a law suite is a law, its name read as a sentence; the name of the case it was given is what was held
against it, up to the first space or comma. Only passed cases count.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "laws.md"
# family -> (law suite, the argument whose case names the subject)
SUITES = {
    "Specs": "tests/data/specs/test_laws.py",
    "Environments": "tests/envs/test_laws.py",
    "Replay": "tests/data/replay/test_laws.py",
    "Transforms": "tests/envs/transforms/test_laws.py",
    "Distributions": "tests/modules/distributions/test_laws.py",
    "Estimators": "tests/objectives/returns/test_laws.py",
    "Losses": "tests/objectives/costs/test_laws.py",
    "Losses of values": "tests/objectives/costs/test_td_laws.py",
}
HEAD = """# What was held against which law

Written by `python tests/law_table.py` from a run of the law suites; `make laws` writes it again. A number says how many
cases passed: configurations, batch sizes, nested keys. The laws are the test functions of the files named here.
`PinMemory` is missing: it needs an accelerator, and this page was written without one.
"""


class Results:
    """A pytest plugin that counts the passed cases of each test function by their subject."""

    def __init__(self) -> None:
        self.cases: dict[str, tuple[str, str]] = {}
        self.passed: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
        self.failed: list[str] = []

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Remember law and subject of every parametrised test."""
        callspec = getattr(item, "callspec", None)
        if callspec is not None:
            self.cases[item.nodeid] = (item.originalname, subject_of(callspec.id))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count it."""
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call" and report.passed and report.nodeid in self.cases:
            law, subject = self.cases[report.nodeid]
            self.passed[report.nodeid.partition("::")[0]][subject][law] += 1


def subject_of(case: str) -> str:
    """Name what a case is about: the part of its id that begins with a capital letter, up to a space or a comma."""
    values = ("None", "True", "False")
    parts = [part for part in case.split("-") if part[:1].isupper() and part not in values]
    return parts[0].replace(",", " ").split()[0] if parts else ""


def table(family: str, path: str, results: dict[str, dict[str, int]]) -> str:
    """Write one family: the laws as a numbered list, and a row per subject."""
    results = {subject: laws for subject, laws in results.items() if subject}
    laws = list(dict.fromkeys(law for counts in results.values() for law in counts))
    lines = [f"## {family}", "", f"`{path}`", ""]
    lines += [f"{number}. {sentence(law)}" for number, law in enumerate(laws, 1)]
    lines += ["", "| | " + " | ".join(map(str, range(1, len(laws) + 1))) + " |", "|---" * (len(laws) + 1) + "|"]
    for subject in sorted(results, key=str.lower):
        counts = [str(results[subject].get(law, "")) for law in laws]
        lines.append(f"| `{subject}` | " + " | ".join(counts) + " |")
    return "\n".join(lines) + "\n"


def sentence(law: str) -> str:
    """Turn the name of a test function into words."""
    return law.removeprefix("test_").replace("_", " ")


def main() -> int:
    """Run the suites and write the page, unless a case fails."""
    results = Results()
    paths = [path for path in SUITES.values() if (ROOT / path).is_file()]
    pytest.main(["-q", "--no-header", f"--rootdir={ROOT}", *(str(ROOT / path) for path in paths)], plugins=[results])
    if results.failed:
        print("not written: a law is broken", file=sys.stderr)
        return 1
    tables = [table(family, path, results.passed[path]) for family, path in SUITES.items() if path in results.passed]
    PAGE.write_text("\n".join([HEAD, *tables]))
    print(f"{PAGE.relative_to(ROOT)}: {sum(map(len, results.passed.values()))} subjects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
