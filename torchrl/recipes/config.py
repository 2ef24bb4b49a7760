"""Parse the flags and config files of commands; what the flags mean is defined elsewhere.

A flag on the command line goes before the config file, the file before the default. Nothing is abbreviated, guessed or
read from the environment: an unknown or repeated key, or a wrong value, is an error that says where it stands.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import configargparse

from torchrl.errors import ConfigError, explain, nearest
from torchrl.files import write_whole
from torchrl.recipes.config_file import SWEPT, ConfigFile, Entry, format_value, write_entries
from torchrl.recipes.synonyms import same_meaning
from torchrl.recipes.value_types import or_none

COMMAND_LINE = "command line"
USAGE = "%(prog)s [--config=FILE] [--flag=value ...]"
_NEGATIVE_NUMBER = re.compile(r"^-(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$|^-(inf|nan)$")


class _FlagMistake(ConfigError):
    """An error of argparse that does not say yet whether the value came from the command line or a file."""


class _Help(argparse.HelpFormatter):
    """Show every default, in the form in which it would be written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _get_help_string(self, action: argparse.Action) -> str:
        is_set = action.default is not argparse.SUPPRESS and action.option_strings
        text = f"{action.help} (default: {format_value(action.default)})" if is_set else action.help
        return text.replace("%", "%%")  # meanings are plain text, argparse would fill them in


class _Switch(argparse.BooleanOptionalAction):
    def __init__(self, option_strings: Sequence[str], dest: str, default: bool, help: str) -> None:
        super().__init__(option_strings, dest, default=default)
        self.help = help  # some versions of Python add the default to it, the formatter does already


