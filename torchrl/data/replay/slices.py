"""Sample N slices of time ``[N, T]``: consecutive steps of one row, of one episode unless ``across`` is set.

A slice is found from its last step backwards: the step before a step has an id lower by ``gap``, as the ledger notes.
Two rows a and b, with a batch of one row c from another collector between::

    number   0   1   2   3   4   5   6   7
    step     a0  b0  a1  b1  c0  a2  b2  a3
    gap      0   0   2   2   0   3   3   2
    run      1   1   2   2   1   3   3   4        a slice of 4 may end in a3 alone

From a3 one subtraction of the same gap would say 7, 5, 3, 1. But a2 has a gap of 3, so this chain is *bent*, and is
followed step by step: 7, 5, 2, 0. Steps that may end a slice are kept in a set, so that one is drawn at once.
"""

from __future__ import annotations

import numpy as np
import torch

from torchrl.counts import is_count
from torchrl.data.replay.ledger import Ledger, index_dtype
from torchrl.data.replay.prioritized import PrioritizedSampler
from torchrl.data.replay.samplers import Draw, Sampler
from torchrl.errors import ConfigError, explain

NUM_TRIES = 20


class PlaceSet:
    """Hold a set of places; adding, removing and drawing one take the same time, however many there are.

    Args:
        capacity: all places are below this number.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._members = np.zeros(capacity, index_dtype(capacity))
        self._position = np.full(capacity, -1, index_dtype(capacity))
        self._num = 0

    def __len__(self) -> int:
        return self._num

    @property
    def members(self) -> np.ndarray:
        """All places in the set, int64, unordered; a copy."""
        return self._members[: self._num].astype(np.int64)

    def add(self, places: np.ndarray) -> None:
        """Add places, all different; those in the set already stay."""
        new = places[self._position[places] < 0]
        end = self._num + len(new)
        self._members[self._num : end] = new
        self._position[new] = np.arange(self._num, end)
        self._num = end

    def discard(self, places: np.ndarray) -> None:
        """Remove places, all different; those not in the set are ignored. The last members fill the gaps."""
        gone = places[self._position[places] >= 0]
        holes = self._position[gone]
        self._position[gone] = -1
        num_left = self._num - len(gone)
        tail = self._members[num_left : self._num]
        movers = tail[self._position[tail] >= 0]
        holes = holes[holes < num_left]
        self._members[holes] = movers
        self._position[movers] = holes
        self._num = num_left

    def draw(self, num: int, generator: np.random.Generator) -> np.ndarray:
        """Draw ``num`` places of the set uniformly, with replacement."""
        return self._members[generator.integers(0, self._num, num)].astype(np.int64)


class SliceSampler(Sampler):
    """Draw slices of consecutive steps, all equally likely, ``[batch_size / slice_len, slice_len]``.

    The sampler draws the last step of each slice, uniformly among the steps with enough stored steps of their episode
    before them. This needs a :class:`~torchrl.data.replay.RingWriter`, and batches with ``is_init`` and time as the
    last dimension.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> buffer = ReplayBuffer(TensorStorage(100), sampler=SliceSampler(4), batch_size=8)
    >>> _ = buffer.extend(batch)
    >>> sample = buffer.sample()
    >>> sample.batch_size, torch.equal(sample["next", "observation"][:, 0], sample["observation"][:, 1])
    (torch.Size([2, 4]), True)

    Args:
        slice_len: T, steps of a slice.
        min_len: the least number of steps; where it is below ``slice_len``, slices near the beginning of an episode may
            be shorter: the rest repeats the last step, and ``("collector", "mask")`` is false there. None allows only
            slices of full length.
        across: whether a slice may contain steps of consecutive episodes of one row (``is_init`` tells where one
            begins).

    Raises:
        ConfigError: a length is not positive, or ``min_len`` exceeds ``slice_len``.
    """

    needs_order = True

    def __init__(self, slice_len: int, *, min_len: int | None = None, across: bool = False) -> None:
        if not is_count(slice_len):
            raise ConfigError(explain("slices", expected="a slice_len of at least 1", got=repr(slice_len)))
        if min_len is not None and not (is_count(min_len) and min_len <= slice_len):
            expected = f"a min_len from 1 to the slice_len of {slice_len}"
            raise ConfigError(explain("slices", expected=expected, got=repr(min_len)))
        self.slice_len = int(slice_len)
        self.min_len = self.slice_len if min_len is None else int(min_len)
        self.across = across
        self._steps_back = np.arange(self.slice_len - 1, -1, -1)  # of each column of a slice, from its end
        self._ends: PlaceSet | None = None  # the steps with enough steps before them, as far as their own entries tell

    def bind(self, capacity: int) -> None:
        """Make the empty set of steps that may end a slice; the buffer calls it once."""
        self._ends = PlaceSet(capacity)

    def draw(self, num: int, ledger: Ledger, generator: np.random.Generator) -> Draw:
        """Draw ``num / slice_len`` slices.

        The first steps of a drawn slice may have been overwritten. Then another last step is drawn, so that all whole
        slices stay equally likely; if nearly all draws fail, it draws among the last steps whose slices are whole.

        Raises:
            ConfigError: ``num`` is no multiple of ``slice_len``, or no stored episode is long enough.
        """
        if num % self.slice_len:
            hint = f"Use {max(1, round(num / self.slice_len)) * self.slice_len}."
            expected = f"a batch_size that is a multiple of the slice_len of {self.slice_len}"
            raise ConfigError(explain("sample", expected=expected, got=num, hint=hint))
        num_slices = num // self.slice_len
        ends = self._draw_ends(num_slices, generator)
        places, found = self._follow_back(ends, ledger)
        for _ in range(NUM_TRIES):
            short = np.flatnonzero(found < self.min_len)
            if not len(short):
                return self._make_draw(places, found, ends)
            ends[short] = self._draw_ends(len(short), generator)
            places[short], found[short] = self._follow_back(ends[short], ledger)
        ends = self._ends.members
        places, found = self._follow_back(ends, ledger)
        whole = np.flatnonzero(found >= self.min_len)
        if not len(whole):
            raise self._too_short()
        rows = whole[self._choose(ends[whole], num_slices, generator)]
        return self._make_draw(places[rows], found[rows], ends[rows])

    def _follow_back(self, ends: np.ndarray, ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
        """Find the steps before given last steps, one by one, backwards in time.

        Args:
            ends: places of N slices, ``[N]``.
            ledger: of the storage.

        Returns:
            The places of the ``slice_len`` steps that end there, ``[N, T]``, and how many of them are valid, ``[N]``:
            stored, and following each other. The valid ones are the last ones of a row.
        """
        gap, longest = ledger.gap[ends].astype(np.int64), np.minimum(ledger.run[ends], self.slice_len)
        if self.across:
            longest = np.where(gap > 0, self.slice_len, 1)
        # In most chains every step is as far from the one before it as the end is: one subtraction finds them all.
        numbers = ledger.ids_at(ends)[:, None] - gap[:, None] * self._steps_back
        places = ledger.place_of(numbers)
        # The gap of a step says where the one before it lies, so that of a slice's first step is not looked at.
        is_bent = (ledger.gap[places] != gap[:, None]) & (self._steps_back < longest[:, None] - 1)
        if is_bent.any():
            rows = np.flatnonzero(is_bent.any(1))
            for column in range(self.slice_len - 1, 0, -1):
                gap = ledger.gap[ledger.place_of(numbers[rows, column])]
                numbers[rows, column - 1] = np.where(gap > 0, numbers[rows, column] - gap, -1)  # -1: of no item
            places[rows] = ledger.place_of(numbers[rows])
        return places, np.minimum((numbers >= ledger.oldest).sum(1), longest)

    def _make_draw(self, places: np.ndarray, found: np.ndarray, ends: np.ndarray) -> Draw:
        """Make a draw of slices, moving the valid steps of each from the end of its row to the beginning."""
        if self.min_len == self.slice_len and not self.across:
            return Draw(places)
        steps = np.arange(self.slice_len)
        at = np.minimum(self.slice_len - found[:, None] + steps, self.slice_len - 1)
        return Draw(np.take_along_axis(places, at, 1), mask=steps < found[:, None])

    def _draw_ends(self, num: int, generator: np.random.Generator) -> np.ndarray:
        if not len(self._ends):
            raise self._too_short()
        return self._ends.draw(num, generator)

    def _choose(self, ends: np.ndarray, num: int, generator: np.random.Generator) -> np.ndarray:
        return generator.integers(0, len(ends), num)

    def _too_short(self) -> ConfigError:
        hint = "Add batches with is_init whose last dimension is time, and more of them; or take a smaller slice_len."
        expected = f"trajectories with {self.min_len} steps in a row"
        return ConfigError(explain(type(self).__name__, expected=expected, got="none", hint=hint))

    def _may_end(self, places: np.ndarray, ledger: Ledger) -> np.ndarray:
        return np.ones(len(places), bool) if self.across else ledger.run[places] >= self.min_len

    def on_write(self, places: np.ndarray, ledger: Ledger) -> None:
        """Note which of the new items may end a slice."""
        self._ends.discard(places)
        self._ends.add(places[self._may_end(places, ledger)])

    def on_drop(self, places: np.ndarray) -> None:
        """Note that no slice can end in these places, which hold no item any more."""
        self._ends.discard(places)

    def clear(self) -> None:
        self._ends = PlaceSet(self._ends.capacity)

    def state_dict(self) -> dict:
        """Return the places of steps that may end a slice, in the set's order."""
        return {"ends": torch.from_numpy(self._ends.members)}

    def load_state_dict(self, state: dict) -> None:
        self.clear()
        self._ends.add(state["ends"].numpy())


