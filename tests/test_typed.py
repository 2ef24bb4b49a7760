"""What type checkers and other packages rely on: names that load on first use are known to them, too."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

from test_docs import load

ROOT = Path(__file__).parents[1]
LAZY = ["torchrl", "torchrl.envs"]


def imported_for_types(path):
    """Return, for each name that a package imports under ``if TYPE_CHECKING:``, where it comes from."""
    (block,) = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    return {alias.asname: statement.module for statement in block.body for alias in statement.names}


@pytest.mark.parametrize("name", LAZY)
def test_a_type_checker_sees_the_names_that_load_on_first_use(name):
    package = import_module(name)
    homes = imported_for_types(Path(package.__file__))
    assert sorted(homes) == package.__all__
    for key, module in homes.items():
        assert getattr(package, key) is getattr(import_module(module), key)


def test_the_users_file_uses_what_the_readme_uses():
    """Mypy reads it in `make lint`; here, that a name which the README gains comes into it, too."""
    typed = (ROOT / "tests" / "typed" / "user.py").read_text()
    blocks = [part.partition("```")[0] for part in (ROOT / "README.md").read_text().split("```python\n")[1:]]
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("torchrl"):
                for alias in node.names:
                    assert alias.name in typed, alias.name


def test_the_public_api_is_as_it_was():
    """A name or a signature that changes is a change for users: run python tests/public_api.py, and say so there."""
    snapshot = load(ROOT / "tests" / "public_api.py")
    was, now = snapshot.PAGE.read_text().splitlines(), list(snapshot.lines())
    gone = [line for line in was if line not in set(now)]
    new = [line for line in now if line not in set(was)]
    assert (gone, new) == ([], []), "run python tests/public_api.py, and write a line into the CHANGELOG"
    assert now == was
