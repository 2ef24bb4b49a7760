"""From command lines to objects: each file adds the flags of one part and builds the part from them."""

from torchrl.recipes.config import (
    ConfigParser,
    default_of,
    exit_on_mistake,
    load_config,
    make_parser,
    save_config,
)

__all__ = [
    "ConfigParser",
    "default_of",
    "exit_on_mistake",
    "load_config",
    "make_parser",
    "save_config",
]
