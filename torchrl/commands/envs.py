"""List the environments that are installed, or the spaces of those whose name fits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from torchrl.commands.parsing import make_parser
from torchrl.commands.worlds import shown_id, spaces_of, world_of
from torchrl.envs import installed_worlds
from torchrl.envs.installed import LIBRARIES
from torchrl.errors import ConfigError, MissingExtraError, TorchRLError, explain
from torchrl.recipes.config import ConfigParser
from torchrl.recipes.value_types import non_negative_int

DESCRIPTION = "List what ENV_ID may be, library by library; with a filter, the spaces of those that fit, too."


def parser() -> ConfigParser:
    """Make the parser of the command.

    >>> parser().parse_args(["pendulum"]).filter
    'pendulum'
    """
    made = make_parser("envs", DESCRIPTION, filter="optional: a part of the name, in any case")
    help = "of how many environments the spaces are shown, which takes building them; more are listed by name alone"
    made.add_argument("--spaces", default=5, type=non_negative_int, help=help)
    return made


def run(flags: Sequence[str]) -> None:
    """Print the environments that fit; the last line counts them.

    Args:
        flags: a part of the name, ``--spaces``.

    Raises:
        ConfigError: none fits.
    """
    args = parser().parse_args(flags)
    part, found, missing = (args.filter or "").lower(), {}, []
    for library in LIBRARIES:
        try:
            names = [shown_id(library, name) for name in installed_worlds(library)]
        except MissingExtraError:
            missing.append(library)
            continue
        found[library] = [name for name in names if part in name.lower()]
    num = sum(map(len, found.values()))
    if not num:
        raise ConfigError(explain("FILTER", expected="a part of a name that torchrl envs lists", got=repr(args.filter)))
    for library, names in found.items():
        if part and num <= args.spaces:
            for name in names:
                _print_spaces(name)
        elif names:
            print(f"{library} ({len(names)}): {', '.join(names)}")
    if missing and not part:
        print(f"not installed: {', '.join(missing)}")
    print(f"{num} environments; torchrl check ENV_ID looks whether one keeps the rules")


def _print_spaces(env_id: str) -> None:
    try:
        env = world_of(env_id, 1)
    except TorchRLError as error:
        print(f"{env_id} cannot be built here: {error}")
        return
    with closing(env):
        print(env_id, *(f"  {line}" for line in spaces_of(env)), sep="\n")
