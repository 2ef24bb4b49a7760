"""A user's subclass with a misspelt method is refused when the class is defined. Imports errors alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType

from torchrl.errors import ConfigError, explain


def refuse_misspelt(cls: type, *, also: Iterable[str] = (), synonyms: Mapping[str, str] | None = None) -> None:
    """Raise if a class defines a name one letter away from a public name of its torchrl bases: a misspelt override.

    A name that the class's own methods use is taken for a helper and allowed. Call this in ``__init_subclass__``.

    Args:
        cls: the subclass.
        also: names that subclasses may define beside the public names of their bases.
        synonyms: names to refuse too, each with the name to write instead.

    Raises:
        ConfigError: naming the method, and what it was probably meant to be.
    """
    bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("torchrl.")]
    known = {*also, *(name for base in bases for name in vars(base) if not name.startswith("_"))}
    taken = known.union(*(vars(base) for base in cls.__mro__[1:]))
    used = set(_names_used(cls))
    for name in vars(cls):
        if name in taken or name in used or name.startswith("__"):
            continue
        near = (one for one in sorted(known) if _is_one_letter_off(name, one))
        meant = (synonyms or {}).get(name) or next(near, None)
        if meant:
            hint = f"Did you mean {meant!r}? If it is a helper, give it another name."
            got = f"{name!r}, which nobody would call"
            raise ConfigError(explain(cls.__name__, expected="names of its base", got=got, hint=hint))


class Extensible:
    """Base of classes that users extend: a subclass with a misspelt method is refused when it is defined.

    >>> class Base(Extensible):
    ...     def update(self): ...
    >>> class Derived(Base):
    ...     def udpate(self): ...
    Traceback (most recent call last):
    torchrl.errors.ConfigError: Derived: expected names of its base, got 'udpate', which nobody would call. ...
    """

    _former_names: Mapping[str, str] = {}  # what methods were called before, with what to write now

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a misspelt name; see :func:`refuse_misspelt`."""
        super().__init_subclass__(**options)
        refuse_misspelt(cls, synonyms=cls._former_names)


def is_used_in(cls: type, name: str) -> bool:
    """Answer whether the code of a class's own methods uses a name, as a global or as an attribute."""
    return name in _names_used(cls)


def _names_used(cls: type) -> Iterator[str]:
    for value in vars(cls).values():
        parts = [value, getattr(value, "__func__", None), getattr(value, "fget", None)]
        for function in parts:
            if isinstance(function, FunctionType):
                yield from _names_in(function.__code__)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _is_one_letter_off(name: str, other: str) -> bool:
    """Answer whether inserting, deleting or replacing one letter, or swapping two, turns one name into the other."""
    if len(other) < 4 or abs(len(name) - len(other)) > 1:
        return False
    start = next((at for at, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), min(len(name), len(other)))
    a, b = name[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])
