"""The check that an argument which counts something is a whole number. Imports no torch: workers use it too."""

from __future__ import annotations

from numbers import Integral


def is_count(value: object, *, least: int = 1) -> bool:
    """Answer whether a value is a whole number of at least ``least``: no bool, and no float, be it 2.0 or NaN."""
    return isinstance(value, Integral) and not isinstance(value, bool) and bool(value >= least)
