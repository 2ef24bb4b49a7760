"""Write `docs/reference.md`: every public name of the package with the first sentence of its docstring.

python docs/reference.py
"""

import inspect
from importlib import import_module
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
PACKAGES = [
    "torchrl.data",
    "torchrl.data.replay",
    "torchrl.data.specs",
    "torchrl.envs",
    "torchrl.envs.simulators",
    "torchrl.envs.transforms",
    "torchrl.modules",
    "torchrl.modules.distributions",
    "torchrl.collectors",
    "torchrl.functional",
    "torchrl.objectives",
    "torchrl.deploy",
    "torchrl.agents",
    "torchrl.population",
    "torchrl.record",
]
HEAD = """# Reference

Every public name and what it is for; shapes, units, errors and sources stand in its docstring (`help(name)`).
Written by `python docs/reference.py`.
"""


def summary(member: object) -> str:
    """Return the first sentence of a docstring, on one line."""
    paragraph = (inspect.getdoc(member) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def call(name: str, member: object) -> str:
    """Write a name with its parameters, without their types and defaults."""
    parts, is_keyword = [], False
    for parameter in inspect.signature(member).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword:
            parts.append("*")
        is_keyword = is_keyword or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        parts.append(stars.get(parameter.kind, "") + parameter.name)
    return f"{name}({', '.join(parts)})"


def members_of(name: str) -> dict[str, object]:
    """List the classes and functions of a package; constants have no docstring of their own and are left out."""
    package = import_module(name)
    members = {key: getattr(package, key) for key in sorted(package.__all__, key=str.lower)}
    return {key: item for key, item in members.items() if inspect.isclass(item) or inspect.isfunction(item)}


def section(name: str) -> str:
    """Write the table of one package."""
    rows = [f"| `{call(key, item)}` | {summary(item)} |" for key, item in members_of(name).items()]
    head = [f"## {name}", "", summary(import_module(name)), "", "| name | what it is |", "|---|---|"]
    return "\n".join([*head, *rows, ""])


def page() -> str:
    """Write the whole page."""
    return "\n".join([HEAD, *map(section, PACKAGES)])


if __name__ == "__main__":
    PAGE.write_text(page())
