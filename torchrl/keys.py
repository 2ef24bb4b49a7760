"""Keys of the entries of a TensorDict: names, or paths of names. Imports no torch: simulators name entries, too."""

from __future__ import annotations

from collections.abc import Iterable

from torchrl.errors import ConfigError, explain

Key = str | tuple[str, ...]


def as_path(key: Key) -> tuple[str, ...]:
    """Return a key as a tuple of names, one for each level that it goes through.

    >>> as_path("action"), as_path(("next", "reward"))
    (('action',), ('next', 'reward'))
    """
    return (key,) if isinstance(key, str) else tuple(key)


def as_key(path: tuple[str, ...]) -> Key:
    """Return a path of names in its plain form: a string if it has one level, else the tuple.

    >>> as_key(("action",)), as_key(("next", "reward"))
    ('action', ('next', 'reward'))
    """
    return path if len(path) > 1 else path[0]


def key_name(key: Key) -> str:
    """Return a key as one word, its levels joined by slashes, for messages and names of columns.

    >>> key_name(("next", "reward"))
    'next/reward'
    """
    return key if isinstance(key, str) else "/".join(key)


def key_list(who: str, keys: Iterable[Key]) -> list[Key]:
    """Return keys as a list, or refuse a single string, whose letters would be taken for keys.

    Raises:
        ConfigError: saying what to write.
    """
    if isinstance(keys, str):
        raise ConfigError(explain(who, expected="a list of keys", got=repr(keys), hint=f"Write [{keys!r}]."))
    return list(keys)
