"""Parsers of the commands: their words and flags, without a config file. What a flag means, its command says."""

from __future__ import annotations

from torchrl.recipes.config import ConfigParser


def make_parser(name: str, description: str, **words: str) -> ConfigParser:
    """Make a command's parser, to which flags are added; a mistake raises a :class:`ConfigError`.

    >>> parser = make_parser("evaluate", "Evaluate a run.", run="folder of the run")
    >>> parser.parse_args(["ppo_logging/one"]).run
    'ppo_logging/one'

    Args:
        name: of the command.
        description: the head of its help.
        words: what stands before the flags: name and help of each. One whose help begins with "optional:" is None where
            it is left out, and one whose help begins with "several:" is a list.
    """
    shown = [f"[{word.upper()}]" if help.startswith("optional:") else word.upper() for word, help in words.items()]
    parser = ConfigParser(
        description, program=f"torchrl {name}", usage=" ".join(["%(prog)s", *shown, "[--flag=value ...]"]), file=False
    )
    for (word, help), metavar in zip(words.items(), shown, strict=True):
        nargs = {"optional:": "?", "several:": "+"}.get(help.split()[0])
        parser.add_argument(word, metavar=metavar.strip("[]"), nargs=nargs, type=str, help=help)
    return parser
