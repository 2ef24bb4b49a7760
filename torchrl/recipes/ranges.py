"""Read the ranges of a sweep's config, ``lr = range(1e-5, 1e-2, log)``; nothing is drawn from them here.

Two forms stand in the place of a value. ``range(LOW, HIGH)`` is any number between the two, both included, whole where
the flag takes whole numbers, and drawn by its logarithm with ``log`` behind. ``choice(A, B, ...)`` is one of several
values, each as it would stand in a file: ``num_cells = choice(64 64, 256 256)``.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torchrl.errors import ConfigError, explain
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.config_file import SWEPT, Entry, read_entries

_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')  # outside of quotes


@dataclass(frozen=True)
class Range:
    """Describe the numbers between two ends, both included.

    >>> Range(1e-5, 1e-2, is_log=True).is_whole
    False

    Attributes:
        low: the smallest number, an ``int`` where numbers are whole.
        high: the largest number.
        is_log: numbers are drawn by their logarithm, as many between 0.1 and 1 as between 1 and 10.
    """

    low: float
    high: float
    is_log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choice:
    """Describe one out of several values.

    >>> Choice(("64 64", "256 256")).options[0]
    '64 64'

    Attributes:
        options: the values, as they stand in a config file.
    """

    options: tuple[str, ...]


@dataclass(frozen=True)
class SweepConfig:
    """Hold the entries of a sweep's config: what all trials share, and what each trial draws.

    >>> SweepConfig({"gamma": Entry("0.98", "lr.txt, line 1")}, {"lr": Range(1e-5, 1e-2)}).ranges["lr"].high
    0.01

    Attributes:
        fixed: the entries that are values, by key.
        ranges: what is drawn for each trial, by key.
    """

    fixed: dict[str, Entry]
    ranges: dict[str, Range | Choice]


def read_sweep(parser: ConfigParser, path: str | os.PathLike, *, without: Iterable[str] = ()) -> SweepConfig:
    """Read a config whose values may be ranges, and check each end and each option as a value of its flag.

    >>> from torchrl import recipes
    >>> _ = (folder / "lr.txt").write_text("seed = 3\\nlr = range(1e-5, 1e-2, log)")
    >>> read_sweep(recipes.parser_of(type(settings)), folder / "lr.txt").ranges
    {'lr': Range(low=1e-05, high=0.01, is_log=True)}

    Args:
        parser: with the flags that the file sets.
        path: of the file.
        without: keys that are left out, because flags on the command line go before the file.

    Raises:
        ConfigError: the file cannot be read, has an entry that fits no flag, or has no range.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(explain(str(path), expected="a file of text in UTF-8", got=error)) from None
    entries = {key: entry for key, entry in read_entries(lines, str(path)).items() if key not in set(without)}
    fixed = {key: entry for key, entry in entries.items() if not SWEPT.match(entry)}
    for key, entry in fixed.items():
        parser.check_entry(key, entry)
    ranges = {key: _read_range(parser, key, entry) for key, entry in entries.items() if key not in fixed}
    if not ranges:
        hint = "Write one as lr = range(1e-5, 1e-2, log) or num_cells = choice(64 64, 256 256)."
        raise ConfigError(explain(str(path), expected="a range for at least one key", got="values alone", hint=hint))
    return SweepConfig(fixed, ranges)


def _read_range(parser: ConfigParser, key: str, entry: Entry) -> Range | Choice:
    kind, inside = SWEPT.match(entry).groups()
    parts = [Entry(part.strip(), entry.place) for part in _COMMA.split(inside)]
    return _range(parser, key, entry, parts) if kind == "range" else _choice(parser, key, entry, parts)


def _choice(parser: ConfigParser, key: str, entry: Entry, options: list[Entry]) -> Choice:
    if len(set(options)) < max(2, len(options)) or "" in options:
        hint = "Commas stand between options, spaces between the values of a list."
        expected = f"{key} = choice(A, B, ...), two options or more, each once"
        raise ConfigError(explain(entry.place, expected=expected, got=str(entry), hint=hint))
    for option in options:
        parser.check_entry(key, option)
    return Choice(tuple(str(option) for option in options))


def _range(parser: ConfigParser, key: str, entry: Entry, ends: list[Entry]) -> Range:
    is_log = len(ends) == 3 and ends[2] == "log"
    if len(ends) != 2 + is_log or "" in ends:
        expected = f"{key} = range(LOW, HIGH) or range(LOW, HIGH, log)"
        raise ConfigError(explain(entry.place, expected=expected, got=str(entry)))
    low, high = (_number(parser, key, entry, end) for end in ends[:2])
    if low >= high or (is_log and low <= 0):
        expected = f"{key} = range(LOW, HIGH) with LOW below HIGH{' and above 0, for log' if is_log else ''}"
        raise ConfigError(explain(entry.place, expected=expected, got=str(entry)))
    return Range(low, high, is_log)


def _number(parser: ConfigParser, key: str, entry: Entry, end: Entry) -> float:
    parser.check_entry(key, end)
    value = getattr(parser.parse_known_args(parser.words_of(key, end), argparse.Namespace())[0], key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = f"Write the values as {key} = choice(A, B, ...)."
        expected = "a range for a flag that takes one number"
        raise ConfigError(explain(entry.place, expected=expected, got=f"{key} = {entry}", hint=hint))
    return value
