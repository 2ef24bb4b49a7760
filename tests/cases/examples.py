"""The examples as modules, and their settings from flags."""

import importlib.util
import sys
from functools import cache
from pathlib import Path

from torchrl.recipes import from_flags, parser_of

ROOT = Path(__file__).parents[2]
ALONE = {"impala": ["--num_workers=0", "--no-async_collection"]}  # what has workers by default, in one process


@cache
def load(algorithm):
    """Import an example; dataclasses look their module up by its name."""
    path = ROOT / "examples" / algorithm / f"{algorithm}.py"
    spec = importlib.util.spec_from_file_location(f"{algorithm}_example", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_class(algorithm):
    """Return the dataclass of the settings of an example."""
    classes = vars(load(algorithm)).items()
    return next(value for name, value in classes if name.lower() == algorithm and isinstance(value, type))


@cache
def parser(algorithm):
    return parser_of(settings_class(algorithm))


def settings_of(algorithm, *flags):
    """Return the settings of an example by flags."""
    return from_flags(settings_class(algorithm), parser(algorithm).parse_args(list(flags)))
