"""Derive flags, help texts and config files from a dataclass of settings, and build settings from them.

A command's settings are a frozen dataclass whose fields are *parts*: frozen dataclasses themselves, each given with its
defaults. A part becomes a heading of ``--help``, each of its fields a flag, and the text under a field is what
``--help`` says of it::

    @dataclass(frozen=True)
    class Loss:
        gamma: Fraction = 0.99
        "discount of rewards"

Flags have the names of the fields alone, so no two parts of a command share one.
"""

from __future__ import annotations

import ast
import inspect
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from functools import cache
from itertools import pairwise
from textwrap import dedent
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torchrl.errors import ConfigError, explain
from torchrl.recipes import value_types
from torchrl.recipes.config import ConfigParser, FlagGroup, make_parser
from torchrl.recipes.seed_lists import seeds

Settings = TypeVar("Settings")

PositiveInt = Annotated[int, value_types.positive_int]
NonNegativeInt = Annotated[int, value_types.non_negative_int]
Real = Annotated[float, value_types.real]
PositiveFloat = Annotated[float, value_types.positive_float]
NonNegativeFloat = Annotated[float, value_types.non_negative_float]
Fraction = Annotated[float, value_types.fraction]
Share = Annotated[float, value_types.share]
Margin = Annotated[float, value_types.margin]
FileName = Annotated[str, value_types.file_name]
Keyword = Annotated[str, value_types.keyword]
Seeds = Annotated[str, seeds]


def parser_of(settings: type) -> ConfigParser:
    """Make a command's parser: one flag per field of the settings' parts; their docstring heads ``--help``.

    >>> parser_of(type(settings)).parse_args(["--lr=0.1"]).lr
    0.1

    Args:
        settings: a dataclass of parts.
    """
    return add_parts(make_parser(inspect.getdoc(settings).partition("\n")[0]), settings)


def add_parts(parser: ConfigParser, settings: type) -> ConfigParser:
    """Add one flag per field of the settings' parts to a parser, and return the parser.

    Args:
        parser: has no flags of these names yet.
        settings: a dataclass of parts.
    """
    for name, part in parts_of(settings):
        group = parser.add_argument_group(name.replace("_", " "))
        hints = get_type_hints(type(part), include_extras=True)
        for field in fields(part):
            explanation = explanations(type(part))[field.name]
            _add_flag(group, field, hints[field.name], getattr(part, field.name), explanation)
    return parser


def from_flags(settings: type[Settings], args: Namespace | Mapping[str, Any]) -> Settings:
    """Build settings from parsed flags: a parser's namespace, or a dict from flag name to value.

    >>> from_flags(type(settings), values_of(settings)) == settings
    True

    Args:
        settings: a dataclass of parts.
        args: holds a value for every field of every part; other values are ignored.

    Raises:
        ConfigError: a value is missing.
    """
    values = vars(args) if isinstance(args, Namespace) else args
    if missing := [field.name for _, part in parts_of(settings) for field in fields(part) if field.name not in values]:
        raise ConfigError(explain(settings.__name__, expected=f"a value for {missing[0]!r}", got="none"))
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    parts = {
        name: type(part)(**{field.name: given[field.name] for field in fields(part)})
        for name, part in parts_of(settings)
    }
    return settings(**parts)


def values_of(settings: Any) -> dict[str, Any]:
    """Return a dict from flag name to value over all parts of the settings; tuples become lists.

    >>> values_of(settings)["num_cells"]
    [64, 64]
    """
    values = {name: value for part in fields(settings) for name, value in vars(getattr(settings, part.name)).items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def parts_of(settings: type) -> Iterator[tuple[str, Any]]:
    """Yield the name of each part of a settings class, and the part with its defaults."""
    for field in fields(settings):
        yield field.name, field.default


@cache
def explanations(part: type) -> dict[str, str]:
    """Read the text under each field of a dataclass, its bases' included, from its source; their names without one.

    Raises:
        ConfigError: a field has no text under it.
    """
    texts: dict[str, str] = {}
    for owner in reversed(part.__mro__[:-1]):
        try:
            source = inspect.getsource(owner)
        except (OSError, TypeError):  # a class typed at a prompt, or made by exec
            texts |= {name: name.replace("_", " ") for name in inspect.get_annotations(owner)}
            continue
        (definition,) = ast.parse(dedent(source)).body
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[field.target.id] = " ".join(text.value.value.split())
    for field in fields(part):
        if field.name not in texts:
            expected = f"a text in the line under {field.name!r}, which --help shows"
            raise ConfigError(explain(part.__name__, expected=expected, got="none"))
    return texts


def _add_flag(group: FlagGroup, field: Field, hint: Any, default: Any, explanation: str) -> None:
    if hint is bool:
        group.add_switch(f"--{field.name}", default=default, help=explanation)
        return
    options: dict[str, Any] = {"default": default, "help": explanation}
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
        options["or_none"] = True
    if get_origin(hint) is tuple:
        options["nargs"] = "+" if default else "*"
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        options["choices"] = get_args(hint)
    elif get_origin(hint) is Annotated:
        options["type"] = hint.__metadata__[0]
    group.add_argument(f"--{field.name}", **options | field.metadata)
