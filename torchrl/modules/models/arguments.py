"""Checks of the numbers and factories that networks are built from."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable

from torch import nn

from torchrl.errors import ConfigError, explain

Factory = Callable[..., nn.Module]


def positive(who: str, value: int) -> int:
    """Return ``value`` as an int, or refuse anything but a positive integer.

    Raises:
        ConfigError: it is no positive integer.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < 1:
        raise ConfigError(explain(who, expected="a positive integer", got=repr(value)))
    return number


def sizes(who: str, values: Iterable[int]) -> tuple[int, ...]:
    """Return ``values`` as a tuple of ints, or refuse anything but a sequence of positive integers.

    Raises:
        ConfigError: they are no sequence of positive integers.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        hint = f"One layer is ({values!r},)." if isinstance(values, int) else ""
        raise ConfigError(explain(who, expected="a sequence of positive integers", got=repr(values), hint=hint))
    return tuple(positive(who, value) for value in values)


def factory(who: str, make: Factory) -> Factory:
    """Return ``make`` if it is a class or function that builds modules; refuse a module that is built already.

    Raises:
        ConfigError: it is a module, or cannot be called.
    """
    if isinstance(make, nn.Module) or not callable(make):
        hint = f"Pass the class: {type(make).__name__}." if isinstance(make, nn.Module) else ""
        raise ConfigError(explain(who, expected="a class or function that builds a module", got=repr(make), hint=hint))
    return make