class _Chosen(argparse.Action):
    """A list out of given words, separated by spaces or commas."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        setattr(namespace, self.dest, [word for words in values for word in words])


def _chosen_of(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a converter that splits a text at its commas and refuses a word that is not among the choices."""

    def converted(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in choices:
                known = ", ".join(map(repr, choices))
                raise argparse.ArgumentTypeError(f"invalid choice: {word!r} (choose from {known})")
        return words

    return converted


class _Flags:
    """Base of a parser and its groups: every flag must have a help text and a default, and ``none`` stands for None."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add a flag as argparse does; ``help`` and ``default`` are required.

        The text ``none`` gives None where the default is None or ``or_none=True``.
        """
        options.setdefault("default", None)
        takes_none = options.pop("or_none", False) or (options["default"] is None and "action" not in options)
        if not options.get("help"):
            raise TypeError(explain(f"flag {names[-1]}", expected="a help text", got="none"))
        if takes_none:
            options["type"] = or_none(options.get("type") or str)
            if "choices" in options:
                options["metavar"] = f"{{{','.join([*options['choices'], 'none'])}}}"
                options["choices"] = [*options["choices"], None]
        if "choices" in options and "nargs" in options:
            choices = options.pop("choices")
            options |= {"action": _Chosen, "type": _chosen_of(choices), "metavar": f"{{{','.join(choices)}}}"}
        if isinstance(options["default"], tuple):
            options["default"] = list(options["default"])
        if not {"action", "choices", "metavar"}.intersection(options):
            options["metavar"] = "X"  # the name in capitals again would say nothing
        return super().add_argument(*names, **options)

    def add_switch(self, name: str, *, default: bool, help: str) -> argparse.Action:
        """Add a flag that is on or off: ``--x`` and ``--no-x``, and ``x = true`` or ``x = false`` in a file."""
        return self.add_argument(name, action=_Switch, default=default, help=help)


class FlagGroup(_Flags, argparse._ArgumentGroup):
    """A group of flags, which ``--help`` shows under one heading."""


class ConfigParser(_Flags, configargparse.ArgumentParser):
    """A parser of flags and config files by the rules of this module; a user's mistake is a :class:`ConfigError`.

    >>> parser = ConfigParser("Train something.")
    >>> _ = parser.add_switch("--norm", default=False, help="normalise")
    >>> parser.parse_args(["--norm"]).norm
    True

    Args:
        description: what the command does, as the head of its help.
        program: the name of the command in its help; None takes that of the process.
        usage: the first line of its help.
        file: whether it takes ``--config``.

    Attributes:
        leaves_out_unknown: warn about an unknown key of a config file and skip it; otherwise it is an error.
    """

    def __init__(self, description: str, *, program: str | None = None, usage: str = USAGE, file: bool = True) -> None:
        super().__init__(
            prog=program,
            description=description,
            usage=usage,
            allow_abbrev=False,
            formatter_class=_Help,
            add_env_var_help=False,
            config_file_parser_class=ConfigFile(self._keeps_entry),
            config_file_open_func=_open_text,
        )
        self.leaves_out_unknown = False
        self._negative_number_matcher = _NEGATIVE_NUMBER  # argparse takes "-1e-3" for a flag
        if file:
            self.add_argument("-c", "--config", is_config_file=True, metavar="FILE", help="config file to read")

    def add_argument_group(self, title: str | None = None, description: str | None = None) -> FlagGroup:
        """Add and return a group of flags, which ``--help`` shows under ``title``."""
        group = FlagGroup(self, title, description)
        self._action_groups.append(group)
        return group

    def parse_args(
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> argparse.Namespace:
        """Read flags and, where they name one, a config file.

        Raises:
            ConfigError: a mistake of the user, with the place where it was made.
        """
        args = list(sys.argv[1:] if args is None else args)
        try:
            if not {"-h", "--help"}.intersection(args):
                _check_config_flag(args)
            config, unknown = self.parse_known_args(args, namespace, env_vars={})
        except _FlagMistake as mistake:
            raise ConfigError(f"{COMMAND_LINE}: {mistake}") from None
        if unknown:
            raise self._unknown_flag(next((word for word in unknown if word.startswith("-")), unknown[0]))
        return config

    def error(self, message: str) -> None:
        """Raise an error with argparse's message, where argparse would end the process.

        Raises:
            ConfigError: always.
        """
        message = message.removeprefix("argument ")
        if "ignored explicit argument" in message:
            message += "; a switch takes no value on the command line"
        raise _FlagMistake(message)

    def convert_item_to_command_line_arg(self, action: argparse.Action | None, key: str, value: Entry) -> list[str]:
        """Return the command-line words, such as ``["--lr=0.1"]``, that set what an entry of a config file sets.

        Raises:
            ConfigError: a switch that is neither true nor false, or a value that looks like a flag.
        """
        if isinstance(action, _Switch):
            if value not in ("true", "false"):
                got = f"{key} = {value}"
                raise ConfigError(explain(value.place, expected=f"{key} = true or {key} = false", got=got))
            return [f"--{key}" if value == "true" else f"--no-{key}"]
        if action.nargs is None:
            return [f"--{key}={value.text()}"]
        words = value.words()
        for word in words:
            if word.startswith("-") and not _NEGATIVE_NUMBER.match(word):
                raise ConfigError(explain(value.place, expected=f"values of {key}", got=f"{word!r}, a flag"))
        return [f"--{key}", *words]

    def _keeps_entry(self, key: str, entry: Entry) -> bool:
        """Refuse a wrong entry of a config file; return False for an unknown one that is skipped, else True."""
        if SWEPT.match(entry):
            hint = f"This is a sweep's config: torchrl sweep {entry.place.rpartition(', line ')[0]}"
            raise ConfigError(explain(entry.place, expected=f"a value of {key}", got=str(entry), hint=hint))
        return self.check_entry(key, entry)

    def words_of(self, key: str, entry: Entry) -> list[str]:
        """Return the command-line words that set what an entry of a config file sets.

        >>> parser = make_parser("Train something.")
        >>> _ = parser.add_argument("--num_cells", nargs="+", type=int, default=[8], help="widths")
        >>> parser.words_of("num_cells", Entry("64 64", "cells.txt, line 1"))
        ['--num_cells', '64', '64']

        Args:
            key: of a flag that the parser has.
            entry: its value, as it stands in a file.

        Raises:
            ConfigError: a switch that is neither true nor false, or a value that looks like a flag.
        """
        return self.convert_item_to_command_line_arg(self._settable()[key], key, entry)

    def check_entry(self, key: str, entry: Entry) -> bool:
        """Refuse an entry whose value does not fit its flag; return False for an unknown one that is skipped.

        Raises:
            ConfigError: the key is unknown or the value does not fit, with the place where it stands.
        """
        action = self._settable().get(key)
        if action is None and self.leaves_out_unknown:
            warnings.warn(f"{entry.place}: the unknown key {key!r} is left out.", stacklevel=2)
            return False
        if action is None:
            close = _closest(key, self._settable())
            hint = f"Did you mean {close!r}?" if close else "--help lists them."
            raise ConfigError(explain(entry.place, expected="a known key", got=repr(key), hint=hint))
        words = self.convert_item_to_command_line_arg(action, key, entry)
        try:  # alone, so that what is wrong with it has its own place
            argparse.ArgumentParser.parse_known_args(self, words, argparse.Namespace())
        except _FlagMistake as mistake:
            raise ConfigError(f"{entry.place}: {str(mistake).removeprefix('--')}") from None
        return True

    def _settable(self) -> dict[str, argparse.Action]:
        """Return the flags that a config file may set, by key: all but such as ``--help`` and ``--config``."""
        return {
            action.dest: action
            for action in self._actions
            if action.dest not in ("help", "config") and f"--{action.dest}" in action.option_strings
        }

    def _unknown_flag(self, word: str) -> ConfigError:
        if not word.startswith("-"):
            hint = "Flags are written --name=value."
            return ConfigError(explain(COMMAND_LINE, expected="flags", got=repr(word), hint=hint))
        name = word.partition("=")[0]
        flags = [flag.lstrip("-") for action in self._actions for flag in action.option_strings if flag[1] == "-"]
        close = _closest(name.lstrip("-"), flags)
        hint = f"Did you mean --{close}?" if close else "--help lists them."
        return ConfigError(explain(COMMAND_LINE, expected="a known flag", got=name, hint=hint))


def make_parser(description: str) -> ConfigParser:
    """Make a parser with ``--help`` and ``--config`` only; flags are added to it.

    >>> from torchrl.recipes.value_types import positive_float
    >>> parser = make_parser("Train something.")
    >>> _ = parser.add_argument("--lr", type=positive_float, default=0.1, help="learning rate")
    >>> parser.parse_args(["--lr=1e-3"]).lr
    0.001

    Args:
        description: what the command does, as the head of its help.
    """
    return ConfigParser(description)


def save_config(config: argparse.Namespace, path: str | os.PathLike, *, comment: str = "") -> None:
    """Write parsed values as a config file that ``--config=path`` reads back; the file is written whole or not at all.

    >>> from argparse import Namespace
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_config(Namespace(lr=0.1, num_cells=[8, 8]), Path(folder, "config.txt"))
    ...     print(Path(folder, "config.txt").read_text().strip())
    lr = 0.1
    num_cells = 8 8

    Args:
        config: what a parser of :func:`make_parser` returned.
        path: of the file.
        comment: the first line of the file, for example the command line.
    """
    values = {key: value for key, value in vars(config).items() if key != "config"}
    with write_whole(path) as temporary:
        temporary.write_text(write_entries(values, comment=comment), encoding="utf-8")


def load_config(
    parser: ConfigParser, path: str | os.PathLike, flags: Sequence[str] = (), *, leaves_out_unknown: bool = False
) -> argparse.Namespace:
    """Parse a config file and command-line flags; where both set a value, the flag wins.

    >>> from tempfile import TemporaryDirectory
    >>> from torchrl import recipes
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.txt").write_text("lr = 0.1")
    ...     load_config(recipes.parser_of(type(settings)), Path(folder, "config.txt")).lr
    0.1

    Args:
        parser: with the flags that the file sets.
        path: of the file.
        flags: of a command line, which go before the file.
        leaves_out_unknown: warn about an unknown key and skip it; otherwise it is an error.

    Raises:
        ConfigError: the file is missing or does not fit the parser.
    """
    parser.leaves_out_unknown = leaves_out_unknown
    return parser.parse_args([f"--config={os.fspath(path)}", *flags])


def _closest(name: str, names: Iterable[str]) -> str | None:
    names = [other for other in names if other.startswith("no-") == name.startswith("no-")] or list(names)
    close = same_meaning(name, names) or nearest(name, names, likeness=0.68)
    return close or next((other for other in names if other.startswith(name)), None)


def _open_text(path: str) -> TextIO:
    return open(path, encoding="utf-8-sig")


def _check_config_flag(args: Sequence[str]) -> None:
    """Refuse a ``--config`` file that does not exist, and a second ``--config``, which would replace the first."""
    paths = []
    for word, following in zip(args, [*args, ""][1:], strict=True):
        if word in ("-c", "--config"):
            paths.append(following)
        elif word.startswith(("-c", "--config=")):
            paths.append(word.removeprefix("-c").removeprefix("--config="))
    if len(paths) > 1:
        raise ConfigError(explain(COMMAND_LINE, expected="one --config", got=" and ".join(paths)))
    path = Path(paths[0]).expanduser() if paths and paths[0] else None
    if path is not None and not path.is_file():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, siblings)
        hint = f"Did you mean {path.with_name(close)}?" if close else ""
        raise ConfigError(explain("--config", expected="a file that exists", got=str(path), hint=hint))
