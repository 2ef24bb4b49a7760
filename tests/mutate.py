"""Mix up `done` and `terminated` at one place at a time, and see whether the tests notice.

    python tests/mutate.py                              every place in torchrl/
    python tests/mutate.py torchrl/envs --jobs 4        the places in some folders or files
    python tests/mutate.py --list                       only say what would be tried

The mutants of a place that reads a flag:

- a key or an attribute: ``"done"`` becomes ``"terminated"`` and the other way round (leading underscores stay);
- a variable: likewise where both are bound in the function. Where ``truncated`` is bound instead of ``done``,
  ``terminated`` becomes ``truncated``, and ``(terminated | truncated)`` unless the two are combined there anyway.

Not touched: docstrings, f-strings, what a ``raise`` builds, keys of a dict display and keys that are assigned to. A
place where no test can tell the difference carries the comment ``# mutate: equivalent - <why>`` on its line.

Every mutant lives in a copy of the project and meets the tests of the mirrored path: torchrl/a/b.py those of
tests/a/test_b.py first, then all of tests/a. Exits with 1 if a mutant survives, with 2 if the tests fail without any.
"""

from __future__ import annotations

import argparse
import ast
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SWAPS = {"done": "terminated", "terminated": "done"}
COMBINING = {"is_done", "trace_goes_on", "next_step_follows"}
EQUIVALENT = re.compile(r"# mutate: equivalent - \S")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "*_logging", "build", "dist")
KILLED, SURVIVED, EXCUSED, FAILED = "killed", "survived", "equivalent", "failed to run"


@dataclass(frozen=True)
class Mutant:
    """One place and what it becomes. Columns count bytes, as the syntax tree does."""

    line: int
    start: int
    stop: int
    old: str
    new: str
    is_equivalent: bool

    def applied(self, text: str) -> str:
        """Return the source with this one place changed."""
        lines = text.splitlines(keepends=True)
        line = lines[self.line - 1].encode()
        lines[self.line - 1] = (line[: self.start] + self.new.encode() + line[self.stop :]).decode()
        return "".join(lines)


def find_mutants(text: str) -> list[Mutant]:
    """List the mutants of a module, in the order of the source."""
    lines, mutants = text.splitlines(), []
    for node, new in _places(ast.parse(text)):
        line = lines[node.end_lineno - 1]
        start, stop = node.col_offset, node.end_col_offset
        if isinstance(node, ast.Attribute):  # its name stands at the end
            start = stop - len(node.attr)
        old = line.encode()[start:stop].decode()
        if isinstance(node, ast.Constant):
            new = old.replace(node.value, new)
        mutants.append(Mutant(node.end_lineno, start, stop, old, new, bool(EQUIVALENT.search(line))))
    return sorted(mutants, key=lambda mutant: (mutant.line, mutant.start))


def _places(
    node: ast.AST, bound: frozenset[str] = frozenset(), combined: frozenset[str] = frozenset()
) -> Iterator[tuple[ast.AST, str]]:
    """Yield each node that reads a flag, with what its name becomes.

    Args:
        node: where to look, this node included.
        bound: the variables of the functions around it.
        combined: the variables that it is combined with, where order and repetition mean nothing.
    """
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from ((node, new) for new in _variables(node.id, bound, combined))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from ((node, new) for new in _swapped(node.value))
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield from ((node, new) for new in _swapped(node.attr))
    if isinstance(node, FUNCTIONS):
        bound |= _bound_in(node)
    if not isinstance(node, ast.keyword):  # an argument given by name is combined like any other
        combined = _combined_in(node)
    for child in _read_children(node):
        yield from _places(child, bound, combined)


def _swapped(name: str) -> Iterator[str]:
    """Yield the other flag's name, with as many leading underscores."""
    bare = name.lstrip("_")
    if bare in SWAPS:
        yield name.removesuffix(bare) + SWAPS[bare]


def _variables(name: str, bound: frozenset[str], combined: frozenset[str]) -> Iterator[str]:
    """Yield what a variable may become: names that are not bound would prove nothing but a NameError."""
    other = next(_swapped(name), None)
    if other in bound:
        yield other
    elif name == "terminated" and "truncated" in bound:
        yield "truncated"
        if "truncated" not in combined:
            yield "(terminated | truncated)"


def _bound_in(function: ast.AST) -> frozenset[str]:
    """Name the parameters and variables of a function."""
    nodes = list(ast.walk(function))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return frozenset(stored | {node.arg for node in nodes if isinstance(node, ast.arg)})


def _combined_in(node: ast.AST) -> frozenset[str]:
    """Name the variables between which a node says "or", itself or by a function of ``functional/endings.py``."""
    if isinstance(node, ast.BoolOp):
        parts = node.values
    elif isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in COMBINING:
        parts = [*node.args, *(keyword.value for keyword in node.keywords)]
    else:
        return frozenset()
    return frozenset(part.id for part in parts if isinstance(part, ast.Name))


