"""Random numbers for the rows of a batch in torch, each row from a stream of its own. Knows no env."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from torchrl.counts import is_count
from torchrl.errors import ConfigError, SpecError, explain
from torchrl.seeding import child_seeds

# Of splitmix64: the step from number to number, two multipliers; of MMIX's linear generator: factor and summand.
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
FACTOR, SUMMAND = 6364136223846793005, 1442695040888963407
MAX_CHOICES = 2**31
MAX_CACHED = 4096  # multipliers of a draw


class RowRandom:
    """Draw random numbers of which those of a row depend on its own key alone, not on how many rows there are.

    Number j of a row is a hash of its key and j, in few operations of integers, so rows are drawn together on any
    device. ``rand`` and ``randint`` draw the same numbers on all devices, ``randn`` does up to rounding. No secret may
    depend on them. The hash of one multiplication, a shift and another is of our own; keys are hashed from seeds, and
    the factors of j are drawn, by splitmix64 of Steele, Lea & Flood (2014), "Fast splittable pseudorandom number
    generators", figure 16.

    >>> random = RowRandom([3], seed=7)
    >>> random.rand(2).shape, random.randint(10).shape, random.randn(2, 5).shape
    (torch.Size([3, 2]), torch.Size([3]), torch.Size([3, 2, 5]))
    >>> torch.equal(RowRandom([2], seed=7).rand(), RowRandom([3], seed=7).rand()[:2])
    True

    Args:
        batch_size: the rows ``[*B]``; None takes those of ``key``.
        seed: a non-negative integer, from which the keys of all rows are derived, instead of ``key``.
        key: int64 ``[*B]``, the stream of each row, as :meth:`key` returns it; all 64 bits count.
        rows: the number of each row in the flattened batch of its env, int64 ``[n]``; None: all rows, in their order.
        device: where numbers are drawn; that of ``key`` where it is given.

    Attributes:
        batch_size: the rows ``[*B]`` that numbers are drawn for.
        rows: which rows of an env they are, for what it knows of each; None: all.
        device: where they are drawn.

    Raises:
        ConfigError: neither or both of ``seed`` and ``key`` are given, or the seed is no non-negative integer.
        SpecError: ``key`` is no int64 tensor of shape ``[*B]``.
    """

    def __init__(
        self,
        batch_size: Sequence[int] | None = None,
        *,
        seed: int | None = None,
        key: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if (seed is None) == (key is None) or (key is None and batch_size is None):
            expected = "batch_size and seed, or key"
            raise ConfigError(explain("RowRandom", expected=expected, got=f"seed={seed}, key={key}"))
        if key is None:
            shape = torch.Size(batch_size)
            key = keys_of(child_seeds(seed, shape.numel()), device).reshape(shape)
        shape = key.shape if batch_size is None else torch.Size(batch_size)
        if key.dtype is not torch.int64 or key.shape != shape:
            expected = f"a key of int64 and shape {list(shape)}"
            raise SpecError(explain("RowRandom", expected=expected, got=f"{key.dtype} of {list(key.shape)}"))
        self.batch_size, self.rows, self.device = shape, rows, key.device
        self._key, self._num_drawn = key, 0

    def rand(self, *size: int) -> torch.Tensor:
        """Draw uniform numbers from 0 (with it) to 1 (without), float32 ``[*B, *size]``, in steps of 2⁻²⁴."""
        return _to_unit(self._bits(size))

    def randn(self, *size: int) -> torch.Tensor:
        """Draw numbers of the standard normal distribution, float32 ``[*B, *size]``; Box & Muller (1958)."""
        radius, angle = _to_unit(self._bits((2, *size))).unbind(len(self.batch_size))
        return (1 - radius).log_().mul_(-2).sqrt_().mul_(angle.mul(2 * math.pi).cos_())  # 1 - radius is above zero

    def randint(self, high: int, *size: int) -> torch.Tensor:
        """Draw integers from 0 to ``high - 1``, each alike often, int64 ``[*B, *size]``.

        Raises:
            ConfigError: ``high`` is not a whole number from 1 to 2³¹.
        """
        if not is_count(high) or high > MAX_CHOICES:
            raise ConfigError(explain("RowRandom.randint", expected="high from 1 to 2**31", got=high))
        return self._bits(size).bitwise_right_shift_(16).bitwise_and_(2**47 - 1).remainder_(high)

    def key(self) -> torch.Tensor:
        """Draw a key for a further stream of each row, int64 ``[*B]``.

        Kept in the hidden state of a :class:`TorchEnv`, it gives its ``dynamics`` random numbers without a memory::

            random = RowRandom(key=state["key"])
            noise, key = random.randn(2), random.key()  # the key of the next state
        """
        return mix_(self._bits(()))

    def _bits(self, size: tuple[int, ...]) -> torch.Tensor:
        """Draw 64 random bits for each number, of which the highest are the best, int64 ``[*B, *size]``."""
        count = math.prod(size)
        factors = _factors(self._num_drawn + 1, count, self.device)
        self._num_drawn += count
        bits = self._key.unsqueeze(-1) * factors
        bits.bitwise_xor_(bits.bitwise_right_shift(32).bitwise_and_(2**32 - 1)).mul_(_signed(SECOND))
        return bits.reshape((*self.batch_size, *size))


def later_keys(keys: torch.Tensor) -> torch.Tensor:
    """Return the key that follows each key, int64 ``[n]``: that of a row's next episode."""
    return (keys * FACTOR).add_(SUMMAND)


def keys_of(seeds: Sequence[int], device: torch.device | str) -> torch.Tensor:
    """Turn seeds, non-negative integers of which 64 bits count, into keys of streams, int64 ``[n]``."""
    numbers = np.array([seed & (2**64 - 1) for seed in seeds], dtype=np.uint64)
    return mix_(torch.from_numpy(numbers.view(np.int64)).add_(_signed(STEP))).to(device)


def mix_(numbers: torch.Tensor) -> torch.Tensor:
    """Replace each number of an int64 tensor by its hash of 64 bits, as splitmix64 does, and return the tensor."""
    for shift, factor in ((30, FIRST), (27, SECOND), (31, 1)):  # the bits that >> adds, copies of the sign, are cut
        high = numbers.bitwise_right_shift(shift).bitwise_and_(2 ** (64 - shift) - 1)
        numbers.bitwise_xor_(high).mul_(_signed(factor))
    return numbers


def _factors(first: int, count: int, device: torch.device) -> torch.Tensor:
    return (_cached_factors if count <= MAX_CACHED else _new_factors)(first, count, device)


def _new_factors(first: int, count: int, device: torch.device) -> torch.Tensor:
    """Return the odd factors of numbers from ``first`` on, int64 ``[count]``."""
    numbers = torch.arange(first, first + count, device=device)
    return mix_(numbers.mul_(_signed(STEP))).bitwise_or_(1)


_cached_factors = lru_cache(maxsize=64)(_new_factors)


def _signed(number: int) -> int:
    """Return the int64 of the same 64 bits."""
    return number - 2**64 if number >= 2**63 else number


def _to_unit(bits: torch.Tensor) -> torch.Tensor:
    """Turn 64 random bits into a float32 from 0 to 1, without 1, by the highest 24 of them."""
    return bits.bitwise_right_shift_(40).float().mul_(2.0**-24).add_(0.5)
