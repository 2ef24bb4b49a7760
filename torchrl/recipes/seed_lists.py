"""Lists of seeds as users write them: ``0..7`` or ``0,3,5``."""

from __future__ import annotations

import argparse
import re


def seeds(text: str) -> str:
    """Check a list of seeds, ``0..7`` or ``0,3,5``; :func:`seed_list` reads it."""
    found = _read(text)
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected seeds, each once, as 0..7 or 0,3,5, got {text!r}")
    return text


def seed_list(text: str) -> list[int]:
    """Return the seeds of a text that :func:`seeds` accepted.

    >>> seed_list("0..2,7")
    [0, 1, 2, 7]
    """
    return _read(text)


def _read(text: str) -> list[int]:
    """Return the seeds of a text; none where a part of it is no seed and no range of seeds."""
    parts = [re.fullmatch(r"\s*(\d+)(?:\.\.(\d+))?\s*", part) for part in text.split(",")]
    ranges = [None if part is None else range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts]
    return [seed for part in ranges for seed in part] if all(ranges) else []
