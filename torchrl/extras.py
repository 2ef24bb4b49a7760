"""Optional dependencies, imported on first use. Not a registry: each adapter asks for what it needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from torchrl.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, or raise an error that says which extra installs it.

    Args:
        module: dotted name of the module to import.
        extra: name of the extra of this package that brings it.
        purpose: what needs it, for the message, for example ``"DMControlEnv"``.

    Raises:
        MissingExtraError: the module, or something it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'{purpose} needs the module "{module}", which could not be imported ({error}). '
            f'Install the extra from the clone: pip install -c constraints.txt -e ".[{extra.replace("_", "-")}]"'
        ) from error
