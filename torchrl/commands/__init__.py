"""The commands of ``torchrl`` on the command line, each a module here, which loads on first use.

A command's module begins with the line that ``torchrl --help`` shows of it, and has one function, ``run(flags)``: it
parses the flags with a parser of :func:`torchrl.commands.parsing.make_parser`, raises an error of the library where a
user made a mistake, and prints as its last line where things lie, or what it found.
"""

from importlib import import_module

# The table of commands, in the order of the help.
__all__ = ["train", "seeds", "sweep", "evaluate", "plot", "enjoy", "export", "envs", "check", "bench"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