class PrioritizedSliceSampler(SliceSampler):
    """Draw slices by the priority of their last step; see :class:`PrioritizedSampler` and :class:`SliceSampler`.

    ``update_priority`` takes one priority for each slice. ``ReplayUpdates`` gives it 0.9 · the largest + 0.1 · the mean
    of the absolute TD errors: Kapturowski et al., "Recurrent Experience Replay in Distributed RL", 2019, section 2.3.

    >>> from torchrl.data.replay import ReplayBuffer, TensorStorage
    >>> buffer = ReplayBuffer(TensorStorage(100), sampler=PrioritizedSliceSampler(4), batch_size=8)
    >>> _ = buffer.extend(batch)
    >>> sample = buffer.sample()
    >>> buffer.update_priority(sample, torch.tensor([0.5, 2.0]))  # one for each slice
    >>> sample["replay", "weight"].shape
    torch.Size([2, 4])

    Args:
        slice_len: T, steps of a slice.
        min_len: as in :class:`SliceSampler`.
        across: as in :class:`SliceSampler`.
        priorities: a :class:`PrioritizedSampler` with the options to use; None takes its defaults.

    Raises:
        ConfigError: as :class:`SliceSampler`.
    """

    def __init__(
        self,
        slice_len: int,
        *,
        min_len: int | None = None,
        across: bool = False,
        priorities: PrioritizedSampler | None = None,
    ) -> None:
        super().__init__(slice_len, min_len=min_len, across=across)
        self.priorities = PrioritizedSampler() if priorities is None else priorities

    def bind(self, capacity: int) -> None:
        """Make the empty set of steps that may end a slice, and their sum tree; the buffer calls it once."""
        super().bind(capacity)
        self.priorities.bind(capacity)

    def _draw_ends(self, num: int, generator: np.random.Generator) -> np.ndarray:
        if not len(self._ends):
            raise self._too_short()
        return self.priorities.draw_places(num, generator)

    def _choose(self, ends: np.ndarray, num: int, generator: np.random.Generator) -> np.ndarray:
        share = self.priorities.shares(ends)
        return generator.choice(len(ends), num, p=share / share.sum())

    def _make_draw(self, places: np.ndarray, found: np.ndarray, ends: np.ndarray) -> Draw:
        draw = super()._make_draw(places, found, ends)
        draw.facts |= {"weight": self.priorities.weigh(ends, len(self._ends)), "last": ends}
        return draw

    def on_write(self, places: np.ndarray, ledger: Ledger) -> None:
        """Note which of the new items may end a slice, and give those the highest priority so far."""
        super().on_write(places, ledger)
        may_end = self._may_end(places, ledger)
        self.priorities.on_write(places[may_end], ledger)
        self.priorities.on_drop(places[~may_end])

    def on_drop(self, places: np.ndarray) -> None:
        super().on_drop(places)
        self.priorities.on_drop(places)

    def update_priority(self, places: np.ndarray, priority: np.ndarray) -> None:
        """Set the priority of the slices that end in these places."""
        self.priorities.update_priority(places, priority)

    def clear(self) -> None:
        super().clear()
        self.priorities.clear()

    def state_dict(self) -> dict:
        """Return the places of steps that may end a slice, and the state of the priorities."""
        return super().state_dict() | {"priorities": self.priorities.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.priorities.load_state_dict(state["priorities"])
