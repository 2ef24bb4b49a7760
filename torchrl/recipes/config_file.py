"""Read and write the ``key = value`` lines of a config file, whatever keys there are.

``#`` starts a comment, a list is separated by spaces, a switch is ``true`` or ``false``, ``none`` is None, and text
that would be misread stands in double quotes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

import configargparse

from torchrl.errors import ConfigError, explain

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"(?=\s|$)|[^\s"]\S*)')
_COMMENT = re.compile(r"(^|\s)#.*$")
SWEPT = re.compile(r"^(range|choice)\s*\((.*)\)$")  # what a sweep draws, in the place of a value


class Entry(str):
    """The text of a value in a config file, with the file and the line where it stands."""

    place: str

    def __new__(cls, text: str, place: str) -> Entry:
        """Make an entry of ``text`` that also holds ``place``, for example ``"cartpole.txt, line 3"``."""
        entry = super().__new__(cls, text)
        entry.place = place
        return entry

    def words(self) -> list[str]:
        """Return the words of a value that is a list, split at spaces outside of quotes.

        Raises:
            ConfigError: quotes are not closed.
        """
        words, position = [], 0
        if self == "[]":
            return words
        while position < len(self):
            match = _WORD.match(self, position)
            if match is None:
                raise ConfigError(explain(self.place, expected="closed quotes", got=self[position:].strip()))
            words.append(_unquoted(match[1], self.place))
            position = match.end()
        return words

    def text(self) -> str:
        """Return the value as one text, without its quotes.

        Raises:
            ConfigError: it begins with a quote and is no text in double quotes.
        """
        return _unquoted(self, self.place)


def _unquoted(text: str, place: str) -> str:
    if not text.startswith('"'):
        return str(text)
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(explain(place, expected="one text in double quotes", got=str(text))) from None


def _without_comment(text: str) -> str:
    """Cut a comment off: a ``#`` at the start or after a space, outside of quotes."""
    shielded = _QUOTED.sub(lambda match: "x" * len(match[0]), text)
    comment = _COMMENT.search(shielded)
    return text[: comment.start()] if comment else text


def read_entries(lines: Iterable[str], name: str) -> dict[str, Entry]:
    """Read the ``key = value`` lines of a config file into a dict, or refuse a line of another form.

    Args:
        lines: of the file, in order.
        name: of the file, for messages.

    Raises:
        ConfigError: a line of another form, or a key that came before.
    """
    entries: dict[str, Entry] = {}
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        place, content = f"{name}, line {number}", _without_comment(line).strip()
        if not content:
            continue
        key, equals, value = (part.strip() for part in content.partition("="))
        if not (key and equals and value):
            hint = 'Empty text is written "".' if equals else ""
            raise ConfigError(explain(place, expected="key = value", got=repr(content), hint=hint))
        if key in seen:
            got = f"{key!r} again, which stands on line {seen[key]} already"
            raise ConfigError(explain(place, expected="each key once", got=got, hint="Remove one of the two."))
        seen[key] = number
        entries[key] = Entry(value, place)
    return entries


def format_value(value: object) -> str:
    """Write a value in the form in which a config file holds it.

    Raises:
        TypeError: it is not made of numbers, text, switches, paths, None, or a list of these.
    """
    if isinstance(value, list | tuple):
        return " ".join(_format_one(item, in_list=True) for item in value) or "[]"
    return _format_one(value, in_list=False)


def _format_one(value: object, *, in_list: bool) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if not isinstance(value, str | os.PathLike):
        raise TypeError(explain("config", expected="numbers, text, switches, None or a list of these", got=repr(value)))
    text = os.fspath(value)
    plain = text == _without_comment(text).strip() and text.isprintable() and text and not text.startswith('"')
    if in_list:
        plain = plain and text != "[]" and not re.search(r'[\s"]', text)
    return text if plain else json.dumps(text)


def write_entries(values: Mapping[str, object], *, comment: str = "") -> str:
    """Return the text of a config file with these values, which :func:`read_entries` reads.

    Args:
        values: by key.
        comment: the first line.
    """
    head = [f"# {' '.join(comment.split())}"] if comment else []
    return "\n".join([*head, *(f"{key} = {format_value(value)}" for key, value in values.items()), ""])


class ConfigFile(configargparse.ConfigFileParser):
    """Read and write config files for ConfigArgParse, and check every entry as it is read."""

    def __init__(self, check: Callable[[str, Entry], bool]) -> None:
        """Check every entry with ``check(key, entry)``: it raises if that is wrong, else says whether to keep it."""
        super().__init__()
        self._check = check

    def get_syntax_description(self) -> str:
        """Describe the form of a config file, for ``--help``."""
        return (
            "The file holds 'key = value' lines; '#' starts a comment, a list is separated by spaces, "
            "a switch is true or false."
        )

    def parse(self, stream: TextIO) -> dict[str, Entry]:
        """Read and check the entries of an open file.

        Raises:
            ConfigError: an entry of another form, a wrong value, or text that is not UTF-8.
        """
        try:
            entries = read_entries(stream, stream.name)
        except UnicodeDecodeError:
            raise ConfigError(explain(stream.name, expected="text in UTF-8", got="other bytes")) from None
        return {key: entry for key, entry in entries.items() if self._check(key, entry)}

    def serialize(self, items: Mapping[str, Any]) -> str:
        """Return the text of a config file with these values."""
        return write_entries(items)
