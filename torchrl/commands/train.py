"""Train an agent by an algorithm, by a config and flags.

It runs the script of the algorithm, which is found beside the package, as ``python examples/ppo/ppo.py`` does: flags,
folders and printed lines are the script's. A config may also be named without its path, as in ``--config=cartpole``.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from torchrl.commands.examples import find_config, find_scripts, script_of
from torchrl.commands.parsing import make_parser

DESCRIPTION = "Train an agent by an algorithm, by a config and flags, as the algorithm's script does."


def run(flags: Sequence[str]) -> None:
    """Run an algorithm's script; its last line says where the checkpoints and the curve lie.

    Args:
        flags: the algorithm's name, then flags of its script.

    Raises:
        ConfigError: there is no such algorithm, or no such config.
    """
    if not flags or flags[0].startswith("-"):
        algorithms = f"one of {', '.join(find_scripts())}; torchrl train ppo --help lists the flags of ppo"
        make_parser("train", DESCRIPTION, algorithm=algorithms).parse_args(flags)
    algorithm, *flags = flags
    script = script_of(algorithm)
    before = sys.argv
    sys.argv = [str(script), *with_config(algorithm, flags)]
    try:
        runpy.run_path(str(script), run_name="__main__")  # what worker processes are sent is as of a script, by value
    finally:
        sys.argv = before


def with_config(algorithm: str, flags: Sequence[str]) -> list[str]:
    """Return flags in which ``--config`` names a file.

    >>> with_config("ppo", ["--lr=0.1"])
    ['--lr=0.1']

    Args:
        algorithm: whose configs may be named without a path.
        flags: as they were typed.

    Raises:
        ConfigError: there is no such config.
    """
    found, words = [], iter(flags)
    for word in words:
        if word in ("-c", "--config"):
            word = f"--config={next(words, '')}"
        elif word.startswith("-c"):
            word = f"--config={word.removeprefix('-c')}"
        if word.startswith("--config="):
            word = f"--config={find_config(algorithm, word.removeprefix('--config='))}"
        found.append(word)
    return found
