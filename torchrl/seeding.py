"""Child seeds: every random stream of a command comes from one seed. Numpy only, so workers may use it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from torchrl.errors import ConfigError, explain


def child_seeds(seed: int, num: int) -> list[int]:
    """Derive ``num`` seeds below 2³¹ from one; the first k do not depend on ``num``.

    Args:
        seed: a non-negative integer.
        num: how many seeds to derive.

    Raises:
        ConfigError: ``seed`` is not a non-negative integer.
    """
    return [_seed_of(child) for child in np.random.SeedSequence(_require_seed(seed)).spawn(num)]


def named_seeds(seed: int, *names: str) -> dict[str, int]:
    """Derive one seed per name from a common seed; a name's seed does not depend on the other names asked for."""
    root = _require_seed(seed)
    return {name: _seed_of(np.random.SeedSequence([root, zlib.crc32(name.encode())])) for name in names}


def join_seeds(seeds: Sequence[int | None]) -> int:
    """Derive one seed from several, of which some may be None."""
    return _seed_of(np.random.SeedSequence([0 if seed is None else seed + 1 for seed in seeds]))


def _seed_of(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint32)[0] >> 1)


def _require_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(explain("seed", expected="a non-negative integer", got=repr(seed)))
    return int(seed)
