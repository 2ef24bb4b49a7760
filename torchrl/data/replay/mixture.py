"""Mix samples from several buffers, for example three quarters of new steps and a quarter of demonstrations.

Holds no items: the caller fills, saves and closes each buffer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from numbers import Real

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl.counts import is_count
from torchrl.data.multistep import FACTOR
from torchrl.data.replay.buffer import ReplayBuffer
from torchrl.data.replay.incoming import FACTS, MASK
from torchrl.data.replay.prioritized import resolve_priority
from torchrl.data.replay.records import nest, values_of
from torchrl.data.replay.samplers import Sampler
from torchrl.errors import ConfigError, KeyMissing, SpecError, explain
from torchrl.layouts import describe_differences

log = logging.getLogger("torchrl.data.replay")

ORIGIN = (FACTS, "buffer")
# What an entry that a sampler adds means where another sampler does not add it: every step counts, with a bias of none.
_NEUTRAL = {MASK: True, (FACTS, "weight"): 1.0, (FACTS, "last"): -1}


class MixedReplay:
    """Draw every sample from several buffers, always in the same proportions.

    A sample concatenates one sample of each buffer, in their order: n items, ``[n]``, or N slices of one length,
    ``[N, T]``. ``("replay", "buffer")`` says which buffer each item is from; ``index`` and ``id`` count in that buffer.
    Where only some samplers give ``("replay", "weight")`` or ``("collector", "mask")``, the items of the others have
    weight 1 and mask true. Other entries are kept only if all buffers have them (demonstrations lack a policy's
    log-probabilities, for example). Each entry that is left out is logged once, at level WARNING.

    How many items come from each buffer is fixed, not drawn: the batch size times the proportion, rounded down; the
    items still missing go to the buffers with the largest remainders, the first of equal ones.

    >>> from torchrl.data.replay import TensorStorage
    >>> shown = ReplayBuffer(TensorStorage(100))
    >>> _ = buffer.extend(batch), shown.extend(batch)
    >>> MixedReplay([buffer, shown], [3, 1], batch_size=8).sample()["replay", "buffer"]
    tensor([0, 0, 0, 0, 0, 0, 1, 1])

    Args:
        buffers: at least one.
        proportions: one positive number for each buffer; only their ratios count.
        batch_size: number of items of a sample; None leaves it to each call.

    Raises:
        ConfigError: a wrong buffer, proportion or batch size, or slices of different lengths.
    """

    def __init__(
        self, buffers: Sequence[ReplayBuffer], proportions: Sequence[float], *, batch_size: int | None = None
    ) -> None:
        self.buffers = list(buffers)
        self.proportions = list(proportions)
        self.batch_size = batch_size
        _require_buffers(self.buffers)
        _require_proportions(self.proportions, len(self.buffers))
        lengths = [buffer.sampler.slice_len for buffer in self.buffers]
        if len(set(lengths)) > 1:
            expected = "samplers whose slices have one length"
            raise ConfigError(explain("MixedReplay", expected=expected, got=f"slice_len {lengths} (0: single steps)"))
        self._steps_per_row = max(lengths[0], 1)
        self._left_out: set[tuple[str, ...]] = set()
        if batch_size is not None:
            self.split(batch_size)

    def split(self, batch_size: int) -> list[int]:
        """Return how many items of a sample come from each buffer.

        Raises:
            ConfigError: ``batch_size`` is not positive, no multiple of the slice length, or leaves a buffer without
                items.
        """
        who, steps = "MixedReplay", self._steps_per_row
        if not is_count(batch_size) or batch_size % steps:
            multiple = f" that is a multiple of the slice_len of {steps}" if steps > 1 else ""
            expected = f"a batch_size of at least 1{multiple}"
            raise ConfigError(explain(who, expected=expected, got=repr(batch_size)))
        shares = _largest_remainders(int(batch_size) // steps, self.proportions)
        if not all(shares):
            hint = "Take a larger batch_size, or leave the buffer out."
            got = f"{[share * steps for share in shares]} of {batch_size} for the proportions {self.proportions}"
            raise ConfigError(explain(who, expected="a sample with items of each buffer", got=got, hint=hint))
        return [share * steps for share in shares]

    def sample(self, batch_size: int | None = None) -> TensorDictBase:
        """Draw a sample with items of all buffers in their proportions: ``[batch_size]``, or ``[N, T]`` for slices.

        Raises:
            ConfigError: no batch size, or a buffer with nothing to draw.
            SpecError: entries whose shapes, dtypes or devices differ; no entry that all buffers have; or n-step sums
                (``("next", "gamma")``) in some buffers only.
        """
        num = self.batch_size if batch_size is None else batch_size
        if num is None:
            hint = "Give it to sample() or to MixedReplay()."
            raise ConfigError(explain("MixedReplay", expected="a batch_size", got="none", hint=hint))
        shares = self.split(num)
        parts = []
        for number, (buffer, share) in enumerate(zip(self.buffers, shares, strict=True)):
            try:
                parts.append(buffer.sample(share))
            except ConfigError as error:
                error.add_note(f"This was buffer {number} of a MixedReplay.")
                raise
        return self._join(parts)

    def update_priority(self, sample: TensorDictBase, priority: Tensor | float | None = None) -> None:
        """Set the priorities of a sample's items, each in the buffer that it is from.

        If one of these buffers has no priorities, an error is raised and nothing is set: first select the items of the
        other buffers, as ``sample[sample["replay", "buffer"] == 0]``.

        Args:
            sample: what :meth:`sample` returned, or some rows of it.
            priority: ``[n]`` or ``[n, 1]``, or one number for all; for N slices one for each, ``[N]``. None takes the
                sample's entry ``"priority"``.

        Raises:
            SpecError: not one priority for each item.
            KeyMissing: ``sample`` is not of a mixture, or has no priority.
            ConfigError: a buffer's sampler has no priorities, or ``("replay", "buffer")`` is out of range.
        """
        rows = self._rows_of(sample)
        values = torch.as_tensor(resolve_priority(sample, priority))
        values = values.expand(len(rows)) if values.ndim == 0 else values
        if values.shape not in ((len(rows),), (len(rows), 1)):
            expected = f"one priority for each of the {len(rows)} rows"
            raise SpecError(explain("update_priority", expected=expected, got=f"shape {list(values.shape)}"))
        for number in rows.unique().tolist():
            is_own = rows == number
            part = sample.select(FACTS)[is_own.to(sample.device or "cpu")]
            last = part.get((FACTS, "last"), None)
            if last is not None and bool((last < 0).any()):
                part = part.exclude((FACTS, "last"))
            self.buffers[number].update_priority(part, values[is_own.to(values.device)])

    def _join(self, parts: Sequence[TensorDictBase]) -> TensorDictBase:
        tails = [list(part.batch_size[1:]) for part in parts]
        if any(tail != tails[0] for tail in tails):
            got = "; ".join(f"{list(part.batch_size)} from buffer {number}" for number, part in enumerate(parts))
            raise SpecError(explain("MixedReplay", expected="samples of one length in time", got=got))
        columns = [values_of(part) for part in parts]
        for number, (part, column) in enumerate(zip(parts, columns, strict=True)):
            column[ORIGIN] = torch.full(part.batch_size, number, device=part.device)
        for key, value in _NEUTRAL.items():
            example = next((column[key] for column in columns if key in column), None)
            for column in columns if example is not None else ():
                if key not in column:
                    column[key] = example.new_full(column[ORIGIN].shape, value)
        common = set(columns[0]).intersection(*columns)
        self._report_left_out(columns, set().union(*columns) - common)
        _require_same_forms(columns, common)
        values = {key: torch.cat([column[key] for column in columns]) for key in columns[0] if key in common}
        joined = nest(values, values[ORIGIN].shape)
        return joined if parts[0].device is None else joined.to(parts[0].device)

    def _report_left_out(self, columns: Sequence[dict], left_out: set[tuple[str, ...]]) -> None:
        """Log each entry that a sample leaves out, once; refuse to leave out the discount of n-step sums, or all."""
        if left_out <= self._left_out:
            return
        owners = {key: [number for number, column in enumerate(columns) if key in column] for key in sorted(left_out)}
        got = "; ".join(f"{'/'.join(key)!r} in buffers {numbers} only" for key, numbers in owners.items())
        if FACTOR in left_out:
            hint = (
                "Without it their rewards would be discounted as single ones. MultiStep(1, gamma) gives it to others."
            )
            raise SpecError(
                explain("MixedReplay", expected="sums of n steps in all buffers or in none", got=got, hint=hint)
            )
        if all(key[0] == FACTS for column in columns for key in column if key not in left_out):
            raise SpecError(explain("MixedReplay", expected="entries that all buffers have", got=got))
        log.warning("MixedReplay leaves out what not all buffers have: %s.", got)
        self._left_out |= left_out

    def _rows_of(self, sample: TensorDictBase) -> Tensor:
        """Return the buffer number of each item, int64 ``[n]``; refuse buffers without priorities."""
        origin = sample.get(ORIGIN, None) if isinstance(sample, TensorDictBase) else None
        if origin is None:
            expected = 'a sample of MixedReplay, with the key ("replay", "buffer")'
            raise KeyMissing(explain("update_priority", expected=expected, got="none"))
        rows = origin.cpu().reshape(origin.shape[0], -1)[:, 0]
        for number in rows.unique().tolist():
            if not 0 <= number < len(self.buffers):
                expected = f"buffers from 0 to {len(self.buffers) - 1}"
                raise ConfigError(explain("update_priority", expected=expected, got=number))
            sampler = self.buffers[number].sampler
            if type(sampler).update_priority is Sampler.update_priority:
                hint = 'Select the items of the others: sample[sample["replay", "buffer"] == 0].'
                got = f"{type(sampler).__name__} in buffer {number}"
                raise ConfigError(explain("update_priority", expected="samplers with priorities", got=got, hint=hint))
        return rows

    def __len__(self) -> int:
        """Return how many items there are in all buffers."""
        return sum(len(buffer) for buffer in self.buffers)

    def __iter__(self) -> Iterator[TensorDictBase]:
        """Yield samples without end; samplers without replacement begin their next round."""
        while True:
            yield self.sample()

    def __repr__(self) -> str:
        return f"MixedReplay({self.buffers!r}, proportions={self.proportions})"


def _largest_remainders(num: int, proportions: Sequence[float]) -> list[int]:
    total = math.fsum(proportions)
    quotas = [num * proportion / total for proportion in proportions]
    # Rounding may leave a quota of 3 just below it.
    shares = [math.floor(quota + 1e-9) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: (round(shares[index] - quotas[index], 9), index))
    for index in by_remainder[: num - sum(shares)]:
        shares[index] += 1
    return shares


def _require_same_forms(columns: Sequence[dict[tuple[str, ...], Tensor]], keys: set[tuple[str, ...]]) -> None:
    first, *others = (
        {key: (column[key].shape[1:], column[key].dtype, column[key].device) for key in keys} for column in columns
    )
    for number, other in enumerate(others, start=1):
        if other == first:
            continue
        hint = "ReplayBuffer(..., transform=lambda sample: sample.exclude(key)) leaves an entry out."
        got = f"in buffer {number} {describe_differences(other, first)}"
        raise SpecError(explain("MixedReplay", expected="the entries of buffer 0 in all others", got=got, hint=hint))


def _require_buffers(buffers: Sequence[object]) -> None:
    if not buffers:
        raise ConfigError(explain("MixedReplay", expected="at least one buffer", got="none"))
    for number, buffer in enumerate(buffers):
        if not isinstance(buffer, ReplayBuffer):
            expected = f"a ReplayBuffer as buffer {number}"
            raise ConfigError(explain("MixedReplay", expected=expected, got=type(buffer).__name__))


def _require_proportions(proportions: Sequence[object], num: int) -> None:
    if len(proportions) != num:
        expected = f"{num} proportions, one for each buffer"
        raise ConfigError(explain("MixedReplay", expected=expected, got=len(proportions)))
    for proportion in proportions:
        if isinstance(proportion, bool) or not isinstance(proportion, Real) or not 0 < proportion < math.inf:
            hint = "Leave out a buffer from which nothing shall come."
            expected = "positive, finite proportions"
            raise ConfigError(explain("MixedReplay", expected=expected, got=repr(proportion), hint=hint))
