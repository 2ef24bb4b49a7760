"""What the package imports, read from its syntax trees, for `test_architecture.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOTS = "roots"
TOP = "top"


@dataclass(frozen=True)
class Import:
    """One imported module, as an absolute dotted name."""

    name: str
    line: int
    in_function: bool
    for_types: bool  # under `if TYPE_CHECKING:`

    @property
    def library(self) -> str:
        return "tensorboard" if self.name.startswith("torch.utils.tensorboard") else self.name.partition(".")[0]


class Source:
    """One module of the package: its dotted name and its syntax tree."""

    def __init__(self, name: str, text: str, *, is_package: bool = False) -> None:
        self.name, self.is_package, self.tree = name, is_package, ast.parse(text)
        parts = name.split(".")
        self.folder = ROOTS if len(parts) == 1 or (len(parts) == 2 and not is_package) else parts[1]
        if parts[-1] == "__main__":  # what is run, so that nothing imports it: it stands above all
            self.folder = TOP

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        """Yield the nodes of some kinds, wherever they stand in the module."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))

    @cached_property
    def imports(self) -> list[Import]:
        """What is imported anywhere: by statement, `import_module("...")` or `require("...", ...)`."""
        return list(self._imports(self.tree, in_function=False, for_types=False))

    def _imports(self, node: ast.AST, *, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            names: list[str] = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                base = self._absolute(child)
                names = [f"{base}.{alias.name}" for alias in child.names]
            elif isinstance(child, ast.Call) and call_name(child).rpartition(".")[2] in {"import_module", "require"}:
                names = [arg.value for arg in child.args[:1] if isinstance(arg, ast.Constant)]
            yield from (Import(name, child.lineno, in_function, for_types) for name in names)
            yield from self._imports(
                child,
                in_function=in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda),
                for_types=for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)),
            )

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def call_name(node: ast.AST) -> str:
    """Return the dotted name that is called or looked up, for example ``"torch.set_num_threads"``."""
    node = node.func if isinstance(node, ast.Call) else node
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def read_package() -> dict[str, Source]:
    """Read every module of the package, by dotted name."""
    sources = {}
    for path in sorted((ROOT / "torchrl").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        sources[name] = Source(name, path.read_text(encoding="utf-8"), is_package=is_package)
    return sources


PACKAGE = read_package()


def is_within(name: str, prefix: str) -> bool:
    """Answer whether a dotted name is ``prefix`` or lies below it."""
    return name == prefix or name.startswith(f"{prefix}.")
