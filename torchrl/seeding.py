"""Child seeds: every random stream of a command comes from one seed. Numpy only, so workers may use it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from torchrl.errors import ConfigError, explain

# The constants of numpy's SeedSequence, whose algorithm numpy keeps as it is: NEP 19.
HASH_POOL, HASH_STEP = 0x43B0D7E5, 0x931E8875
HASH_STATE, STATE_STEP = 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)


def child_seeds(seed: int, num: int) -> list[int]:
    """Derive ``num`` seeds below 2³¹ from one; the first k do not depend on ``num``.

    They are those of ``numpy.random.SeedSequence(seed).spawn(num)``, computed for all at once: 2²⁰ in 0.1 s, not 30.

    Args:
        seed: a non-negative integer.
        num: how many seeds to derive.

    Raises:
        ConfigError: ``seed`` is not a non-negative integer.
    """
    sequence = np.random.SeedSequence(_require_seed(seed))
    if sequence.entropy >= 2**128 or num > 2**32:  # of more words than the pool mixes at first
        return [_seed_of(child) for child in sequence.spawn(num)]
    with np.errstate(over="ignore"):
        # A child's entropy is the parent's and its number, the seventeenth word to be hashed for the first of the pool.
        hashed = _hash(np.arange(num, dtype=np.uint32), HASH_POOL * pow(HASH_STEP, 16, 2**32), HASH_STEP)
        pooled = MIX_LEFT * sequence.pool[0] - MIX_RIGHT * hashed
        pooled ^= pooled >> np.uint32(16)
        return (_hash(pooled, HASH_STATE, STATE_STEP) >> np.uint32(1)).tolist()


def named_seeds(seed: int, *names: str) -> dict[str, int]:
    """Derive one seed per name from a common seed; a name's seed does not depend on the other names asked for."""
    root = _require_seed(seed)
    return {name: _seed_of(np.random.SeedSequence([root, zlib.crc32(name.encode())])) for name in names}


def join_seeds(seeds: Sequence[int | None]) -> int:
    """Derive one seed from several, of which some may be None."""
    return _seed_of(np.random.SeedSequence([0 if seed is None else seed + 1 for seed in seeds]))


def _seed_of(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint32)[0] >> 1)


def _hash(words: np.ndarray, constant: int, step: int) -> np.ndarray:
    """Hash words, uint32 ``[n]``, as ``SeedSequence`` does with this constant, which ``step`` takes to the next one."""
    words = words ^ np.uint32(constant % 2**32)
    words *= np.uint32(constant * step % 2**32)
    words ^= words >> np.uint32(16)
    return words


def _require_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(explain("seed", expected="a non-negative integer", got=repr(seed)))
    return int(seed)