def _read_children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children where a flag would be read: no docstring, message, annotation or key that is written."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    for field, value in ast.iter_fields(node):
        is_written_key = isinstance(node, ast.Subscript) and field == "slice" and not isinstance(node.ctx, ast.Load)
        if is_written_key or (isinstance(node, ast.Dict) and field == "keys") or field in ("annotation", "returns"):
            continue
        yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, ast.AST))


def tests_of(module: Path, root: Path) -> list[str]:
    """Return the tests of the mirrored path, the closest first: of a/b.py test_b.py, then the folder a or one above."""
    *folders, stem = module.relative_to(root / "torchrl").with_suffix("").parts
    folder = root.joinpath("tests", *folders)
    own = folder / f"test_{stem}.py"
    while not folder.is_dir() or not any(folder.rglob("test_*.py")):
        folder = folder.parent
    return [str(path.relative_to(root)) for path in (own, folder) if path.exists()]


class Sandbox:
    """A copy of the project in which one file at a time is changed."""

    def __init__(self, root: Path, folder: Path, timeout_s: float) -> None:
        shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        self.folder, self.timeout_s = folder, timeout_s

    def outcome(self, module: str, mutant: Mutant | None, tests: list[str]) -> tuple[str, str]:
        """Run the tests with a mutant (or as they are); return how it went and what pytest said last."""
        path = self.folder / module
        original = path.read_text()
        if mutant is not None:
            path.write_text(mutant.applied(original))
        try:
            code, said = self._pytest(tests)
        finally:
            path.write_text(original)
        return {0: SURVIVED, 1: KILLED, 2: KILLED, 5: SURVIVED}.get(code, FAILED), said

    def _pytest(self, tests: list[str]) -> tuple[int, str]:
        """Return pytest's exit status and last line; a run that hangs counts as failed tests."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        settings = {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | settings,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=self.timeout_s)
            lines = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
            return process.returncode, " ".join(lines[:1])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return 1, f"nothing within {self.timeout_s} s"


def try_all(root: Path, jobs: list[tuple[str, Mutant]], num_processes: int, timeout_s: float) -> list[str]:
    """Return the outcome of each mutant, after making sure that the tests pass without any.

    Raises:
        SystemExit: with status 2 where they do not.
    """
    tests = {module: tests_of(root / module, root) for module, _ in jobs}
    free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()

    def attempt(module: str, mutant: Mutant | None) -> tuple[str, str]:
        if mutant is not None and mutant.is_equivalent:
            return EXCUSED, ""
        sandbox = free.get()
        try:
            return sandbox.outcome(module, mutant, tests[module])
        finally:
            free.put(sandbox)

    with tempfile.TemporaryDirectory(prefix="mutate-") as folder, ThreadPoolExecutor(num_processes) as pool:
        for index in range(num_processes):
            free.put(Sandbox(root, Path(folder, str(index)), timeout_s))
        once = {tuple(paths): module for module, paths in tests.items()}
        baseline = list(pool.map(lambda module: attempt(module, None), once.values()))
        broken = [
            f"{' '.join(paths)}: {said or outcome}"
            for paths, (outcome, said) in zip(once, baseline, strict=True)
            if outcome != SURVIVED
        ]
        if broken:
            print("these tests fail without any mutant:", *broken, sep="\n  ")
            raise SystemExit(2)
        return [outcome for outcome, _ in pool.map(lambda job: attempt(*job), jobs)]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Try the mutants of the given paths; return the exit status."""
    parser = argparse.ArgumentParser(description="Mix up done and terminated, one place at a time.")
    parser.add_argument("paths", nargs="*", default=["torchrl"], help="folders or files of the package")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at the same time")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="a mutant that makes the tests hang is killed")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    options = parser.parse_args(arguments)
    files = [file for path in options.paths for file in sorted((root / path).rglob("*.py")) or [root / path]]
    jobs = [(str(file.relative_to(root)), mutant) for file in files for mutant in find_mutants(file.read_text())]
    outcomes = ["" for _ in jobs] if options.list else try_all(root, jobs, options.jobs, options.timeout_s)
    for (module, mutant), outcome in zip(jobs, outcomes, strict=True):
        print(f"{outcome:<14}{module}:{mutant.line}:{mutant.start + 1}  {mutant.old} -> {mutant.new}")
    counts = [f"{outcomes.count(name)} {name}" for name in (KILLED, SURVIVED, EXCUSED, FAILED)]
    print(f"{len(jobs)} mutants", *counts, sep=", ")
    return int(any(outcome in (SURVIVED, FAILED) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
