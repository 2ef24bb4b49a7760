"""What commands of several runs share: whose config it is, and which flags are theirs and which the algorithm's."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from torchrl.commands.examples import find_config, find_scripts
from torchrl.commands.parsing import make_parser
from torchrl.errors import ConfigError, explain
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.value_types import typed_names

# Flags of an algorithm that several runs in processes of their own cannot have, and why.
REFUSED = {
    "config": "The config stands behind the command's name.",
    "evaluate": "Evaluate one of the runs: torchrl evaluate.",
    "export": "Export one of the runs: torchrl export.",
    "resume": "Go on with one of the runs: torchrl train.",
    "buffer_folder": "All runs would write to one folder.",
}


def split_flags(
    name: str,
    description: str,
    words: Sequence[str],
    add_flags: Callable[[ConfigParser], None],
    *,
    refused: Sequence[str],
) -> tuple[Namespace, list[str]]:
    """Parse a command's own flags, and return them and those that are left, which are the algorithm's.

    Args:
        name: of the command.
        description: the head of its help.
        words: the config, then flags of the command and of the algorithm.
        add_flags: adds the command's own flags to its parser.
        refused: flags of the algorithm that the command has no use for, beside those that no command of several runs
            has.

    Returns:
        The command's values, with ``config``, a path, and ``algorithm``; and the flags of the algorithm.

    Raises:
        ConfigError: a mistake of the user.
    """
    parser = make_parser(
        name, description, file="config file, as configs/ppo/cartpole.txt; then flags of its algorithm"
    )
    text = "whose config it is; by default that of the folder where it lies, or of the run that wrote it"
    parser.add_argument("--algorithm", default=None, help=text)
    add_flags(parser)
    if not words or words[0].startswith("-") or {"-h", "--help"}.intersection(words):
        parser.parse_args(words)
    own, flags = parser.parse_known_args(words, env_vars={})
    own.algorithm = own.algorithm or algorithm_of(Path(own.file))
    own.config = find_config(own.algorithm, own.file)
    for flag in typed_names(flags):
        if flag in REFUSED or flag in refused:
            got, hint = f"--{flag}", REFUSED.get(flag, f"{name} sets it for each run.")
            raise ConfigError(explain(f"torchrl {name}", expected="flags that fit several runs", got=got, hint=hint))
    return own, flags


def algorithm_of(config: Path) -> str:
    """Return the algorithm whose config a file is, by the folders above it, or by the first line, which runs write.

    >>> algorithm_of(Path("configs/ppo/cartpole.txt"))
    'ppo'

    Raises:
        ConfigError: neither names an algorithm.
    """
    scripts = find_scripts()
    folders = [parent.name for parent in config.expanduser().absolute().parents if parent.name in scripts]
    if folders:
        return folders[0]
    head = config.read_text(encoding="utf-8", errors="replace").partition("\n")[0] if config.is_file() else ""
    written = re.match(r"# (\w+) on ", head)
    if written is not None and written[1] in scripts:
        return written[1]
    expected = f"a folder above it named by the algorithm ({', '.join(scripts)})"
    raise ConfigError(explain(str(config), expected=expected, got="none", hint="Write --algorithm=ppo, or another."))
