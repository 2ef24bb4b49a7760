"""Turn the texts of flags and config files into values, by a function for each type; argparse reports what is wrong."""

from __future__ import annotations

import argparse
import inspect
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

from torchrl.errors import ConfigError, explain


def integer(text: str) -> int:
    """Read a whole number, which may be written as ``1_000_000`` or ``1e6``."""
    try:
        return int(text)
    except ValueError:
        value = real(text, expected="a whole number")
        if not value.is_integer():
            raise _unfit("a whole number", text) from None
        return int(value)


def positive_int(text: str) -> int:
    """Read a whole number of at least 1."""
    return _checked(integer(text), lambda value: value > 0, "a whole number of at least 1", text)


def non_negative_int(text: str) -> int:
    """Read a whole number of at least 0."""
    return _checked(integer(text), lambda value: value >= 0, "a whole number of at least 0", text)


def real(text: str, *, expected: str = "a number") -> float:
    """Read a finite number."""
    try:
        return _checked(float(text), math.isfinite, f"{expected} that is finite", text)
    except ValueError:
        raise _unfit(expected, text) from None


def positive_float(text: str) -> float:
    """Read a finite number above 0."""
    return _checked(real(text), lambda value: value > 0, "a number above 0", text)


def non_negative_float(text: str) -> float:
    """Read a finite number of at least 0."""
    return _checked(real(text), lambda value: value >= 0, "a number of at least 0", text)


def fraction(text: str) -> float:
    """Read a number from 0 to 1."""
    return _checked(real(text), lambda value: 0 <= value <= 1, "a number from 0 to 1", text)


def share(text: str) -> float:
    """Read a number above 0 and up to 1."""
    return _checked(real(text), lambda value: 0 < value <= 1, "a number above 0 and up to 1", text)


def margin(text: str) -> float:
    """Read a number between 0 and 1, neither of the two."""
    return _checked(real(text), lambda value: 0 < value < 1, "a number between 0 and 1", text)


def file_name(text: str) -> str:
    """Read a name for a folder, which must not lead elsewhere: without slashes, and neither ``.`` nor ``..``."""
    fits = text not in (".", "..") and not {"/", "\\", "\0"}.intersection(text)
    return _checked(text, lambda _: fits, "a name, without slashes", text)


def keyword(text: str) -> str:
    """Check ``name=value``, an argument for a call; :func:`keywords` reads it."""
    name, equals, _ = text.partition("=")
    return _checked(text, lambda _: bool(equals) and name.isidentifier(), "name=value", text)


def keywords(words: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` words as the arguments of a call.

    Args:
        words: values are numbers, ``true``, ``false``, ``none``, lists and mappings in JSON, or else text; text in
            double quotes stays text, whatever it looks like.

    Raises:
        ConfigError: a name comes twice.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name in arguments:
            raise ConfigError(explain("arguments", expected="each name once", got=f"{name!r} again"))
        arguments[name] = _typed(text)
    return arguments


def _typed(text: str) -> Any:
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        pass
    for convert in (int, float):  # JSON has no 1_000, no .5 and no inf
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def typed_names(flags: Iterable[str]) -> list[str]:
    """Return the names of the flags on a command line, those of switches without ``no-``."""
    words = [word.partition("=")[0] for word in flags if word.startswith("--")]
    return list(dict.fromkeys(word.removeprefix("--").removeprefix("no-") for word in words))


def _checked(value: Any, fits: Callable[[Any], bool], expected: str, text: str) -> Any:
    if not fits(value):
        raise _unfit(expected, text)
    return value


def _unfit(expected: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")


def or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a converter that turns the text ``none`` into None, and calls ``convert`` for any other text."""

    def converted(text: str) -> Any:
        return None if text.lower() == "none" else convert(text)

    converted.__name__ = getattr(convert, "__name__", "value")  # argparse names the type in its message
    return converted


def default_of(callable_: Callable[..., Any], parameter: str) -> Any:
    """Return the default value of a parameter of a class or function, so that no recipe writes it a second time.

    >>> from torchrl.modules import EGreedy
    >>> default_of(EGreedy, "end")
    0.05

    Raises:
        TypeError: the signature has no such parameter, or gives it no default.
    """
    parameters = inspect.signature(callable_).parameters
    if parameter not in parameters or parameters[parameter].default is inspect.Parameter.empty:
        defaults = [name for name, item in parameters.items() if item.default is not inspect.Parameter.empty]
        who = getattr(callable_, "__qualname__", repr(callable_))
        raise TypeError(explain(f"default_of({who})", expected=f"one of {defaults}", got=repr(parameter)))
    return parameters[parameter].default
