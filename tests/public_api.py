"""Write `tests/public_api.txt`: every public name with its signature, and the public members of classes.

python tests/public_api.py

A change of this file in a commit is a change that users feel: it belongs into the CHANGELOG.
"""

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_suffix(".txt")


def packages() -> list[str]:
    """Return the public packages, as `docs/reference.py` lists them, after the root."""
    path = ROOT / "docs" / "reference.py"
    spec = spec_from_file_location("reference", path)
    reference = module_from_spec(spec)
    spec.loader.exec_module(reference)
    return ["torchrl", *reference.PACKAGES]


class _Name:
    """Shows a default as its name, which does not differ from process to process as an address does."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def signature(member: object) -> str:
    """Return a signature as it is written in the source."""
    try:
        written = inspect.signature(member)
    except ValueError:
        return "(...)"
    parameters = [
        one.replace(default=plain(one.default), annotation=plain(one.annotation, is_type=True))
        for one in written.parameters.values()
    ]
    return str(written.replace(parameters=parameters, return_annotation=plain(written.return_annotation, is_type=True)))


def plain(value: object, is_type: bool = False) -> object:
    """Replace a type, which is a text here, a class or an object without a text of its own, by its name."""
    if value is inspect.Parameter.empty:
        return value
    if is_type and isinstance(value, str):
        return _Name(value)
    if inspect.isclass(value):
        return _Name(value.__name__)
    return _Name(type(value).__name__) if " object at 0x" in repr(value) else value


def members(name: str, kind: type, public: set[type]) -> Iterator[str]:
    """Yield a line for each public member that a class has of itself, or of bases without a public name."""
    owners = [
        base for base in kind.__mro__ if base is kind or base.__module__.startswith("torchrl") and base not in public
    ]
    for key in sorted({key for owner in owners for key in vars(owner) if not key.startswith("_")}):
        member = inspect.getattr_static(kind, key)
        member = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
        yield f"{name}.{key}{signature(member) if inspect.isfunction(member) else ''}"


def lines() -> Iterator[str]:
    """Yield the lines of the page: one for each name, indented ones for the members of a class."""
    modules = [import_module(package) for package in packages()]
    names = {f"{module.__name__}.{key}": getattr(module, key) for module in modules for key in sorted(module.__all__)}
    public = {member for member in names.values() if inspect.isclass(member)}
    for name, member in names.items():
        is_called = inspect.isclass(member) or inspect.isfunction(member)
        yield name + (signature(member) if is_called else "")
        if inspect.isclass(member):
            yield from (f"    {line}" for line in members(member.__name__, member, public))


def page() -> str:
    """Return the whole page."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), encoding="utf-8")
