"""Find the command that the command line names, and run it. The table of commands stands in ``__init__.py``.

Imports no torch: the list of commands, and a mistake in a command's name, come at once.
"""

from __future__ import annotations

import ast
import atexit
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from torchrl import __version__, commands
from torchrl.errors import ConfigError, exit_on_mistake, explain, nearest, plain_warnings

HEAD = "torchrl COMMAND [...]: train agents, and look at what they learned.\n"
FOOT = "\n  torchrl COMMAND --help says more of one; python -m torchrl is the same as torchrl."


def main(words: Sequence[str] | None = None) -> None:
    """Run a command by the words of a command line; exit with status 2 on user mistakes.

    >>> try:
    ...     main(["trian"])
    ... except SystemExit as ended:
    ...     ended.code
    2

    Args:
        words: the command's name and its flags; None takes those of the process.
    """
    words = list(sys.argv[1:] if words is None else words)
    atexit.register(gc.freeze)  # as recipes.run does: Python would search all that was imported for garbage, 0.9 s
    with exit_on_mistake("torchrl"), plain_warnings():
        if not words or words[0] in ("-h", "--help", "help"):
            print(HEAD, *(f"  {name:<10}{_help_of(name)}" for name in commands.__all__), FOOT, sep="\n")
        elif words[0] == "--version":
            print(f"torchrl {__version__}")
        elif words[0] not in commands.__all__:
            close = nearest(words[0], commands.__all__)
            hint = f"Did you mean {close!r}?" if close else "torchrl --help lists them."
            raise ConfigError(explain("torchrl", expected="a command", got=repr(words[0]), hint=hint))
        else:
            getattr(commands, words[0]).run(words[1:])


def _help_of(name: str) -> str:
    """Return the first line of a command's module, which is read and not imported."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).partition("\n")[0]
