"""Options that a constructor passes on to its base, kept visible in its signature. Knows no loss and no estimator."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torchrl.errors import explain, nearest
from torchrl.misspelling import Extensible

UNKNOWN = "unknown"  # the ``**unknown`` of a constructor that passes nothing on


def show_passed_options(cls: type) -> None:
    """Replace ``**options`` in a class's signature by the options of its base; for ``__init_subclass__``.

    So an option and its default are written once, in the class that uses it, and ``help``, the reference and the flags
    of recipes still find it in every subclass. Only keywords with a default are options. Where class and base name the
    same option, the class's default counts.

    >>> class Base:
    ...     def __init__(self, *, gamma=0.99): ...
    >>> class Clipped(Base):
    ...     def __init__(self, *, clip=0.2, **options): ...
    >>> show_passed_options(Clipped)
    >>> inspect.signature(Clipped)
    <Signature (*, clip=0.2, gamma=0.99)>
    """
    if "__init__" not in vars(cls):
        return
    signature = inspect.signature(vars(cls)["__init__"])
    _, *own = signature.parameters.values()
    if own and own[-1].kind is inspect.Parameter.VAR_KEYWORD:
        named = {parameter.name for parameter in own}
        passed = [
            parameter
            for parameter in inspect.signature(cls.__mro__[1]).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
            and parameter.default is not inspect.Parameter.empty
            and parameter.name not in named
        ]
        own = [*own[:-1], *([] if own[-1].name == UNKNOWN else passed)]
    cls.__signature__ = signature.replace(parameters=own)


class PassesOptions(Extensible):
    """Base of classes that users extend and whose constructors pass options on: signatures show them all.

    >>> class Base(PassesOptions):
    ...     def __init__(self, *, gamma=0.99): ...
    >>> class Clipped(Base):
    ...     def __init__(self, *, clip=0.2, **options): ...
    >>> inspect.signature(Clipped)
    <Signature (*, clip=0.2, gamma=0.99)>
    """

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a misspelt method of a subclass, and name in its signature the options that it passes on."""
        super().__init_subclass__(**options)
        show_passed_options(cls)


def refuse_unknown(cls: type, unknown: Mapping[str, object]) -> None:
    """Raise for keyword options that no constructor along a class's bases knows, in the name of the class called.

    Args:
        cls: the class called, whose signature lists the options.
        unknown: the options that were left over in the last base's constructor.

    Raises:
        TypeError: naming the first of them and the option that it was probably meant to be.
    """
    for name in unknown:
        options = [key for key, item in inspect.signature(cls).parameters.items() if item.kind is item.KEYWORD_ONLY]
        close = nearest(name, options)
        hint = f"Did you mean {close!r}?" if close else ""
        raise TypeError(explain(cls.__name__, expected=f"options out of {options}", got=repr(name), hint=hint))
